"""Errands: work in the background, by name, at most one of each name at a time.

An errand that is asked for while it is under way runs once more afterwards, so that nothing that came up in the
meantime is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

Errand = Callable[[], Awaitable[None]]


class Errands:
    """Runs errands. `ended` is told of each that ends, with its error if it failed."""

    def __init__(self, ended: Callable[[str, Exception | None], None]) -> None:
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, Errand] = {}
        self._closed = False

    def run(self, name: str, errand: Errand) -> None:
        """Begin an errand, or have it run again if it is under way."""
        if self._closed:
            return
        if name in self._tasks:
            self._again[name] = errand
        else:
            self._tasks[name] = asyncio.create_task(self._run(name, errand), name=name)

    async def _run(self, name: str, errand: Errand) -> None:
        following: Errand | None = errand
        try:
            while following is not None:
                self._again.pop(name, None)
                try:
                    await following()
                except Exception as error:  # noqa: BLE001  # whoever runs errands is told of all that fails
                    self._ended(name, error)
                    return
                self._ended(name, None)
                following = self._again.get(name)
        finally:
            self._again.pop(name, None)
            del self._tasks[name]

    async def idle(self) -> None:
        """Wait until no errand is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self, drain_seconds: float) -> None:
        """Let what is under way, and what it still begins, come to its end; break it off when it takes longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self.idle()
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
