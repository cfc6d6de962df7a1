"""One connection of a durable consumer: what it is sent, what it says of it, and what is stored of that.

Three things go on at once, on what the connection has in hand (`domain.consumption`): the deliverer reads events and
sends them; the taker applies what the consumer says of them; the keeper stores both, many acknowledgements at once,
renews the connection's lease and shares the work with the other connections. Whatever goes wrong in one of them ends
the connection, which leaves its work to the others; all that is lost then is what was not stored, and that comes
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from billing_server.delivery.passages import fitting, refuse_gap
from billing_server.delivery.streams import POLL_SECONDS, batches, frames
from billing_server.delivery.tail import Tail
from billing_server.domain.consumer import BATCH_MAX, SHARDS, Consumer, Opening, ShardState, Step
from billing_server.domain.consumption import HELD_MAX, Entry, Hand, Reading, Shard
from billing_server.domain.errors import Conflict
from billing_server.store.consumer import Met, Share, fair_share
from billing_server.store.errors import StoreError
from billing_server.store.event import EventFilter, EventPage, StoredEvent
from billing_server.store.store import Store
from billing_server.wire.codec import redelivery_bytes

LOGGER = logging.getLogger(__name__)

LEASE_SECONDS: Final = 12.0
"""How long a connection may be unheard of before its work goes to others."""

MEETING_SECONDS: Final = 3.0
LEASE_MARGIN_SECONDS: Final = 2.0
"""A connection that could not renew its lease stops delivering so long before the lease is over."""

STORE_SECONDS: Final = 0.2
"""How long acknowledgements gather before they are stored together."""

_FIRST_READ: Final = 50
_LEAVE_SECONDS_MAX: Final = 10.0
_GONE_SECONDS: Final = 0.1


class ConsumerSilent(Conflict):
    """Nothing was heard of the consumer for too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "consumer_silent",
            f"nothing was acknowledged, declined or extended for {seconds:g} seconds; the events go to others",
        )


class Connection:
    """A connection that consumes. `tell_others` has the consumer's other connections look for work."""

    def __init__(
        self, store: Store, account_id: str, opening: Opening, consumer: Consumer, tell_others: Callable[[], None]
    ) -> None:
        self.id = f"con_{secrets.token_hex(8)}"
        self.wake = asyncio.Event()
        self.hand = Hand(tries_max=consumer.tries_max, ack_seconds=consumer.ack_timeout_seconds)
        self.head = 0
        self._store = store
        self._account_id = account_id
        self._opening = opening
        self._consumer = consumer
        self._tell_others = tell_others
        self._storing = asyncio.Lock()
        self._stir = asyncio.Event()
        self._meeting_due = 0.0
        self._lease_until = 0.0
        self._last_sign = time.monotonic()
        self._read_limit = _FIRST_READ
        self._failure: Exception | None = None
        self._finished = False

    @property
    def lag(self) -> int:
        """Positions from what is settled to the head of the log."""
        floor = self.hand.floor
        return 0 if floor is None else max(0, self.head - floor)

    # --- the whole

    async def run(self, steps: AsyncIterator[Step], tail: Tail) -> AsyncGenerator[bytes, None]:
        """Serialized events, until the consumer says no more. `leave` must be called afterwards, whatever happens."""
        await self._meet()
        self._tell_others()
        tasks = [
            asyncio.create_task(self._guarded(self._take(steps)), name="consumer's taker"),
            asyncio.create_task(self._guarded(self._keep()), name="consumer's keeper"),
        ]
        try:
            async for message in self._deliver(tail):
                yield message
        finally:
            # What is being stored is stored to its end: that takes no longer than breaking off and saying it again.
            async with self._storing:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a part of the connection; its failure ends all of it."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  # raised again where the stream is
            self._failure = error
            self.wake.set()

    async def leave(self, *, blame: bool) -> None:
        """Store what is known and give all work away. `blame`: the consumer broke off, perhaps because of an event."""
        async with self._storing:
            now = time.monotonic()
            entry = self.hand.longest_in_flight()
            broke_off = self._failure is None or isinstance(self._failure, ConsumerSilent)
            if blame and broke_off and not self._finished and entry is not None:
                self.hand.fail(entry, 0, "the connection broke while the consumer had the event", now)
            try:
                async with asyncio.timeout(_LEAVE_SECONDS_MAX):
                    await self._store.leave_consumer(self._account_id, self._share(self.hand.shards.values()))
            except (StoreError, TimeoutError) as error:
                LOGGER.warning(
                    "work of consumer %s is free only when its lease is over: %r", self._opening.consumer, error
                )
        self._tell_others()

    # --- the taker

    async def _take(self, steps: AsyncIterator[Step]) -> None:
        async for step in steps:
            now = self._last_sign = time.monotonic()
            self.hand.apply(step, now)
            self.wake.set()
            self._stir.set()
        # A caller that goes away looks for a moment like one that has said all it wanted to.
        await asyncio.sleep(_GONE_SECONDS)
        self._finished = True
        self.wake.set()

    # --- the keeper

    def meet_soon(self) -> None:
        """Another connection came, went, or gave something away."""
        self._meeting_due = 0.0
        self._stir.set()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._meeting_due - time.monotonic())):
                    await self._stir.wait()
            self._stir.clear()
            if time.monotonic() >= self._meeting_due or self.hand.ready_to_leave:
                await self._meet()
            elif self._changed():
                await asyncio.sleep(STORE_SECONDS)
                await self._save()

    def _changed(self) -> list[Shard]:
        return [shard for shard in self.hand.shards.values() if shard.changed]

    async def _save(self) -> None:
        """Store what was acknowledged, declined or parked."""
        async with self._storing:
            changed = self._changed()
            if not changed:
                return
            stored = await self._store.store_share(self._account_id, self._share(changed))
            self.hand.parking_full = self.hand.parking_full or stored.parking_full
            if stored.lost:
                LOGGER.info("a connection of consumer %s has lost its lease", self._opening.consumer)
                self.meet_soon()

    async def _meet(self) -> None:
        """Renew the lease, and share the work anew."""
        async with self._storing:
            started = time.monotonic()
            self._meeting_due = started + MEETING_SECONDS
            released = self.hand.ready_to_leave
            share = self._share(self.hand.shards.values(), released)
            met = await self._store.meet_consumer(self._account_id, share, LEASE_SECONDS)
            self._apply(met, started)
        if released:
            self._tell_others()
        self.wake.set()

    def _apply(self, met: Met, started: float) -> None:
        hand, now = self.hand, time.monotonic()
        self._consumer = met.consumer
        self.head = max(self.head, met.head)
        hand.tries_max, hand.ack_seconds = met.consumer.tries_max, met.consumer.ack_timeout_seconds
        hand.parking_full = met.parking_full
        for number in hand.shards.keys() - met.owned:
            hand.drop(number)
        for state in met.taken:
            refuse_gap(state.floor, met.oldest, met.head)
            hand.take(state, met.subjects, now=now, real_now=met.now)
        for number, position in met.retried:
            if number in hand.shards:
                hand.adopt(number, position)
        hand.rebalance(fair_share(met.connections))
        self._lease_until = started + LEASE_SECONDS - LEASE_MARGIN_SECONDS
        if hand.ready_to_leave:
            self._stir.set()

    def _share(self, shards: Iterable[Shard], released: Sequence[int] = ()) -> Share:
        """What is to be stored of some shards."""
        now, real_now = time.monotonic(), int(time.time())
        states: list[ShardState] = []
        parked = []
        for shard in shards:
            if shard.unstored:
                parked += shard.parked
                shard.parked = []
                states.append(self.hand.to_store(shard, now=now, real_now=real_now))
        return Share(
            consumer=self._opening.consumer, connection=self.id, states=states, parked=parked, released=released
        )

    # --- the deliverer

    async def _deliver(self, tail: Tail) -> AsyncIterator[bytes]:
        told_at, told_caught_up = time.monotonic(), False
        while True:
            self.wake.clear()
            if self._failure is not None:
                raise self._failure
            if self._finished:
                return
            self._expire()
            room = self._room()
            events, tries, read_on = await self._next(tail, room)
            caught_up = not read_on and self._caught_up()
            silent_for = time.monotonic() - told_at
            if events or (caught_up and not told_caught_up) or silent_for >= self._opening.heartbeat_seconds:
                framed = frames(self._account_id, events)
                for message in batches(framed, self.head, BATCH_MAX, caught_up=caught_up):
                    yield message + tries
                    tries = b""
                told_at, told_caught_up = time.monotonic(), caught_up
            elif not read_on:
                await self._wait(told_at, room)
            else:
                await asyncio.sleep(0)

    def _room(self) -> int:
        """How many events may be sent now."""
        if time.monotonic() >= self._lease_until:
            return 0
        unacknowledged_max = self._opening.unacknowledged_max or self._consumer.unacknowledged_max
        batch_max = self._opening.batch_max or self._consumer.batch_max
        return max(0, min(batch_max, self._read_limit, unacknowledged_max - self.hand.in_flight))

    def _caught_up(self) -> bool:
        hand = self.hand
        return bool(hand.shards) and not hand.held and all(s.position >= self.head for s in hand.shards.values())

    def _expire(self) -> None:
        """Take back what was not acknowledged in time. Raises ConsumerSilent when nothing else was heard either."""
        now = time.monotonic()
        expired = self.hand.expired(now)
        if expired and now - self._last_sign >= self.hand.ack_seconds:
            raise ConsumerSilent(self.hand.ack_seconds)
        for entry in expired:
            self.hand.outcomes["expired"] += entry.flying
            self.hand.fail(entry, 0, "it was not acknowledged in time", now)
        if expired:
            self._stir.set()

    async def _wait(self, told_at: float, room: int) -> None:
        """Wait until there is something to do."""
        now = time.monotonic()
        until = min(
            self.hand.next_moment(may_deliver=room > 0),
            told_at + self._opening.heartbeat_seconds,
            now + POLL_SECONDS,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - now)):
                await self.wake.wait()

    async def _next(self, tail: Tail, room: int) -> tuple[list[StoredEvent], bytes, bool]:
        """Events to be sent, how often they were tried, and whether there may be more at once."""
        if not room:
            return [], b"", False
        entries = self.hand.due(time.monotonic(), room)
        if entries:
            events, tries = await self._again(entries)
            return events, tries, True
        reading = self.hand.reading()
        if reading is None or self.hand.held >= HELD_MAX:
            return [], b"", False
        page = await self._read(tail, reading, room)
        self.head = max(self.head, page.head)
        self._read_limit = fitting([event.payload for event in page.events])
        events = self.hand.admit(reading, page.events, page.scanned_to, time.monotonic())
        return events, b"", page.scanned_to > reading.after

    async def _again(self, entries: Sequence[Entry]) -> tuple[list[StoredEvent], bytes]:
        """Events that were delivered before, and how often they were tried. Raises OutOfRange when they are gone."""
        async with self._store.view(self._account_id) as view:
            found = {event.position: event for event in await view.events_at([e.position for e in entries])}
            oldest = await view.oldest() if len(found) < len(entries) else None
        missing = [entry.position for entry in entries if entry.position not in found]
        if missing:
            refuse_gap(missing[0] - 1, self.head + 1 if oldest is None else oldest, self.head)
        flying = self.hand.deliver_again(entries, time.monotonic())
        flying.sort(key=_position)
        return [found[e.position] for e in flying], redelivery_bytes([(e.position, e.tries) for e in flying])

    async def _read(self, tail: Tail, reading: Reading, limit: int) -> EventPage:
        """What comes next in the log. Raises OutOfRange when events of it are no longer kept."""
        await tail.catch_up(POLL_SECONDS)
        wanted = EventFilter(
            types=self._consumer.types,
            customer=self._consumer.customer,
            shards=None if len(reading.shards) == SHARDS else reading.numbers,
        )
        page = tail.take(reading.after, limit, wanted, reading.until)
        if page is None:
            async with self._store.view(self._account_id) as view:
                page = await view.read_events(after=reading.after, limit=limit, wanted=wanted, until=reading.until)
                oldest = await view.oldest()
            refuse_gap(reading.after, page.head + 1 if oldest is None else oldest, page.head)
        return page


def _position(entry: Entry) -> int:
    return entry.position
