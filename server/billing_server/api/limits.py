"""How much may go on at once: unary calls, and streams apart from them.

grpc's own limit counts idle streams and so would let them starve the calls; hence these.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from billing_server.domain.errors import LimitReached

CALLS_MAX: Final = 2_000
STREAMS_OF_KEY_MAX: Final = 200
_RETRY_SECONDS: Final = 1
_STREAM_RETRY_SECONDS: Final = 5


class Limits:
    """Counts what goes on in this process."""

    def __init__(
        self, *, calls_max: int = CALLS_MAX, streams_max: int, streams_of_key_max: int = STREAMS_OF_KEY_MAX
    ) -> None:
        self.calls_max = calls_max
        self.streams_max = streams_max
        self.streams_of_key_max = streams_of_key_max
        self._streams_of_key: Counter[str] = Counter()
        self.calls = 0
        self.streams = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Whether anything goes on."""
        return not self._idle.is_set()

    async def idle(self) -> None:
        """Wait until nothing goes on."""
        await self._idle.wait()

    def _note(self) -> None:
        if not self.calls and not self.streams:
            self._idle.set()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Make room for a unary call. Raises LimitReached."""
        if self.calls >= self.calls_max:
            raise LimitReached(
                "rate_limit", "too many requests at once in this server; try again", retry_after_seconds=_RETRY_SECONDS
            )
        self.calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.calls -= 1
            self._note()

    @contextlib.contextmanager
    def stream(self, key_id: str) -> Iterator[None]:
        """Make room for a stream of an API key. Raises LimitReached."""
        if self.streams >= self.streams_max:
            raise _too_many_streams("this server")
        if self._streams_of_key[key_id] >= self.streams_of_key_max:
            raise _too_many_streams("this API key")
        self.streams += 1
        self._idle.clear()
        self._streams_of_key[key_id] += 1
        try:
            yield
        finally:
            self.streams -= 1
            self._note()
            self._streams_of_key[key_id] -= 1
            if not self._streams_of_key[key_id]:
                del self._streams_of_key[key_id]


def _too_many_streams(whose: str) -> LimitReached:
    return LimitReached(
        "rate_limit",
        f"too many streams of {whose} are open; close some, or try again later",
        retry_after_seconds=_STREAM_RETRY_SECONDS,
    )
