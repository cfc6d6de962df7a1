"""Batches side by side: one is decided while the database works on another, and none runs away in time."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from billing_server.engine.batches import side_by_side
from billing_server.engine.work import OnClaimed, Woken

BOOKS_MAX = 10


class Work:
    """Batches that find so many books each, and end when they are let go. `begun` and `ended` tell their numbers."""

    def __init__(self, *found: int) -> None:
        self._found = found
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.gates = [asyncio.Event() for _ in found]

    async def __call__(self, on_claimed: OnClaimed) -> Woken:
        number = len(self.begun)
        self.begun.append(number)
        await asyncio.sleep(0)
        on_claimed(self._found[number])
        await self.gates[number].wait()
        self.ended.append(number)
        return Woken(books=self._found[number])


async def _turns() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_next_batch_begins_when_one_has_found_as_many_books_as_it_takes() -> None:
    work = Work(10, 10, 10, 10)
    async with aclosing(side_by_side(work, books_max=BOOKS_MAX, at_once=2)) as batches:
        first = asyncio.ensure_future(anext(batches))
        await _turns()
        assert work.begun == [0, 1], "not more than two at once"
        work.gates[1].set()
        await _turns()
        assert (work.ended, first.done()) == ([1], False), "the first is waited for, and nothing runs away from it"
        work.gates[0].set()
        assert await first == (Woken(books=10), False)
        for gate in work.gates:
            gate.set()
        assert await anext(batches) == (Woken(books=10), False)


async def test_no_batch_begins_beside_one_that_has_found_all() -> None:
    work = Work(9, 0)
    work.gates[0].set()
    work.gates[1].set()
    async with aclosing(side_by_side(work, books_max=BOOKS_MAX, at_once=2)) as batches:
        assert await anext(batches) == (Woken(books=9), True)
        assert work.begun == [0]
        assert await anext(batches) == (Woken(), True)


async def test_a_batch_that_fails_does_not_leave_another_running_behind_its_back() -> None:
    work = Work(10, 10)

    async def failing(on_claimed: OnClaimed) -> Woken:
        if not work.begun:
            work.begun.append(0)
            on_claimed(10)
            await _turns()
            raise ValueError("planted")
        return await work(on_claimed)

    async def reading() -> None:
        async with aclosing(side_by_side(failing, books_max=BOOKS_MAX, at_once=2)) as batches:
            async for _ in batches:
                raise AssertionError("the first batch fails")

    reader = asyncio.create_task(reading())
    await _turns()
    await _turns()
    assert (work.begun, work.ended, reader.done()) == ([0, 1], [], False)
    work.gates[1].set()
    with pytest.raises(ValueError, match="planted"):
        await reader
    assert work.ended == [1]


async def test_batches_end_with_their_canceled_reader() -> None:
    work = Work(10, 10)

    async def reading() -> None:
        async with aclosing(side_by_side(work, books_max=BOOKS_MAX, at_once=2)) as batches:
            async for _ in batches:
                raise AssertionError("no batch ends")

    reader = asyncio.create_task(reading())
    await _turns()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (work.begun, work.ended) == ([0, 1], [])
