"""Long work in slices: whoever has much to decide lets the loop turn every few milliseconds.

A batch takes a tenth of a second to be decided and told. Meanwhile another batch of the same process may have appended
its events: until the loop gets to send its COMMIT, it keeps the account's event head locked, and with it every other
process and every caller of the account. So deciding and encoding go in slices.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

SLICE_SECONDS: Final = 0.002
"""How long the loop is kept without a turn: about what a commit takes, and a hundred times what a turn costs."""

T = TypeVar("T")


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """The items one by one; the loop turns before the next one when the last slice has taken its time."""
    began = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - began > SLICE_SECONDS:
            await asyncio.sleep(0)
            began = time.monotonic()
