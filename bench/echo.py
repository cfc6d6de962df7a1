"""The server of floors: echoes with bytes of a given size, or streams a file's messages from memory. Prints its port.

A file of messages holds each behind its length in four bytes, lowest first.

    python -m bench.echo [--answer BYTES] [--replay FILE]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import uvloop

_LENGTH_BYTES = 4


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="bench.echo", description=__doc__)
    parser.add_argument("--answer", type=int, default=600)
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    messages = [] if options.replay is None else list(read_messages(options.replay.read_bytes()))
    uvloop.install()
    asyncio.run(_serve(bytes(options.answer), messages))


def write_messages(messages: Iterable[bytes]) -> bytes:
    """The content of a file of messages."""
    return b"".join(len(message).to_bytes(_LENGTH_BYTES, "little") + message for message in messages)


def read_messages(content: bytes) -> Iterator[bytes]:
    """The messages of a file's content."""
    place = 0
    while place < len(content):
        begin = place + _LENGTH_BYTES
        place = begin + int.from_bytes(content[place:begin], "little")
        yield content[begin:place]


async def _serve(answer: bytes, messages: list[bytes]) -> None:
    async def echo(_request: bytes, _context: Any) -> bytes:
        return answer

    async def replay(_request: bytes, context: Any) -> None:
        for message in messages:
            await context.write(message)

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Replay": grpc.unary_stream_rpc_method_handler(replay),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    main()
