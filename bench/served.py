"""Servers as processes of their own: the engine, and the echo that stands for what gRPC can do at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.measure import Call
from billing.v1.event_service_pb2 import StreamEventsRequest

_DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class Served:
    """A running engine, and the key of its first account; only the first engine of a database has one."""

    target: str
    key: str
    pid: int


@asynccontextmanager
async def engine(url: str) -> AsyncIterator[Served]:
    """The engine; its log goes nowhere."""
    directory = Path(tempfile.mkdtemp(prefix="billing-bench-server-"))
    target = f"127.0.0.1:{_free_port()}"
    environment = {
        **os.environ,
        "BILLING_DATABASE_URL": url,
        "BILLING_DATA_DIR": str(directory),
        "BILLING_LISTEN": target,
        "BILLING_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "billing_server", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
        key_file = directory / "api-key"
        yield Served(target, key_file.read_text().strip() if key_file.exists() else "", process.pid)
    finally:
        await _end(process)
        shutil.rmtree(directory, ignore_errors=True)


def followed(channel: grpc.aio.Channel, key: str, request: StreamEventsRequest) -> Any:
    """A stream of serialized batches of events."""
    stream: Any = channel.unary_stream(
        "/billing.v1.EventService/StreamEvents", request_serializer=StreamEventsRequest.SerializeToString
    )
    return stream(request, metadata=(("authorization", f"Bearer {key}"),))


def asked(channel: grpc.aio.Channel, path: str, key: str) -> Callable[[bytes], Awaitable[bytes]]:
    """A method that is called by serialized requests and answers so, with a key and a deadline as clients send them."""
    method: Any = channel.unary_unary(path)
    metadata = (("authorization", f"Bearer {key}"),)

    async def ask(request: bytes) -> bytes:
        answer: bytes = await method(request, metadata=metadata, timeout=_DEADLINE_SECONDS)
        return answer

    return ask


@asynccontextmanager
async def echo(request_bytes: int, answer_bytes: int, key: str = "") -> AsyncIterator[Call]:
    """A call that sends so many bytes and gets so many back, with metadata as large as a call with this key has."""
    async with _echo_server("--answer", str(answer_bytes)) as channel:
        method = asked(channel, "/bench.Echo/Echo", key)
        request = bytes(request_bytes)

        async def ask(_: int) -> object:
            return await method(request)

        yield ask


@asynccontextmanager
async def replayed(file: Path) -> AsyncIterator[Any]:
    """A method that streams the messages of a file (see `echo.py`) from memory."""
    async with _echo_server("--replay", str(file)) as channel:
        yield channel.unary_stream("/bench.Echo/Replay")


@asynccontextmanager
async def _echo_server(*arguments: str) -> AsyncIterator[grpc.aio.Channel]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.echo", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
