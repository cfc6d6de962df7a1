"""Batches of due books that are worked on side by side: one is decided while the database works on another.

What is due is found only by claiming it. A batch that has found as many books as it may take tells that there are
more, long before the work on them ends; only then the next one begins, so that nobody claims in vain.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from billing_server.engine.work import OnClaimed, Woken

WorkOff = Callable[[OnClaimed], Coroutine[Any, Any, Woken]]
"""Claims due books, tells how many it has found, and works them off."""


async def side_by_side(work_off: WorkOff, *, books_max: int, at_once: int) -> AsyncGenerator[tuple[Woken, bool], None]:
    """What each batch has led to, without an end, and whether no other batch was under way then.

    Batches begin in the order of due times and are waited for in that order; one whose work takes long keeps the
    others from running away from it in time. Close the generator: one that fails, or a reader that stops early, does
    not leave batches running behind its back.
    """
    under_way: deque[_Batch] = deque()
    try:
        while True:
            while not under_way or (len(under_way) < at_once and await under_way[-1].found() >= books_max):
                under_way.append(_Batch(work_off))
            woken = await under_way[0].work
            under_way.popleft()
            yield woken, not under_way
    except asyncio.CancelledError:
        for batch in under_way:
            batch.work.cancel()
        raise
    finally:
        await asyncio.gather(*(batch.work for batch in under_way), return_exceptions=True)


class _Batch:
    """Some books on their way together."""

    def __init__(self, work_off: WorkOff) -> None:
        self._found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.work = asyncio.create_task(work_off(self._note))

    def _note(self, claimed: int) -> None:
        """So many books were found; a transaction that is run again finds anew, which changes nothing here."""
        if not self._found.done():
            self._found.set_result(claimed)

    async def found(self) -> int:
        """How many books were found due; none when the work failed before."""
        await asyncio.wait((self._found, self.work), return_when=asyncio.FIRST_COMPLETED)
        return self._found.result() if self._found.done() else 0
