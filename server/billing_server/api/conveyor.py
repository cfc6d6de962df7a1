"""A conveyor: what comes one after the other is worked on side by side, and its answers leave in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def convey(
    items: AsyncIterator[Item], carry_out: Callable[[Item], Awaitable[Answer]], at_once: int
) -> AsyncGenerator[Answer, None]:
    """The answers to all items, in the order of the items; at most `at_once` of them are under way or not taken yet.

    Raises what an item raises, after the answers to those before it; those behind it are broken off.
    """
    free = asyncio.Semaphore(at_once)
    under_way: deque[asyncio.Future[Answer]] = deque()
    more = asyncio.Event()

    async def take() -> None:
        try:
            async for item in items:
                await free.acquire()
                under_way.append(asyncio.ensure_future(carry_out(item)))
                more.set()
        finally:
            more.set()

    taking = asyncio.create_task(take())
    try:
        while not taking.done() or under_way:
            if not under_way:
                more.clear()
                await more.wait()
                continue
            answer = await under_way[0]
            yield answer
            under_way.popleft()
            free.release()
        await taking
    finally:
        taking.cancel()
        for left in under_way:
            left.cancel()
        await asyncio.gather(taking, *under_way, return_exceptions=True)
