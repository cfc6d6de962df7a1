"""The client in Java: code from protoc-gen-grpc-java by Maven, calls by grpc-java."""

from __future__ import annotations

from tests.clients.served_engine import ServedEngine
from tests.clients.workshop import PROTOS, Workshop


def test_java(engine: ServedEngine) -> None:
    """Generates the client's code, builds it and calls the engine."""
    workshop = Workshop("java", ["java", "mvn"], keep=["target"])
    workshop.build(["mvn", "--batch-mode", "--no-transfer-progress", "compile", f"-Dprotos={PROTOS}"])
    workshop.check(["java", "-cp", "target/classes:target/libraries/*", "example.Main"], engine)
