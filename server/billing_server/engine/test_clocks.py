"""Test clocks: moving the time of a group of customers, in due-time order, payments included, without a cap.

The move belongs to the database: whoever finds a clock on its way may carry it on, also after a crash. Several
processes may do so at once, because every book is claimed before it moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

import msgspec

from billing_server.domain import calendar
from billing_server.domain.errors import LimitReached, ResourceMissing, invalid
from billing_server.domain.event import Cause, Event, previous_attributes
from billing_server.domain.test_clock import LIFETIME_SECONDS, TestClock
from billing_server.engine.batches import side_by_side
from billing_server.engine.cashier import Cashier
from billing_server.engine.door import Door
from billing_server.engine.events import event_rows
from billing_server.engine.ids import IdSource
from billing_server.engine.once import once
from billing_server.engine.work import Answer, Caller, OnClaimed, Woken
from billing_server.store.errors import StoreUnavailable
from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit

LOGGER = logging.getLogger(__name__)

BOOKS_MAX = 400
"""Books advanced in one transaction: few enough that interactive callers behind it do not notice."""

BATCHES_AT_ONCE = 3
"""So that one batch is decided while the database works on another and the charges of a third are settled."""

ALL_BATCHES_AT_ONCE = 4
"""Of all clocks together; the other connections are for callers and for settling."""

_LATEST = 253_402_300_799 - 4 * 366 * 86_400
_WAIT_SECONDS = 0.05
_TIMER = Cause(kind="timer")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a clock has come. `done` tells that it is ready again."""

    clock: TestClock
    books: int = 0
    events: int = 0
    done: bool = False


class TestClocks:
    """Creates, moves and deletes test clocks."""

    __test__ = False

    def __init__(self, store: Store, door: Door, cashier: Cashier, new_id: IdSource) -> None:
        self._store = store
        self._door = door
        self._cashier = cashier
        self._new_id = new_id
        self._moves: dict[tuple[str, str], _Move] = {}
        self._closed = False
        self._free = asyncio.Semaphore(ALL_BATCHES_AT_ONCE)

    async def create(self, account_id: str, name: str | None, frozen_time: int, caller: Caller) -> Answer:
        """A new clock that stands at `frozen_time`."""
        if not 0 <= frozen_time <= _LATEST:
            raise invalid("frozen_time", "time_out_of_range", "a test clock shows a time between 1970 and 9995")

        async def change(unit: Unit, opening: Opening) -> tuple[TestClock, list[Event]]:
            clock = TestClock(
                id=self._new_id("clock"),
                created=opening.now,
                name=name,
                frozen_time=frozen_time,
                deletes_after=opening.now + LIFETIME_SECONDS,
            )
            await unit.insert_test_clock(clock)
            return clock, [_event("test_helpers.test_clock.created", clock, None, caller.cause)]

        return await once(self._door, account_id, caller, change)

    async def delete(self, account_id: str, clock_id: str, caller: Caller) -> Answer:
        """Delete a clock with its customers and all that is theirs; the events stay."""

        async def change(unit: Unit, _opening: Opening) -> tuple[TestClock, list[Event]]:
            clock = await unit.lock_test_clock(clock_id)
            await unit.delete_test_clock(clock_id)
            return clock, [_event("test_helpers.test_clock.deleted", clock, None, caller.cause)]

        return await once(self._door, account_id, caller, change)

    async def delete_old(self, account_id: str, now: int) -> None:
        """Delete the clocks whose lifetime is over, as a caller would; one that is on its way arrives first."""
        for clock_id in await self._store.test_clocks_over(account_id, now):
            if await self._door.committed(account_id, partial(self._delete_old, account_id, clock_id)):
                LOGGER.info("the test clock %s was deleted: its lifetime is over", clock_id)

    async def _delete_old(self, account_id: str, clock_id: str, unit: Unit) -> bool:
        """Whether the clock was deleted; another process may have come first, or somebody moves it."""
        await unit.open()
        try:
            clock = await unit.lock_test_clock(clock_id)
        except ResourceMissing:
            return False
        if clock.status == "advancing":
            return False
        await unit.delete_test_clock(clock_id)
        told = [_event("test_helpers.test_clock.deleted", clock, None, _TIMER)]
        await unit.save((), event_rows(account_id, told))
        return True

    # --- moving

    async def advance(self, account_id: str, clock_id: str, target: int, caller: Caller) -> AsyncIterator[Progress]:
        """Move a clock to `target` and tell how far it has come until it is ready.

        The move goes on when the caller goes away; a caller that asks again for the same target joins it.
        """
        await self._begin(account_id, clock_id, target, caller)
        arrived = False
        while not arrived:
            move = self.carry_on(account_id, clock_id)
            async for progress in move.watch():
                # A move that was just ending when this one began has another target.
                arrived = progress.done and progress.clock.frozen_time >= target
                if arrived or not progress.done:
                    yield progress

    async def _begin(self, account_id: str, clock_id: str, target: int, caller: Caller) -> None:
        async def change(unit: Unit, _opening: Opening) -> tuple[TestClock, list[Event]]:
            clock = await unit.lock_test_clock(clock_id)
            if clock.status == "advancing" and clock.target_frozen_time == target:
                return clock, []
            _refuse_move(clock, target)
            moving = clock.sent_to(target)
            await unit.update_test_clock(moving)
            return moving, [_event("test_helpers.test_clock.advancing", moving, clock, caller.cause)]

        await once(self._door, account_id, caller, change)

    def carry_on(self, account_id: str, clock_id: str) -> _Move:
        """Move a clock that is on its way; joins the move when this process is at it already."""
        if self._closed:
            raise StoreUnavailable("the server is stopping")
        key = (account_id, clock_id)
        move = self._moves.get(key)
        if move is None:
            move = _Move()
            self._moves[key] = move
            move.task = asyncio.create_task(self._move(account_id, clock_id, move), name=f"advance {clock_id}")
        return move

    async def close(self) -> None:
        """Leave all moves where they are; another process, or the next start, carries them on."""
        self._closed = True
        tasks = [move.task for move in self._moves.values() if move.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _move(self, account_id: str, clock_id: str, move: _Move) -> None:
        try:
            clock = await self._clock(account_id, clock_id)
            while clock.status == "advancing":
                clock = await self._work_off(account_id, clock, move)
            move.tell(Progress(clock=clock, books=move.books, events=move.events, done=True))
        except asyncio.CancelledError:
            move.fail(StoreUnavailable("the server is stopping; the clock is moved on by the next one"))
            raise
        except ResourceMissing as error:
            LOGGER.info("the test clock %s was deleted on its way", clock_id)
            move.fail(error)
        except StoreUnavailable as error:
            LOGGER.warning("the test clock %s is moved on when the database is back: %s", clock_id, error)
            move.fail(error)
        except Exception as error:
            LOGGER.exception("the test clock %s stopped on its way", clock_id)
            move.fail(error)
        finally:
            move.end()
            self._moves.pop((account_id, clock_id), None)

    async def _clock(self, account_id: str, clock_id: str) -> TestClock:
        async with self._store.view(account_id) as view:
            return await view.get(TestClock, clock_id, "test_clock")

    async def _work_off(self, account_id: str, clock: TestClock, move: _Move) -> TestClock:
        """Advance all books that are due, batch after batch, and settle their charges; then finish."""
        target = clock.target_frozen_time or clock.frozen_time
        work_off = partial(self._batch, account_id, clock.id, target)
        follows = False
        async with aclosing(side_by_side(work_off, books_max=BOOKS_MAX, at_once=BATCHES_AT_ONCE)) as batches:
            async for woken, last in batches:
                move.books += woken.books
                move.events += woken.events
                follows = follows or _more_follows(woken, target)
                if last and not follows:
                    break
                follows = follows and not last
                if clock.frozen_time < woken.horizon < target:
                    clock = await self._reach(account_id, clock, woken.horizon)
                move.tell(Progress(clock=clock, books=move.books, events=move.events))
        return await self._finish(account_id, clock, target)

    async def _reach(self, account_id: str, clock: TestClock, moment: int) -> TestClock:
        """Keep how far the clock has come; whoever looks at it sees it move."""

        async def body(unit: Unit) -> TestClock:
            await unit.open()
            known = await unit.lock_test_clock(clock.id)
            if known.status != "advancing" or known.frozen_time >= moment:
                return known
            moved = msgspec.structs.replace(known, frozen_time=moment)
            await unit.update_test_clock(moved)
            return moved

        return await self._door.committed(account_id, body)

    async def _batch(self, account_id: str, clock_id: str, target: int, on_claimed: OnClaimed) -> Woken:
        async with self._free:
            woken = await self._door.wake(
                account_id, limit=BOOKS_MAX, until=target, test_clock=clock_id, on_claimed=on_claimed
            )
        await self._cashier.carry_out(account_id, woken.charges, woken.refunds)
        return woken

    async def _finish(self, account_id: str, clock: TestClock, target: int) -> TestClock:
        """The clock is ready when nothing is left to do for it, neither due nor at the gateway."""

        async def body(unit: Unit) -> TestClock:
            await unit.open()
            before = await unit.lock_test_clock(clock.id)
            if before.status != "advancing" or before.target_frozen_time != target:
                return before
            work = await unit.clock_work(clock.id, target)
            if work.due or work.in_flight:
                return before
            ready = msgspec.structs.replace(
                before,
                status="ready",
                frozen_time=target,
                target_frozen_time=None,
                version=before.version + 1,
            )
            await unit.update_test_clock(ready)
            told = [_event("test_helpers.test_clock.ready", ready, before, _TIMER)]
            await unit.save((), event_rows(account_id, told))
            return ready

        after = await self._door.committed(account_id, body)
        if after.status != "ready":
            # Books that others hold, or charges of a process that is gone: their turn comes.
            await asyncio.sleep(_WAIT_SECONDS)
        return after


def _refuse_move(clock: TestClock, target: int) -> None:
    """Refuse to move a clock that is moving already, backwards, or beyond what a calendar knows."""
    if clock.status == "advancing":
        raise LimitReached(
            "test_clock_advancing",
            f"the clock is on its way to {clock.target_frozen_time}; wait until it is ready",
            retry_after_seconds=1,
        )
    if target <= clock.frozen_time:
        raise invalid(
            "frozen_time",
            "test_clock_backwards",
            f"a test clock only moves forward; it stands at {calendar.written(clock.frozen_time)}",
        )
    if target > _LATEST:
        raise invalid("frozen_time", "time_out_of_range", "a test clock shows a time between 1970 and 9995")


def _event(type_: str, clock: TestClock, before: TestClock | None, cause: Cause) -> Event:
    previous = None if before is None else previous_attributes(before, clock)
    return Event(type_, clock.frozen_time, None, clock, previous, cause)


def _more_follows(woken: Woken, target: int) -> bool:
    """Whether there may be more to do in books of a batch: time has not come to its end in all of them."""
    return woken.books > 0 and bool(woken.horizon < target or woken.charges or woken.refunds or woken.unfinished)


class _Move:
    """One clock on its way, as its watchers see it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.books = 0
        self.events = 0
        self._latest: Progress | None = None
        self._error: Exception | None = None
        self._ended = False
        self._changed = asyncio.Condition()
        self._notices: set[asyncio.Task[None]] = set()

    def tell(self, progress: Progress) -> None:
        """New progress for the watchers."""
        self._latest = progress
        self._notify()

    def fail(self, error: Exception) -> None:
        """The move stopped before its end."""
        self._error = error

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        notice = asyncio.create_task(self._wake())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def watch(self) -> AsyncIterator[Progress]:
        """The latest progress, again and again, until the end; slow watchers skip what is outdated."""
        seen: Progress | None = None
        while True:
            async with self._changed:
                while self._latest is seen and not self._ended:
                    await self._changed.wait()
            latest = self._latest
            if latest is not None and latest is not seen:
                seen = latest
                yield latest
            elif self._ended:
                if self._error is not None:
                    raise self._error
                return
