"""The client in Node: protos read at run time by @grpc/proto-loader, calls by @grpc/grpc-js."""

from __future__ import annotations

from tests.clients.served_engine import ServedEngine
from tests.clients.workshop import Workshop


def test_node(engine: ServedEngine) -> None:
    """Installs the client's packages and calls the engine."""
    workshop = Workshop("node", ["node", "npm"], keep=["node_modules"])
    workshop.build(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"])
    workshop.check(["node", "client.js"], engine)
