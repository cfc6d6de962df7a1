"""The newest events of an account, kept once for all of its streams.

A thousand streams that follow one account wait for the same events. What this process commits is handed to the tail
with the bell, so that nobody has to read it; for what other processes commit, one stream reads and the others take
what it has read from memory. Who is further behind than the tail reaches reads the log itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from billing_server.delivery.passages import Passage, Passages
from billing_server.domain.consumer import shard_of, subject_of
from billing_server.domain.event import is_of_type
from billing_server.engine.bell import Bell
from billing_server.store.event import EVERYTHING, Appended, EventFilter, EventPage, StoredEvent
from billing_server.store.store import Store
from billing_server.wire.codec import framed

EVENTS_MAX: Final = 2_000
BYTES_MAX: Final = 4_000_000
_READ_AT_ONCE: Final = 500


class Tails:
    """The tails of accounts, each kept for as long as somebody reads from it."""

    def __init__(self, store: Store, bell: Bell) -> None:
        self._store = store
        self._bell = bell
        self._tails: dict[str, Tail] = {}

    @contextlib.contextmanager
    def of(self, account_id: str) -> Iterator[Tail]:
        """The tail that all readers of an account share."""
        tail = self._tails.get(account_id)
        if tail is None:
            tail = self._tails[account_id] = Tail(self._store, account_id)
            self._bell.receive(account_id, tail.receive)
        tail.users += 1
        try:
            yield tail
        finally:
            tail.users -= 1
            if not tail.users:
                self._bell.receive_no_more(account_id)
                del self._tails[account_id]
                tail.passages.close()


class Tail:
    """Events from just after `low` up to `high`, without a gap; `high` is None before the first reading.

    `passages` are what is read of the log before the tail.
    """

    def __init__(self, store: Store, account_id: str) -> None:
        self._store = store
        self._account_id = account_id
        self._events: list[StoredEvent] = []
        self._framed: list[bytes] = []
        self._bytes = 0
        self._reading: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._read_at = 0.0
        self._behind = True
        self.low = 0
        self.high: int | None = None
        self.users = 0
        self.passages = Passages(store, account_id)

    @property
    def age(self) -> float:
        """Seconds since it was last read."""
        return time.monotonic() - self._read_at

    # --- filling it

    def receive(self, appended: Appended | None) -> None:
        """Take what was committed in this process, if all before it is here; None: something was, somewhere."""
        if appended is None or self.high is None or appended.first > self.high + 1:
            self._behind = True
        else:
            self._append(appended.stored(self.high), appended.last)

    def expect(self, head: int) -> None:
        """The log is known to reach so far: what is missing is not left to the bell."""
        if self.high is None or head > self.high:
            self._behind = True

    async def catch_up(self, age_max: float) -> None:
        """Read what is new, unless all that was told of is here and the last reading is not older than `age_max`."""
        if self._behind or self.age >= age_max:
            await self.refresh()

    async def refresh(self) -> None:
        """Read what is new. Whatever was committed before this call is seen; who calls meanwhile shares the next."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_after(self._reading))
        # A stream that goes away must not take the reading from the others.
        await asyncio.shield(self._next)

    async def _read_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        self._reading, self._next = self._next, None
        self._behind = False
        try:
            await self._read()
        except BaseException:
            self._behind = True
            raise
        self._read_at = time.monotonic()

    async def _read(self) -> None:
        async with self._store.view(self._account_id) as view:
            if self.high is None:
                self.low = self.high = await view.head()
                return
            while True:
                after = self.high
                page = await view.read_events(after=after, limit=_READ_AT_ONCE)
                # What was received in the meantime is in the page as well, or comes after it.
                new = page.events[max(0, self.high - after) :]
                if len(page.events) == page.scanned_to - after:
                    self._append(new, page.scanned_to)
                else:
                    self._begin_after(page.scanned_to)
                if self.high >= page.head:
                    return

    def _append(self, events: Sequence[StoredEvent], until: int) -> None:
        """Add the events up to a position; without effect when all of them are here."""
        if not events:
            return
        payloads = [event.payload for event in events]
        self._events += events
        self._framed += framed(self._account_id, events[0].position, payloads)
        self._bytes += sum(map(len, payloads))
        self.high = until
        dropped = max(0, len(self._events) - EVENTS_MAX)
        self._bytes -= sum(len(event.payload) for event in self._events[:dropped])
        while self._bytes > BYTES_MAX:
            self._bytes -= len(self._events[dropped].payload)
            dropped += 1
        if dropped:
            self.low = self._events[dropped - 1].position
            del self._events[:dropped], self._framed[:dropped]

    def _begin_after(self, position: int) -> None:
        """Some events were dropped from the log before anybody read them; readers find that out there."""
        if self.high is not None and position > self.high:
            self._events.clear()
            self._framed.clear()
            self._bytes = 0
            self.low = self.high = position

    # --- reading it

    def reaches(self, position: int) -> bool:
        """Whether what comes after a position is here, as far as it is known."""
        return self.high is not None and position >= self.low

    def take(self, after: int, limit: int, wanted: EventFilter, until: int | None = None) -> EventPage | None:
        """What `read_events` would say of the log up to `high`; None when it begins before the tail does."""
        if self.high is None or after < self.low:
            return None
        last = self.high if until is None else min(self.high, until)
        newer: Sequence[StoredEvent] = self._events[after - self.low : max(last, after) - self.low]
        if wanted != EVERYTHING:
            newer = [event for event in newer if _matches(event, wanted)]
        events = list(newer[:limit])
        scanned_to = events[-1].position if len(events) == limit else max(last, after)
        return EventPage(events, scanned_to, self.high)

    def passage(self, after: int, wanted: EventFilter) -> Passage | None:
        """All that comes after a position up to `high`; None when it begins before the tail does."""
        if self.high is None or after < self.low:
            return None
        begin = after - self.low
        events = self._framed[begin:]
        if wanted != EVERYTHING:
            newer = islice(self._events, begin, None)
            events = [frame for event, frame in zip(newer, events, strict=True) if _matches(event, wanted)]
        return Passage(events, max(self.high, after), self.high)


def _matches(event: StoredEvent, wanted: EventFilter) -> bool:
    """Whether the filter lets the event pass, as the log's own queries would have it."""
    if wanted.customer is not None and event.customer != wanted.customer:
        return False
    if wanted.object_ids and event.object_id not in wanted.object_ids:
        return False
    if wanted.shards is not None and shard_of(subject_of(event.customer, event.object_id)) not in wanted.shards:
        return False
    return not wanted.types or any(is_of_type(event.type, name) for name in wanted.types)
