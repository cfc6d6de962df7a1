"""A way to PostgreSQL that can be cut exactly where it hurts, around a COMMIT, or made slow."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Cut = Literal["the request is lost", "the answer is lost"]

_SOCKET: Final = ".s.PGSQL.5432"
_COMMIT: Final = b"COMMIT\x00"
_CHUNK_BYTES: Final = 65_536
_END_SECONDS_MAX: Final = 60.0


class Proxy:
    """Passes everything on, unless `cuts` says what becomes of the next COMMITs; `done` are those that were cut.

    `delay_seconds` is how long each answer of PostgreSQL takes longer.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.cuts: list[Cut] = []
        self.done: list[Cut] = []
        self.delay_seconds = 0.0
        parts = urlsplit(url)
        self._parts = parts
        self._host = unquote(parse_qs(parts.query).get("host", [parts.hostname or "localhost"])[0])
        self._folder = folder
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the same database by way of the proxy."""
        parts = self._parts
        user = parts.username or parse_qs(parts.query).get("user", ["postgres"])[0]
        password = f"&password={parts.password}" if parts.password else ""
        return f"postgresql://{parts.path}?host={self._folder}&user={user}{password}"

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to what is behind, by Unix socket or TCP."""
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(str(Path(self._host) / _SOCKET))
        return await asyncio.open_connection(self._host, self._parts.port or 5432)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen, until the block ends."""
        server = await asyncio.start_unix_server(self._accept, self._folder / _SOCKET)
        try:
            yield self
        finally:
            server.close()
            give_up_at = time.monotonic() + _END_SECONDS_MAX
            while self._serving:
                assert time.monotonic() < give_up_at, f"ways to the database do not end: {self._serving}"
                # One that is being accepted just now has no ends yet that could be cut.
                self.break_all()
                await asyncio.wait(self._serving, timeout=0.05)

    def break_all(self) -> None:
        """Cut all connections, wherever they are."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind_reader, behind_writer = await self._open()
        except OSError:
            # A database that is away looks so from this side, too.
            writer.transport.abort()
            return
        both = {writer, behind_writer}
        self._writers |= both
        answered = asyncio.Event()
        forth = asyncio.create_task(self._forth(reader, behind_writer, answered))
        back = asyncio.create_task(self._back(behind_reader, writer, answered))
        try:
            await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in (forth, back):
                pump.cancel()
            await asyncio.gather(forth, back, return_exceptions=True)
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, answered: asyncio.Event) -> None:
        """What the engine sends; `answered` is unset while an answer is to be swallowed."""
        answered.set()
        while data := await reader.read(_CHUNK_BYTES):
            cut = self.cuts.pop(0) if _COMMIT in data and self.cuts else None
            if cut is not None:
                self.done.append(cut)
            if cut == "the request is lost":
                return
            if cut == "the answer is lost":
                answered.clear()
            behind.write(data)
            await behind.drain()
            await answered.wait()

    async def _back(self, behind: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: asyncio.Event) -> None:
        """What PostgreSQL answers; a swallowed answer ends the connection."""
        while data := await behind.read(_CHUNK_BYTES):
            if not answered.is_set():
                return
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the PostgreSQL of a URL; it listens on a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="billing-proxy-") as folder:
        async with Proxy(url, Path(folder)).running() as proxy:
            yield proxy
