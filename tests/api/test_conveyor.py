"""The conveyor by itself: order, bound, errors, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable

import pytest

from billing_server.api.conveyor import convey


async def _given(numbers: Iterable[int], taken: list[int] | None = None) -> AsyncIterator[int]:
    for number in numbers:
        await asyncio.sleep(0)
        if taken is not None:
            taken.append(number)
        yield number


async def test_answers_keep_the_order_whatever_takes_long() -> None:
    dice = random.Random(3)
    running = most = 0

    async def square(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(dice.randrange(20)):
            await asyncio.sleep(0)
        running -= 1
        return number * number

    found = [answer async for answer in convey(_given(range(50)), square, 4)]
    assert found == [number * number for number in range(50)]
    assert most == 4


async def test_what_is_not_taken_is_not_listened_to() -> None:
    taken: list[int] = []

    async def at_once(number: int) -> int:
        return number

    answers = convey(_given(range(50), taken), at_once, 4)
    assert await anext(answers) == 0
    for _ in range(100):
        await asyncio.sleep(0)
    # Four are under way or wait to be taken; one more has been read and waits for room.
    assert taken == [0, 1, 2, 3, 4]
    await answers.aclose()


async def test_an_error_comes_after_the_answers_before_it_and_breaks_off_the_rest() -> None:
    broken_off = []

    async def third_fails(number: int) -> int:
        if number == 2:
            raise ValueError
        if number > 2:
            try:
                await asyncio.Event().wait()
            finally:
                broken_off.append(number)
        return number

    found = []
    with pytest.raises(ValueError):
        async for answer in convey(_given(range(50)), third_fails, 4):
            found.append(answer)  # noqa: PERF401  # what came before the error is wanted
    assert found == [0, 1]
    assert set(broken_off) <= {3, 4, 5}


async def test_an_error_of_what_gives_comes_after_all_answers() -> None:
    async def giving() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError

    async def slowly(number: int) -> int:
        await asyncio.sleep(0)
        return number

    found = []
    with pytest.raises(ValueError):
        async for answer in convey(giving(), slowly, 4):
            found.append(answer)  # noqa: PERF401  # what came before the error is wanted
    assert found == [1, 2]


async def test_nothing_to_do_ends_at_once() -> None:
    async def never(number: int) -> int:
        raise AssertionError(number)

    assert [answer async for answer in convey(_given(()), never, 2)] == []


async def test_closing_it_ends_what_is_under_way() -> None:
    ended = []

    async def for_ever(number: int) -> int:
        if number == 0:
            return number
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)
        return number

    answers = convey(_given(range(50)), for_ever, 3)
    assert await anext(answers) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    await answers.aclose()
    assert ended == [1, 2]
