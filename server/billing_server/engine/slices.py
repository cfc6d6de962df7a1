"""Long work in slices: the loop turns between two of them, if anybody waits for that.

A batch takes most of a tenth of a second to be decided and told. Without a turn meanwhile, every call and every stream
of the process would wait for that. Turns were measured to make a billing run dearer by a twentieth, so a process
without a call or a stream takes none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

DECISIONS: Final = 10
"""How many books are decided in a slice: about two milliseconds."""

EVENTS: Final = 50
"""How many events become bytes in a slice: about as long."""

T = TypeVar("T")

Wanted = Callable[[], bool]
"""Whether anybody waits for the loop to turn."""


def by_nobody() -> bool:
    """Nobody waits: the process does nothing but this."""
    return False


async def in_slices(items: Sequence[T], size: int, wanted: Wanted) -> AsyncIterator[Sequence[T]]:
    """The items, up to `size` at a time; before each slice but the first the loop turns, if that is wanted."""
    for begin in range(0, len(items), size):
        if begin and wanted():
            await asyncio.sleep(0)
        yield items[begin : begin + size]
