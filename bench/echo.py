"""The echo server of the creates benchmark: bytes in, 600 bytes out. Prints its port."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import uvloop

_ANSWER = bytes(600)


async def _echo(_request: bytes, _context: Any) -> bytes:
    return _ANSWER


async def serve() -> None:
    """Serve until terminated."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve())
