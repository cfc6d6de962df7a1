"""The timekeeper: APScheduler as the ticker that brings what is due to the door.

It holds no truth. What is due stands in the books; a tick only looks for it, on any number of processes. Kill
it at any instant and nothing is lost. A tick that fails is loud: it is logged, counted, and turns health red.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.engine.batches import side_by_side
from billing_server.engine.cashier import CONCURRENT_MAX, GATEWAY_SECONDS_MAX, Cashier
from billing_server.engine.door import Door
from billing_server.engine.errands import Errands
from billing_server.engine.test_clocks import TestClocks
from billing_server.engine.work import OnClaimed, Woken
from billing_server.store.store import Store

LOGGER = logging.getLogger(__name__)

SWEEP_SECONDS = 1
SWEEP_SECONDS_MAX = 30.0
"""How long a look for what is due may take."""

STALE_SECONDS = 15.0
"""Without a sweep for so long, the timekeeper counts as failing."""

HOUSEKEEPING_MINUTES = 10
BOOKS_MAX = 300
BATCHES_AT_ONCE = 2
"""Batches of one account: one is decided while the database works on the other."""

ALL_BATCHES_AT_ONCE = 4
"""Of all accounts together; the other connections are for callers and for settling."""

IDEMPOTENCY_KEPT_SECONDS = 48 * 3600
EVENTS_KEPT_SECONDS: int | None = None
METER_EVENTS_KEPT_SECONDS = 40 * 86_400
"""Longer than events may be late, so that the tally of any minute that may still grow is whole."""

_CHECK_LEASE_SECONDS = int(GATEWAY_SECONDS_MAX) + 30
_CHECKS_MAX = CONCURRENT_MAX // 2
_UNDER_WAY_MAX = 2 * CONCURRENT_MAX
_PLANNED_SECONDS = 60.0
_WATCH_SECONDS: Final = 2.0
_LAST_TICK_SECONDS: Final = 2.0
_SWEEP: Final = "sweep"
_HOUSEKEEPING: Final = "housekeeping"


class Timekeeper:
    """Runs the sweeps of one process."""

    def __init__(
        self,
        store: Store,
        door: Door,
        cashier: Cashier,
        clocks: TestClocks,
        *,
        events_kept_seconds: int | None = EVENTS_KEPT_SECONDS,
    ) -> None:
        self._store = store
        self._door = door
        self._cashier = cashier
        self._clocks = clocks
        self._events_kept_seconds = events_kept_seconds
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._errands = Errands(self._ended)
        self._free = asyncio.Semaphore(ALL_BATCHES_AT_ONCE)
        self._numbers = itertools.count(1)
        self._under_way = 0
        self._fewer = asyncio.Event()
        self._failing: set[str] = set()
        self._ticks: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False
        self._began_at: float | None = None
        self.failures = 0
        self.last_sweep_at = 0.0

    @property
    def failing(self) -> bool:
        """Whether something that time asks for does not get done: a duty failed, or nobody looks any more."""
        if self._failing:
            return True
        return self._began_at is not None and time.monotonic() - self._last_sign() > STALE_SECONDS

    def _last_sign(self) -> float:
        return max(self.last_sweep_at, self._began_at or 0.0)

    # --- ticking

    def start(self) -> None:
        """Begin to tick: at once, then every second; housekeeping now and then."""
        # Late ticks are made up for once, and never run beside themselves (traps 18 and 20).
        options = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler.add_job(
            self._tick,
            "interval",
            seconds=SWEEP_SECONDS,
            args=[_SWEEP, self.sweep],
            next_run_time=datetime.now(UTC),
            id=_SWEEP,
            **options,
        )
        self._scheduler.add_job(
            self._tick,
            "interval",
            minutes=HOUSEKEEPING_MINUTES,
            args=[_HOUSEKEEPING, self.keep_house],
            id=_HOUSEKEEPING,
            **options,
        )
        self._began_at = time.monotonic()
        self._scheduler.start()
        self._watcher = asyncio.create_task(self._watch(), name="watch the ticker")

    async def close(self, drain_seconds: float = 20.0) -> None:
        """Stop ticking; what is under way ends first, or is left to another process and the next start."""
        self._closing = True
        self._began_at = None
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._scheduler.running:
            # The scheduler would cancel the tick that runs, tell that as an error, and not wait for its end.
            self._scheduler.pause()
            if self._ticks:
                await asyncio.wait(self._ticks, timeout=_LAST_TICK_SECONDS)
            self._scheduler.shutdown(wait=False)
        await asyncio.gather(*self._ticks, return_exceptions=True)
        await self._errands.close(drain_seconds)

    async def idle(self) -> None:
        """Wait until all that earlier sweeps have begun is done."""
        await self._errands.idle()

    async def _tick(self, name: str, duty: Callable[[], Awaitable[None]]) -> None:
        """Run a duty; the scheduler would swallow its failure, so it is told here (trap 20)."""
        tick = asyncio.current_task()
        assert tick is not None
        self._ticks.add(tick)
        try:
            await duty()
        except Exception as error:  # noqa: BLE001  # whatever broke must be loud
            self._ended(name, error)
        else:
            self._ended(name, None)
        finally:
            self._ticks.discard(tick)

    def _ended(self, name: str, error: Exception | None) -> None:
        """A duty ended, well or not."""
        if error is None:
            self._failing.discard(name)
            return
        self._failing.add(name)
        self.failures += 1
        LOGGER.error("the timekeeper failed: %s", name, exc_info=error)

    async def _watch(self) -> None:
        """Bring the sweep back when it stays away.

        The scheduler goes by the machine's clock: set back by an hour, it would not tick for an hour (promise 15).
        """
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if time.monotonic() - self._last_sign() > SWEEP_SECONDS + _WATCH_SECONDS:
                self._scheduler.modify_job(_SWEEP, next_run_time=datetime.now(UTC))

    # --- duties

    async def sweep(self) -> None:
        """Find accounts with due books and test clocks on their way, and set this process to work on them."""
        async with asyncio.timeout(SWEEP_SECONDS_MAX):
            accounts = await self._store.due_accounts()
            clocks = await self._store.advancing_clocks()
        for account_id in accounts:
            self._errands.run(_billing(account_id), partial(self._bill, account_id))
            self._errands.run(_checking(account_id), partial(self._check, account_id))
        for account_id, clock_id in clocks:
            self._clocks.carry_on(account_id, clock_id)
        # What failed and is not due any more was done by another process.
        due = {name for account_id in accounts for name in (_billing(account_id), _checking(account_id))}
        self._failing &= due | {_SWEEP, _HOUSEKEEPING}
        self.last_sweep_at = time.monotonic()

    async def _bill(self, account_id: str) -> None:
        """Work off what is due in one account, then plan the next tick.

        Charges are made beside it, so that a gateway that takes its time delays nobody's renewal. Books whose
        charges are settled may be due again, after an outage; so they are looked for once more.
        """
        work_off = partial(self._wake, account_id)
        async with aclosing(side_by_side(work_off, books_max=BOOKS_MAX, at_once=BATCHES_AT_ONCE)) as batches:
            async for woken, last in batches:
                if self._closing or (last and woken.books < BOOKS_MAX):
                    break
        await self._plan(account_id)

    async def _wake(self, account_id: str, on_claimed: OnClaimed) -> Woken:
        """Advance one batch of due books, and set out with its charges."""
        await self._room()
        async with self._free:
            woken = await self._door.wake(account_id, limit=BOOKS_MAX, on_claimed=on_claimed)
        if woken.charges or woken.refunds:
            charging = partial(self._cashier.carry_out, account_id, woken.charges, woken.refunds)
            self._set_out(f"charge {next(self._numbers)}", account_id, woken, charging)
        return woken

    async def _check(self, account_id: str) -> None:
        """Ask the gateway about charges and refunds of which it is not known what became of them (promise 3)."""
        while not self._closing:
            await self._room()
            async with self._free:
                claimed = await self._door.claim_checks(
                    account_id, limit=_CHECKS_MAX, lease_seconds=_CHECK_LEASE_SECONDS
                )
            if claimed.charges or claimed.refunds:
                asking = partial(self._cashier.look_up_all, account_id, claimed.charges, claimed.refunds)
                self._set_out(f"check {next(self._numbers)}", account_id, claimed, asking)
            if claimed.books < _CHECKS_MAX:
                break

    def carry_out(self, account_id: str, charges: Sequence[PaymentAttempt], refunds: Sequence[Refund]) -> None:
        """Make charges and refunds that began when a command found its book overdue, and do not wait for them."""
        woken = Woken(charges=tuple(charges), refunds=tuple(refunds))
        charging = partial(self._cashier.carry_out, account_id, woken.charges, woken.refunds)
        self._set_out(f"charge {next(self._numbers)}", account_id, woken, charging)

    def _set_out(self, name: str, account_id: str, woken: Woken, errand: Callable[[], Awaitable[None]]) -> None:
        """Send somebody to the gateway, and do not wait."""
        number = len(woken.charges) + len(woken.refunds)
        self._under_way += number

        async def there_and_back() -> None:
            try:
                await errand()
            finally:
                self._under_way -= number
                self._fewer.set()
            if not self._closing:
                self._errands.run(_billing(account_id), partial(self._bill, account_id))

        self._errands.run(name, there_and_back)

    async def _room(self) -> None:
        """Begin no more charges while very many are under way: their leases would end before they are made."""
        while self._under_way >= _UNDER_WAY_MAX:
            self._fewer.clear()
            await self._fewer.wait()

    async def _plan(self, account_id: str) -> None:
        """Tick exactly when the account's next book is due, if that is before the next sweep would find it.

        What is due already and was not done is in the hands of another process, or waits for the next sweep.
        """
        if not self._scheduler.running:
            return
        seconds = await self._store.seconds_to_next_wake(account_id)
        if seconds is not None and 0 < seconds < _PLANNED_SECONDS:
            self._scheduler.add_job(
                self._tick,
                "date",
                run_date=datetime.now(UTC) + timedelta(seconds=seconds),
                args=[_SWEEP, self.sweep],
                id=f"due {account_id}",
                replace_existing=True,
                misfire_grace_time=None,
            )

    async def keep_house(self) -> None:
        """Forget what is older than promised: idempotency keys, test clocks, and events where a retention is set."""
        now = int(time.time())
        for account_id in await self._store.account_ids():
            await self._store.purge_idempotency(account_id, now - IDEMPOTENCY_KEPT_SECONDS)
            await self._forget(partial(self._store.purge_meter_events, account_id, now - METER_EVENTS_KEPT_SECONDS))
            await self._forget(partial(self._store.purge_minutes, account_id, now - METER_EVENTS_KEPT_SECONDS))
            await self._clocks.delete_old(account_id, now)
            if self._events_kept_seconds is not None:
                await self._forget(partial(self._store.purge_events, account_id, now - self._events_kept_seconds))

    async def _forget(self, drop_slice: Callable[[], Awaitable[int]]) -> None:
        """Drop slice after slice until nothing is left that is old."""
        while await drop_slice() and not self._closing:
            continue


def _billing(account_id: str) -> str:
    return f"bill {account_id}"


def _checking(account_id: str) -> str:
    return f"check {account_id}"
