"""Group commit: concurrent commands of one account share a transaction.

The first command of an idle account waits a moment for company; while a batch is being committed the next one
gathers by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from billing_server.domain.errors import LimitReached
from billing_server.engine.work import Answered, Work
from billing_server.store.errors import StoreUnavailable

LOGGER = logging.getLogger(__name__)

LINGER_SECONDS = 0.001
BATCH_MAX = 400
"""As many as a billing run advances at once: the outcomes of its charges are written down by one transaction."""
QUEUE_MAX = 20_000

BATCHES_AT_ONCE = 8
"""Batches of different accounts in the database at once; more would only wait for connections."""

Execute = Callable[[str, Sequence[Work]], Awaitable[None]]


class GroupCommit:
    """Gathers work by account and runs one batch of each account at a time."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._queues: dict[str, deque[Work]] = {}
        self._runners: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(BATCHES_AT_ONCE)
        self.waiting = 0

    async def submit(self, account_id: str, work: Work) -> Answered:
        """Put work into the next batch and wait for what becomes of it. Raises its refusal.

        Callers are refused when too many wait. Outcomes of the gateway never are: they stand for money that has
        moved, and there are no more of them than charges under way.
        """
        if self.waiting >= QUEUE_MAX and work.caller is not None:
            raise LimitReached(
                "rate_limit", "too many requests are waiting in this server; try again", retry_after_seconds=1
            )
        self.waiting += 1
        self._queues.setdefault(account_id, deque()).append(work)
        if account_id not in self._runners:
            self._runners[account_id] = asyncio.create_task(self._run(account_id), name=f"commit {account_id}")
        try:
            return await work.promise
        finally:
            self.waiting -= 1

    async def idle(self) -> None:
        """Wait until nothing is being committed, nor waits for it."""
        while self._runners:
            await asyncio.wait(list(self._runners.values()))

    async def close(self) -> None:
        """Break off what is still being committed; whoever waits is told."""
        runners = list(self._runners.values())
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)

    async def _run(self, account_id: str) -> None:
        """Run batches until nothing waits any more. Whatever happens, nobody is left waiting."""
        queue = self._queues[account_id]
        batch: list[Work] = []
        try:
            await asyncio.sleep(LINGER_SECONDS)
            while queue:
                async with self._free:
                    batch = [queue.popleft() for _ in range(min(len(queue), BATCH_MAX))]
                    await self._execute(account_id, batch)
        except BaseException as error:
            told = error if isinstance(error, Exception) else StoreUnavailable("the server is stopping")
            for work in (*batch, *queue):
                work.fail(told)
            queue.clear()
            if told is not error:
                raise
            LOGGER.error("a batch of %s broke the door", account_id, exc_info=error)
        finally:
            del self._queues[account_id]
            del self._runners[account_id]
