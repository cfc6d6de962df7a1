"""Group commit for many small pieces of work: those that arrive together are done by one call.

The first piece waits a moment for company; while a batch is being done, the next one gathers. A caller that
goes away takes only its own answer with it: its piece is done all the same, as a request that has been sent
is, and its neighbors never notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LINGER_SECONDS: Final = 0.001
BATCH_MAX: Final = 500
BATCHES_AT_ONCE_MAX: Final = 2
BATCH_SECONDS_MAX: Final = 30.0


class _Waiting(NamedTuple, Generic[Item, Result]):
    key: str
    item: Item
    answer: asyncio.Future[Result | None]


class Coalescer(Generic[Item, Result]):
    """Gathers items per account and gives them to `run`, which answers by key.

    Items of one key that meet in a batch are one item: the first. Keys come to `run` in order, so that two
    processes which lock the same rows do it in the same order.
    """

    def __init__(
        self,
        run: Callable[[str, Sequence[Item]], Awaitable[Mapping[str, Result]]],
        *,
        linger_seconds: float = LINGER_SECONDS,
        batch_max: int = BATCH_MAX,
        batch_seconds_max: float = BATCH_SECONDS_MAX,
    ) -> None:
        self._run = run
        self._linger_seconds = linger_seconds
        self._batch_max = batch_max
        self._batch_seconds_max = batch_seconds_max
        self._slots = asyncio.Semaphore(BATCHES_AT_ONCE_MAX)
        self._waiting: dict[str, list[_Waiting[Item, Result]]] = {}
        self._draining: dict[str, asyncio.Task[None]] = {}

    async def submit(self, account_id: str, key: str, item: Item) -> Result | None:
        """Have the item done with others; None when `run` has no answer for its key.

        Raises TimeoutError when its batch took too long, and what `run` raised for its batch.
        """
        answer: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account_id, []).append(_Waiting(key, item, answer))
        if account_id not in self._draining:
            self._draining[account_id] = asyncio.create_task(self._drain(account_id))
        return await answer

    async def close(self) -> None:
        """Wait until everything that was submitted is done."""
        if self._draining:
            await asyncio.wait(list(self._draining.values()))

    async def _drain(self, account_id: str) -> None:
        """Do one account's batches, one after the other, until nobody waits."""
        try:
            while self._waiting[account_id]:
                if len(self._waiting[account_id]) < self._batch_max:
                    await asyncio.sleep(self._linger_seconds)
                waiting = self._waiting[account_id]
                batch, self._waiting[account_id] = waiting[: self._batch_max], waiting[self._batch_max :]
                await self._do(account_id, batch)
        finally:
            del self._draining[account_id]
            for left in self._waiting.pop(account_id):
                left.answer.cancel()

    async def _do(self, account_id: str, batch: list[_Waiting[Item, Result]]) -> None:
        first_of_key = {waiting.key: waiting.item for waiting in reversed(batch)}
        items = [first_of_key[key] for key in sorted(first_of_key)]
        work = asyncio.create_task(self._run_bounded(account_id, items))
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
            error = work.exception() if work.done() and not work.cancelled() else None
            for waiting in batch:
                _answer(waiting, work, error)

    async def _run_bounded(self, account_id: str, items: Sequence[Item]) -> Mapping[str, Result]:
        async with asyncio.timeout(self._batch_seconds_max), self._slots:
            return await self._run(account_id, items)


def _answer(
    waiting: _Waiting[Item, Result], work: asyncio.Task[Mapping[str, Result]], error: BaseException | None
) -> None:
    """Hand over what became of the batch, to those who are still there."""
    if waiting.answer.done():
        return
    if error is not None:
        waiting.answer.set_exception(error)
    elif not work.done() or work.cancelled():
        waiting.answer.cancel()
    else:
        waiting.answer.set_result(work.result().get(waiting.key))
