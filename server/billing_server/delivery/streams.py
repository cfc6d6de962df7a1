"""Event streams: replay from any position, then live, without a gap or a repeat between the two.

There is no switch between the two: a stream only ever takes what comes after the position that it has reached,
from the tail that it shares with the account's other streams or from the log, and waits when there is nothing.
The bell wakes it; a look now and then finds what a lost ring would hide. No connection is held while a batch is
being sent, so a slow reader costs the memory of two readings, a megabyte or two, and nothing else: one that is being
sent, and the next, which is begun meanwhile so that the database and the network work at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from billing_server.delivery.passages import FIRST_READ, Passage, fitting, refuse_gap
from billing_server.delivery.tail import Tail, Tails
from billing_server.domain.errors import InvalidArgument, OutOfRange, Violation, ahead_of_log
from billing_server.domain.validation.webhook import event_type_violations
from billing_server.engine.bell import Bell
from billing_server.store.event import EVERYTHING, EventFilter, StoredEvent
from billing_server.store.store import Store
from billing_server.wire.codec import batch_bytes, framed_one

BATCH_DEFAULT: Final = 100
BATCH_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 1_000_000
"""A batch that grows beyond is sent in parts: clients accept 4 MiB unless they are told otherwise."""

HEARTBEAT_DEFAULT: Final = 15
HEARTBEAT_MAX: Final = 300
FILTERS_MAX: Final = 100
POLL_SECONDS: Final = 5.0
"""How long a stream trusts the bell before it looks for itself."""


class _Wanted(msgspec.Struct, frozen=True):
    """A request, checked."""

    after: int
    batch_max: int
    heartbeat_seconds: int
    events: EventFilter


class _Progress:
    """How far one stream has come, for the metrics."""

    __slots__ = ("head", "reached")

    def __init__(self) -> None:
        self.head = 0
        self.reached = 0


class EventStreams:
    """The streams of one process."""

    def __init__(self, store: Store, bell: Bell, tails: Tails, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._bell = bell
        self._tails = tails
        self.poll_seconds = poll_seconds
        self._open: set[_Progress] = set()

    @property
    def lag(self) -> int:
        """How many positions the slowest stream is behind its account's head."""
        return max((progress.head - progress.reached for progress in self._open), default=0)

    async def follow(self, account_id: str, request: Any) -> AsyncIterator[bytes]:
        """Serialized batches of a StreamEventsRequest, for as long as they are asked for.

        Raises InvalidArgument, and OutOfRange when events after the position are gone or it is ahead of the log.
        """
        wanted = _read(request)
        with (
            self._bell.listening(account_id) as rung,
            self._tails.of(account_id) as tail,
            self._progress() as progress,
            contextlib.closing(_Ahead()) as ahead,
        ):
            progress.reached, progress.head = await self._start(account_id, wanted.after)
            log = _log(self._store, tail, account_id, wanted.events)
            told_at, caught_up = time.monotonic(), False
            while True:
                rung.clear()
                passage, in_log = await ahead.taken(), True
                if passage is None:
                    tail.expect(progress.head)
                    await tail.catch_up(self.poll_seconds)
                    passage = tail.passage(progress.reached, wanted.events)
                    in_log = passage is None
                if passage is None:
                    passage = await log(progress.reached)
                progress.reached = passage.scanned_to
                progress.head = max(progress.head, passage.head, tail.high or 0)
                at_head = progress.reached >= progress.head
                if in_log and not at_head and not tail.reaches(progress.reached):
                    ahead.begin(log(progress.reached))
                silent_for = time.monotonic() - told_at
                if passage.events or (at_head and not caught_up) or silent_for >= wanted.heartbeat_seconds:
                    for batch in batches(passage.events, progress.head, wanted.batch_max, caught_up=at_head):
                        yield batch
                    told_at = time.monotonic()
                caught_up = caught_up or at_head
                if at_head or not in_log:
                    silence_left = told_at + wanted.heartbeat_seconds - time.monotonic()
                    await _wait(rung, min(self.poll_seconds, silence_left))

    @contextlib.contextmanager
    def _progress(self) -> Iterator[_Progress]:
        progress = _Progress()
        self._open.add(progress)
        try:
            yield progress
        finally:
            self._open.discard(progress)

    async def _start(self, account_id: str, after: int) -> tuple[int, int]:
        """The position from which to read (0 starts with the oldest event), and the head. Raises OutOfRange."""
        async with self._store.view(account_id) as view:
            oldest, head = await view.kept_events()
        if after == 0:
            return oldest - 1, head
        if after > head:
            raise OutOfRange(f"after_position: {ahead_of_log(after, head)}", oldest=oldest, newest=head)
        refuse_gap(after, oldest, head)
        return after, head


def _log(
    store: Store, tail: Tail, account_id: str, wanted: EventFilter
) -> Callable[[int], Coroutine[Any, Any, Passage]]:
    """What reads the log after a position: once for all who want everything, each for itself past a filter."""
    return tail.passages.after if wanted == EVERYTHING else _Filtered(store, account_id, wanted).after


class _Filtered:
    """Reads the log for one stream past its filter, as many events at once as fit."""

    def __init__(self, store: Store, account_id: str, wanted: EventFilter) -> None:
        self._store = store
        self._account_id = account_id
        self._wanted = wanted
        self._limit = FIRST_READ

    async def after(self, position: int) -> Passage:
        """What comes after a position. Raises OutOfRange when events of it are no longer kept."""
        async with self._store.view(self._account_id) as view:
            page = await view.read_events(after=position, limit=self._limit, wanted=self._wanted)
            # What is missing was filtered out, or has been purged since the position was reached.
            if len(page.events) != page.scanned_to - position:
                oldest = await view.oldest()
                refuse_gap(position, page.head + 1 if oldest is None else oldest, page.head)
        self._limit = fitting([event.payload for event in page.events])
        return Passage(frames(self._account_id, page.events), page.scanned_to, page.head)


class _Ahead:
    """The next reading of the log, if it has been begun."""

    def __init__(self) -> None:
        self._reading: asyncio.Task[Passage] | None = None

    def begin(self, reading: Coroutine[Any, Any, Passage]) -> None:
        """Read while something else is done. What goes wrong is told when it is taken."""
        self._reading = asyncio.create_task(reading)
        self._reading.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    async def taken(self) -> Passage | None:
        """What was read; None when nothing was begun. Raises what the reading raised."""
        reading, self._reading = self._reading, None
        return None if reading is None else await reading

    def close(self) -> None:
        """Nobody wants it any more."""
        if self._reading is not None:
            self._reading.cancel()


def frames(account_id: str, events: Iterable[StoredEvent]) -> list[bytes]:
    """Stored events as they stand in a batch."""
    return [framed_one(account_id, event.position, event.payload) for event in events]


def batches(events: Sequence[bytes], head: int, batch_max: int, *, caught_up: bool) -> Iterator[bytes]:
    """Framed events as batches of bounded size, at least one; only the last may tell that it reaches the head."""
    begin = 0
    while (end := _end_of_batch(events, begin, batch_max)) < len(events):
        yield batch_bytes(events[begin:end], head, caught_up=False)
        begin = end
    yield batch_bytes(events[begin:], head, caught_up=caught_up)


def _end_of_batch(events: Sequence[bytes], begin: int, batch_max: int) -> int:
    """Where a batch ends that begins at this place."""
    part = events[begin : begin + batch_max]
    size = sum(map(len, part))
    while size > BATCH_BYTES_MAX and len(part) > 1:
        size -= len(part[-1])
        part = part[:-1]
    return begin + len(part)


async def _wait(rung: asyncio.Event, seconds: float) -> None:
    """Wait for the bell, but not longer than this."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await rung.wait()


def _read(request: Any) -> _Wanted:
    """The request, checked. Raises InvalidArgument with all violations."""
    violations = [
        Violation(field, "parameter_invalid_integer", f"must be {lowest} to {highest}, or 0 for the default")
        for field, lowest, highest in (
            ("batch_max", 1, BATCH_MAX),
            ("heartbeat_seconds", 1, HEARTBEAT_MAX),
        )
        if not 0 <= getattr(request, field) <= highest
    ]
    if request.after_position < 0:
        violations.append(Violation("after_position", "parameter_invalid_integer", "must be 0 or more"))
    violations += event_type_violations(request.types, "types")
    if len(request.object_ids) > FILTERS_MAX:
        violations.append(Violation("object_ids", "parameter_invalid", f"has at most {FILTERS_MAX} entries"))
    if violations:
        raise InvalidArgument(*violations)
    return _Wanted(
        after=request.after_position,
        batch_max=request.batch_max or BATCH_DEFAULT,
        heartbeat_seconds=request.heartbeat_seconds or HEARTBEAT_DEFAULT,
        events=EventFilter(
            types=tuple(request.types),
            customer=request.customer or None,
            object_ids=tuple(request.object_ids),
        ),
    )
