"""What one connection of a durable consumer has in hand, and what it may be given next.

Events of one subject (a customer, or an object without one) stand in a *lane*: first those that are in flight,
delivered and not yet acknowledged, then those that are held. Nothing is delivered past a held event, and whatever
fails takes those behind it back with it: so a lane is always delivered in order, again and again if need be.

Moments are seconds of one monotonic clock, given by the caller; what is stored is real time.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Final, Protocol, TypeVar

from billing_server.domain.consumer import Parked, Pending, ShardState, Step, shard_of, subject_of

HELD_MAX: Final = 5_000
"""Held events beyond which a connection reads no new ones: they stay in memory and are stored with their shards."""

DECLINE_SECONDS: Final = 1
"""How soon an event that was declined without a delay is delivered again."""

_EXPIRY_SECONDS: Final = 0.25
"""How exactly deadlines are kept: all that is in flight is looked through, but not more often than this."""

PARKING_FULL_SECONDS: Final = 60
"""How soon an event is tried again that should be parked while there is no room for it."""

REASON_CHARACTERS_MAX: Final = 500


class LoggedEvent(Protocol):
    """An event as far as its delivery depends on it."""

    @property
    def position(self) -> int:
        """Where it stands in the log."""

    @property
    def customer(self) -> str | None:
        """Whom it concerns."""

    @property
    def object_id(self) -> str:
        """What it is about."""


E = TypeVar("E", bound=LoggedEvent)


class Entry:
    """An event that is in hand. `due` counts while it is held, `deadline` while it is in flight."""

    __slots__ = ("deadline", "due", "flying", "lane", "position", "shard", "tries")

    def __init__(self, position: int, shard: Shard, lane: str, tries: int = 0, due: float = 0.0) -> None:
        self.position = position
        self.shard = shard
        self.lane = lane
        self.tries = tries
        self.due = due
        self.deadline = 0.0
        self.flying = False


class Shard:
    """A shard that the connection works on. `position` is how far its events have been read.

    `leaving` ones are given away as soon as nothing of them is in flight. `changed` says that there is something
    to be stored soon; `stored` is the position that was stored last.
    """

    __slots__ = (
        "acknowledged",
        "changed",
        "delivered",
        "entries",
        "in_flight",
        "leaving",
        "number",
        "parked",
        "position",
        "redelivered",
        "stored",
    )

    def __init__(self, number: int, position: int) -> None:
        self.number = number
        self.position = self.stored = position
        self.entries: dict[int, Entry] = {}
        self.in_flight = 0
        self.leaving = False
        self.changed = False
        self.parked: list[Parked] = []
        self.delivered = 0
        self.redelivered = 0
        self.acknowledged = 0

    @property
    def unstored(self) -> bool:
        """Whether anything of the shard, also what can wait, is not stored yet."""
        return self.changed or self.position != self.stored or bool(self.delivered)

    @property
    def floor(self) -> int:
        """The position up to which everything is settled."""
        return min(min(self.entries) - 1, self.position) if self.entries else self.position


class _Lane:
    """The events of one subject, in order: in flight, then held. `scheduled` is for when it stands in the queue."""

    __slots__ = ("held", "in_flight", "scheduled")

    def __init__(self) -> None:
        self.in_flight: dict[int, Entry] = {}
        self.held: deque[Entry] = deque()
        self.scheduled: float | None = None


class Reading:
    """What to read next: events of these shards after a position, and not beyond `until`."""

    __slots__ = ("after", "shards", "until")

    def __init__(self, shards: Sequence[Shard], after: int, until: int | None) -> None:
        self.shards = shards
        self.after = after
        self.until = until

    @property
    def numbers(self) -> tuple[int, ...]:
        """The shards' numbers."""
        return tuple(shard.number for shard in self.shards)


class Hand:
    """What the connection has in hand. `outcomes` counts what happened, for the metrics."""

    def __init__(self, *, tries_max: int, ack_seconds: float) -> None:
        self.tries_max = tries_max
        self.ack_seconds = ack_seconds
        self.shards: dict[int, Shard] = {}
        self.parking_full = False
        self.outcomes: Counter[str] = Counter()
        self._entries: dict[int, Entry] = {}
        self._lanes: dict[str, _Lane] = {}
        self._flying: dict[int, Entry] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._expiry_at = math.inf
        self._serial = count()

    @property
    def in_flight(self) -> int:
        """Events that are delivered and not acknowledged."""
        return len(self._flying)

    @property
    def held(self) -> int:
        """Events that wait to be delivered again, or behind one that does."""
        return len(self._entries) - len(self._flying)

    @property
    def floor(self) -> int | None:
        """The position up to which everything in hand is settled; None without any shard."""
        return min((shard.floor for shard in self.shards.values()), default=None)

    # --- shards

    def take(self, state: ShardState, subjects: Mapping[int, str], *, now: float, real_now: int) -> None:
        """Begin to work on a shard; `subjects` are those of its pending events."""
        shard = self.shards[state.shard] = Shard(state.shard, state.position)
        for pending in sorted(state.pending, key=_place):
            due = 0.0 if pending.due_at is None else now + max(0, pending.due_at - real_now)
            self._hold(Entry(pending.position, shard, subjects[pending.position], pending.tries, due))

    def adopt(self, shard_number: int, position: int) -> None:
        """Take a parked event in again. It has a lane of its own, because its subject has gone on without it."""
        if position not in self._entries:
            shard = self.shards[shard_number]
            self._hold(Entry(position, shard, f"parked {position}"))

    def _hold(self, entry: Entry) -> None:
        entry.shard.entries[entry.position] = self._entries[entry.position] = entry
        lane = self._lanes.setdefault(entry.lane, _Lane())
        lane.held.append(entry)
        if lane.held[0] is entry:
            self._schedule(entry.lane, lane)

    def rebalance(self, shards_max: int) -> None:
        """Give away what is too much, beginning with what is in flight least; or keep what was to be given away."""
        surplus = len(self.shards) - shards_max
        chosen = sorted(self.shards.values(), key=_busy)[: max(0, surplus)]
        for shard in self.shards.values():
            shard.leaving = shard in chosen
        for key, lane in self._lanes.items():
            self._schedule(key, lane)

    @property
    def ready_to_leave(self) -> list[int]:
        """The shards that are to be given away and of which nothing is in flight."""
        return [shard.number for shard in self.shards.values() if shard.leaving and not shard.in_flight]

    def drop(self, number: int) -> None:
        """Forget a shard that is given away or was lost."""
        shard = self.shards.pop(number)
        for entry in shard.entries.values():
            del self._entries[entry.position]
            self._flying.pop(entry.position, None)
            entry.flying = False
            # A lane lies within one shard.
            self._lanes.pop(entry.lane, None)

    # --- delivering

    def reading(self) -> Reading | None:
        """What to read next: first what is furthest behind, up to where the next ones stand."""
        staying = [shard for shard in self.shards.values() if not shard.leaving]
        if not staying:
            return None
        after = min(shard.position for shard in staying)
        until = min((shard.position for shard in staying if shard.position > after), default=None)
        return Reading([shard for shard in staying if shard.position == after], after, until)

    def admit(self, reading: Reading, events: Iterable[E], scanned_to: int, now: float) -> list[E]:
        """Take in what was read, and return what is to be delivered at once."""
        present = {
            shard.number: shard
            for shard in reading.shards
            if self.shards.get(shard.number) is shard and not shard.leaving
        }
        given: list[E] = []
        flying: list[Entry] = []
        for event in events:
            subject = subject_of(event.customer, event.object_id)
            shard = present.get(shard_of(subject))
            if shard is None:
                continue
            lane = self._lanes.get(subject)
            entry = Entry(event.position, shard, subject)
            if lane is not None and lane.held:
                self._hold(entry)
                continue
            if lane is None:
                lane = self._lanes[subject] = _Lane()
            shard.entries[entry.position] = self._entries[entry.position] = entry
            self._launch(entry, lane, now)
            flying.append(entry)
            given.append(event)
        for shard in present.values():
            shard.position = scanned_to
        self._watch(now + self.ack_seconds, flying)
        return given

    def due(self, now: float, limit: int) -> list[Entry]:
        """Held events that may be delivered now, as many as wanted; to be given to `deliver_again`."""
        found: list[Entry] = []
        lanes: dict[str, _Lane] = {}
        while self._ready and self._ready[0][0] <= now and len(found) < limit:
            due, _, key = heapq.heappop(self._ready)
            lane = self._lanes.get(key)
            if lane is None or key in lanes:
                continue
            if lane.scheduled == due:
                lane.scheduled = None
            if not lane.held or lane.held[0].shard.leaving:
                continue
            lanes[key] = lane
            for entry in lane.held:
                if entry.due > now or len(found) == limit:
                    break
                found.append(entry)
        for key, lane in lanes.items():
            self._schedule(key, lane)
        return found

    def deliver_again(self, entries: Iterable[Entry], now: float) -> list[Entry]:
        """Mark those events delivered that still are the next ones of their lanes, and return them."""
        flying: list[Entry] = []
        lanes: set[str] = set()
        for entry in entries:
            lane = self._lanes.get(entry.lane)
            if lane is None or not lane.held or lane.held[0] is not entry or entry.shard.leaving:
                continue
            lane.held.popleft()
            self._launch(entry, lane, now)
            entry.shard.redelivered += 1
            flying.append(entry)
            lanes.add(entry.lane)
        self.outcomes["redelivered"] += len(flying)
        for key in lanes:
            self._schedule(key, self._lanes[key])
        self._watch(now + self.ack_seconds, flying)
        return flying

    def _launch(self, entry: Entry, lane: _Lane, now: float) -> None:
        entry.deadline = now + self.ack_seconds
        entry.flying = True
        lane.in_flight[entry.position] = self._flying[entry.position] = entry
        entry.shard.in_flight += 1
        entry.shard.delivered += 1
        self.outcomes["delivered"] += 1

    # --- what becomes of them

    def apply(self, step: Step, now: float) -> None:
        """What the consumer says of its events."""
        self.acknowledge(step.acknowledged)
        if step.through:
            self.acknowledge_through(step.through)
        for declined in step.declined:
            self.decline(declined.positions, declined.delay_seconds or DECLINE_SECONDS, declined.reason, now)
        if step.extended is not None:
            self.extend(step.extended.positions, step.extended.seconds, now)

    def acknowledge(self, positions: Iterable[int]) -> None:
        """These events are done. Those that are not in hand are passed over."""
        for position in positions:
            entry = self._entries.get(position)
            if entry is not None:
                entry.shard.acknowledged += 1
                self.outcomes["acknowledged"] += 1
                self._settle(entry)

    def acknowledge_through(self, position: int) -> None:
        """All events up to a position that are in flight are done."""
        self.acknowledge([flying for flying in self._flying if flying <= position])

    def decline(self, positions: Iterable[int], delay: float, reason: str, now: float) -> None:
        """These events could not be handled; they are tried again after a delay."""
        for position in positions:
            entry = self._entries.get(position)
            if entry is not None and entry.flying:
                self.outcomes["declined"] += 1
                self.fail(entry, delay, reason, now)

    def extend(self, positions: Iterable[int] | None, seconds: float | None, now: float) -> None:
        """Give events in flight more time; all of them for None."""
        chosen = list(self._flying) if positions is None else positions
        flying = [entry for position in chosen if (entry := self._flying.get(position)) is not None]
        deadline = now + (self.ack_seconds if seconds is None else seconds)
        for entry in flying:
            entry.deadline = deadline
        self._watch(deadline, flying)

    def expired(self, now: float) -> list[Entry]:
        """Events in flight that were not acknowledged in time, to be given to `fail`, the first of each lane first."""
        if now < self._expiry_at:
            return []
        found = [entry for entry in self._flying.values() if entry.deadline <= now]
        later = [entry.deadline for entry in self._flying.values() if entry.deadline > now]
        self._expiry_at = max(min(later), now + _EXPIRY_SECONDS) if later else math.inf
        found.sort(key=_position)
        return found

    def longest_in_flight(self) -> Entry | None:
        """The event that was delivered before all others: what a connection that broke most likely broke at."""
        return next(iter(self._flying.values()), None)

    def fail(self, entry: Entry, delay: float, reason: str, now: float) -> None:
        """A try of an event ended badly: deliver it again after a delay, or park it when it was the last try.

        Whatever of its lane is in flight behind it follows it again; that is no try of theirs. An event that is no
        longer in flight is left alone.
        """
        if not entry.flying:
            return
        entry.tries += 1
        entry.shard.changed = True
        if entry.tries >= self.tries_max:
            if not self.parking_full:
                self.outcomes["parked"] += 1
                entry.shard.parked.append(
                    Parked(
                        position=entry.position,
                        shard=entry.shard.number,
                        tries=entry.tries,
                        reason=reason[:REASON_CHARACTERS_MAX],
                    )
                )
                self._settle(entry)
                return
            delay = max(delay, PARKING_FULL_SECONDS)
        entry.due = now + delay
        lane = self._lanes[entry.lane]
        back = [behind for position, behind in lane.in_flight.items() if position >= entry.position]
        for behind in reversed(back):
            del lane.in_flight[behind.position]
            self._land(behind)
            lane.held.appendleft(behind)
        self._schedule(entry.lane, lane)

    def _land(self, entry: Entry) -> None:
        entry.flying = False
        del self._flying[entry.position]
        entry.shard.in_flight -= 1

    def _settle(self, entry: Entry) -> None:
        """Nothing more is to be done for an event."""
        shard, lane = entry.shard, self._lanes[entry.lane]
        del self._entries[entry.position], shard.entries[entry.position]
        shard.changed = True
        if entry.flying:
            del lane.in_flight[entry.position]
            self._land(entry)
        else:
            lane.held.remove(entry)
            self._schedule(entry.lane, lane)
        if not lane.in_flight and not lane.held:
            del self._lanes[entry.lane]

    # --- time

    def next_moment(self, *, may_deliver: bool) -> float:
        """When something will be to do without anybody asking for it; infinite for never.

        Held events count only for who may deliver them.
        """
        return min(self._expiry_at, self._ready[0][0]) if may_deliver and self._ready else self._expiry_at

    def _schedule(self, key: str, lane: _Lane) -> None:
        if lane.held and lane.scheduled != lane.held[0].due:
            lane.scheduled = lane.held[0].due
            heapq.heappush(self._ready, (lane.scheduled, next(self._serial), key))

    def _watch(self, deadline: float, entries: Sequence[Entry]) -> None:
        if entries:
            self._expiry_at = min(self._expiry_at, deadline)

    # --- what is stored

    def to_store(self, shard: Shard, *, now: float, real_now: int) -> ShardState:
        """The shard as it is to be stored; its counters start anew."""
        state = ShardState(
            shard=shard.number,
            position=shard.position,
            floor=shard.floor,
            pending=tuple(
                Pending(entry.position, entry.tries, _real(entry.due, now, real_now))
                for entry in sorted(shard.entries.values(), key=_position)
            ),
            delivered=shard.delivered,
            redelivered=shard.redelivered,
            acknowledged=shard.acknowledged,
        )
        shard.delivered = shard.redelivered = shard.acknowledged = 0
        shard.changed = False
        shard.stored = shard.position
        return state


def _position(entry: Entry) -> int:
    return entry.position


def _place(pending: Pending) -> int:
    return pending.position


def _busy(shard: Shard) -> tuple[bool, int, int]:
    """In which order shards are given away; those that are leaving already come first."""
    return not shard.leaving, shard.in_flight, shard.number


def _real(due: float, now: float, real_now: int) -> int | None:
    """A moment in real time, rounded up; None when it has come."""
    return None if due <= now else real_now + int(due - now) + 1
