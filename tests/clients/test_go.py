"""The client in Go: code from protoc-gen-go and protoc-gen-go-grpc by buf, calls by grpc-go."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from tests.clients.served_engine import ServedEngine
from tests.clients.workshop import BUILD, PROTOS, Workshop

GENERATORS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
)
GENERATORS_FOLDER = BUILD / "go-generators"
BUF = Path(sysconfig.get_path("scripts")) / "buf"


def test_go(engine: ServedEngine) -> None:
    """Generates the client's code, builds it and calls the engine."""
    workshop = Workshop("go", ["go"])
    for generator in GENERATORS:
        workshop.build(["go", "install", generator], {"GOBIN": str(GENERATORS_FOLDER)})
    search_path = os.pathsep.join([str(GENERATORS_FOLDER), os.environ["PATH"]])
    workshop.build([str(BUF), "generate", str(PROTOS)], {"PATH": search_path})
    # The sums of modules are recorded by the build.
    workshop.build(["go", "build", "-mod=mod", "-o", "client", "."])
    workshop.build(["go", "vet", "-mod=mod", "."])
    workshop.check(["./client"], engine)
