"""Group commit: concurrent commands of one account share a transaction.

The first command of an idle account waits a moment for company. While a batch is under way the next one gathers: most
of what a small batch costs is its statements, whose number does not depend on how many share them. A second batch is
begun beside it when very many have gathered, so that the processor and the database work at the same time, and when the
first one waits for locks that somebody else holds. More than two of one account would only be smaller. Commands on one
customer stay in line by the locks of their books, as between processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from billing_server.domain.errors import LimitReached
from billing_server.engine.work import Answered, OnLocked, Work
from billing_server.store.errors import StoreUnavailable

LOGGER = logging.getLogger(__name__)

LINGER_SECONDS = 0.001
BATCH_MAX = 400
"""As many as a billing run advances at once: the outcomes of its charges are written down by one transaction."""
QUEUE_MAX = 20_000

BATCHES_AT_ONCE = 8
"""Batches in the database at once; more would only wait for connections."""

BATCHES_OF_ACCOUNT = 2
"""Batches of one account in the database at once."""

SECOND_BATCH_MIN = 64
"""How many must wait before a second batch of an account is begun beside one that works."""

STUCK_SECONDS = 0.1
"""How long a batch may wait for its locks before those that come after it no longer wait for it."""

Execute = Callable[[str, Sequence[Work], OnLocked], Awaitable[None]]


class _Line:
    """The work of one account: what waits, the tasks that commit it, and whether one of them waits for company.

    `stuck` holds a mark for each batch that has waited long for its locks, and still does.
    """

    __slots__ = ("gathering", "queue", "runners", "stuck")

    def __init__(self) -> None:
        self.queue: deque[Work] = deque()
        self.runners: set[asyncio.Task[None]] = set()
        self.gathering = False
        self.stuck: set[object] = set()

    def has_work_for(self, runners: int) -> bool:
        """Whether enough waits for so many runners; a single one never leaves anything behind."""
        if runners > BATCHES_OF_ACCOUNT:
            return False
        waits = len(self.queue)
        return waits > 0 if runners == 1 or self.stuck else waits >= SECOND_BATCH_MIN


class GroupCommit:
    """Gathers work by account and runs its batches."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._lines: dict[str, _Line] = {}
        self._free = asyncio.Semaphore(BATCHES_AT_ONCE)
        self.waiting = 0

    async def submit(self, account_id: str, work: Work) -> Answered:
        """Put work into the next batch and wait for what becomes of it. Raises its refusal.

        Callers are refused when too many wait. Outcomes of the gateway never are: they stand for money that has
        moved, and there are no more of them than charges under way.
        """
        self._take(account_id, [work])
        try:
            return await work.promise
        finally:
            self.waiting -= 1

    async def submit_all(self, account_id: str, works: Sequence[Work]) -> list[Answered | BaseException]:
        """The same for many at once: what became of each, its refusal included."""
        self._take(account_id, works)
        try:
            return await asyncio.gather(*(work.promise for work in works), return_exceptions=True)
        finally:
            self.waiting -= len(works)

    def _take(self, account_id: str, works: Sequence[Work]) -> None:
        if self.waiting >= QUEUE_MAX and any(work.caller is not None for work in works):
            raise LimitReached(
                "rate_limit", "too many requests are waiting in this server; try again", retry_after_seconds=1
            )
        self.waiting += len(works)
        line = self._lines.setdefault(account_id, _Line())
        line.queue.extend(works)
        self._begin(account_id, line)

    def _begin(self, account_id: str, line: _Line) -> None:
        """Begin another runner, if there is work for it."""
        if not line.gathering and line.has_work_for(len(line.runners) + 1):
            line.gathering = True
            line.runners.add(asyncio.create_task(self._run(account_id, line), name=f"commit {account_id}"))

    async def idle(self) -> None:
        """Wait until nothing is being committed, nor waits for it."""
        while runners := self._runners():
            await asyncio.wait(runners)

    async def close(self) -> None:
        """Break off what is still being committed; whoever waits is told."""
        runners = self._runners()
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)

    def _runners(self) -> list[asyncio.Task[None]]:
        return [runner for line in self._lines.values() for runner in line.runners]

    async def _run(self, account_id: str, line: _Line) -> None:
        """Run batches until nothing waits any more. Whatever happens, nobody is left waiting."""
        queue = line.queue
        batch: list[Work] = []
        try:
            await asyncio.sleep(LINGER_SECONDS)
            line.gathering = False
            while line.has_work_for(len(line.runners)):
                async with self._free:
                    # While a batch waited for its turn another runner may have taken all.
                    batch = [queue.popleft() for _ in range(min(len(queue), BATCH_MAX))]
                    if batch:
                        await self._carry_out(account_id, line, batch)
        except BaseException as error:
            line.gathering = False
            told = error if isinstance(error, Exception) else StoreUnavailable("the server is stopping")
            for work in (*batch, *queue):
                work.fail(told)
            queue.clear()
            if told is not error:
                raise
            LOGGER.error("a batch of %s broke the door", account_id, exc_info=error)
        finally:
            self._leave(account_id, line)

    async def _carry_out(self, account_id: str, line: _Line, batch: Sequence[Work]) -> None:
        """Run one batch; when it waits long for its locks, those behind it go on without it."""
        mark = object()

        def stuck() -> None:
            line.stuck.add(mark)
            self._begin(account_id, line)

        def locked() -> None:
            timer.cancel()
            line.stuck.discard(mark)

        timer = asyncio.get_running_loop().call_later(STUCK_SECONDS, stuck)
        try:
            await self._execute(account_id, batch, locked)
        finally:
            locked()

    def _leave(self, account_id: str, line: _Line) -> None:
        """A runner ends; nothing may come in between its last look into the queue and this."""
        runner = asyncio.current_task()
        assert runner is not None
        line.runners.discard(runner)
        if not line.runners:
            del self._lines[account_id]
