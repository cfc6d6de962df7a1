"""Parts of an account's log as streams send them, each read and framed once for all who are at the same place.

A hundred readers that replay a log go through it side by side: one of them reads, the others wait for that and take
the same bytes. What was read last stays for a while, for those who are a little behind; everything is bounded, and
gone with the account's last reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from billing_server.domain.errors import OutOfRange
from billing_server.store.store import Store
from billing_server.wire.codec import framed

READS: Final = (1_000, 500, 250, 50, 10, 5, 1)
"""How many events are read at once, for several batches: a transaction for each hundred would cost more than sending
it. Each number divides the one before it, and readings end at multiples of theirs, so that readers who began at
different positions soon are at the same place.
"""

KEPT_BYTES_MAX: Final = 4_000_000
"""How much is kept of what was read: four readings or so."""

_READ_BYTES_MAX: Final = 1_000_000
FIRST_READ: Final = 50
"""How many events are read while it is not known how large they are."""


class Passage(msgspec.Struct, frozen=True):
    """Events in order, each framed as it stands in a batch; how far the log was looked at; the head at that moment.

    Nothing that the filter lets pass is left out between where the passage began and `scanned_to`.
    """

    events: list[bytes]
    scanned_to: int
    head: int


class Passages:
    """What the streams of this process read of one account's log, past no filter."""

    def __init__(self, store: Store, account_id: str) -> None:
        self._store = store
        self._account_id = account_id
        self._readings: dict[int, asyncio.Task[Passage]] = {}
        self._kept: dict[int, int] = {}
        self._limit = FIRST_READ

    async def after(self, position: int) -> Passage:
        """What comes after a position. Raises OutOfRange when events of it are no longer kept."""
        reading = self._readings.get(position)
        if reading is None:
            limit = self._limit - position % self._limit
            reading = self._readings[position] = asyncio.create_task(self._read(position, limit))
            reading.add_done_callback(lambda task: self._keep(position, limit, task))
        # A stream that goes away must not take the reading from the others.
        return await asyncio.shield(reading)

    async def _read(self, after: int, limit: int) -> Passage:
        async with self._store.view(self._account_id) as view:
            page = await view.read_payloads(after=after, limit=limit)
        refuse_gap(after, page.first, page.head)
        self._limit = fitting(page.payloads)
        events = framed(self._account_id, page.first, page.payloads)
        return Passage(events, after + len(events), page.head)

    def _keep(self, position: int, limit: int, reading: asyncio.Task[Passage]) -> None:
        """Keep a reading of what will always be the same, and drop the oldest; where the log ends it is read anew."""
        if reading.cancelled() or reading.exception() is not None or len(reading.result().events) < limit:
            del self._readings[position]
            return
        self._kept[position] = sum(map(len, reading.result().events))
        while sum(self._kept.values()) > KEPT_BYTES_MAX:
            oldest = next(iter(self._kept))
            del self._readings[oldest], self._kept[oldest]

    def close(self) -> None:
        """Nobody reads any more."""
        for reading in self._readings.values():
            reading.cancel()


def fitting(payloads: Sequence[bytes]) -> int:
    """How many events like these make a reading of the largest size: so many are read next, and held in memory."""
    size = sum(map(len, payloads))
    most = len(payloads) * _READ_BYTES_MAX // size if size else FIRST_READ
    return next((number for number in READS if number <= most), READS[-1])


def refuse_gap(after: int, oldest: int, head: int) -> None:
    """Refuse to skip events silently. Raises OutOfRange."""
    if after + 1 < oldest:
        raise OutOfRange(
            f"events after position {after} are no longer kept; the oldest is at {oldest}: begin after {oldest - 1}",
            oldest=oldest,
            newest=head,
        )
