"""The timekeeper: APScheduler as the ticker that brings what is due to the door.

It holds no truth. What is due stands in the books; a tick only looks for it, on any number of processes. Kill
it at any instant and nothing is lost. A tick that fails is loud: it is logged, counted, and turns health red.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from billing_server.engine.cashier import CONCURRENT_MAX, GATEWAY_SECONDS_MAX, Cashier
from billing_server.engine.door import Door
from billing_server.engine.test_clocks import TestClocks
from billing_server.store.store import Store

LOGGER = logging.getLogger(__name__)

SWEEP_SECONDS = 1
HOUSEKEEPING_MINUTES = 10
BOOKS_MAX = 300
IDEMPOTENCY_KEPT_SECONDS = 48 * 3600
EVENTS_KEPT_SECONDS: int | None = None

_CHECK_LEASE_SECONDS = int(GATEWAY_SECONDS_MAX) + 30
_CHECKS_MAX = CONCURRENT_MAX // 2
_PLANNED_SECONDS = 60.0


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
        self._billing: dict[str, asyncio.Task[None]] = {}
        self.failing = False
        self.failures = 0
        self.last_sweep_at = 0.0

    def start(self) -> None:
        """Begin to tick: at once, then every second; housekeeping now and then."""
        # Late ticks are made up for once, and never run beside themselves (traps 18 and 20).
        options = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler.add_job(
            self._tick,
            "interval",
            seconds=SWEEP_SECONDS,
            args=[self.sweep],
            next_run_time=datetime.now(UTC),
            id="sweep",
            **options,
        )
        self._scheduler.add_job(
            self._tick, "interval", minutes=HOUSEKEEPING_MINUTES, args=[self.keep_house], id="housekeeping", **options
        )
        self._scheduler.start()

    async def close(self) -> None:
        """Stop ticking; what is under way ends first."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        await asyncio.gather(*self._billing.values(), return_exceptions=True)

    async def _tick(self, duty: Callable[[], Awaitable[None]]) -> None:
        """Run a duty; the scheduler would swallow its failure, so it is told here (trap 20)."""
        try:
            await duty()
        except Exception:
            self.failing = True
            self.failures += 1
            LOGGER.exception("a tick of the timekeeper failed")
        else:
            self.failing = False

    async def sweep(self) -> None:
        """Find accounts with due books and test clocks on their way, and set this process to work on them."""
        for account_id in await self._store.due_accounts():
            task = self._billing.get(account_id)
            if task is None or task.done():
                self._billing[account_id] = asyncio.create_task(
                    self._tick(lambda account_id=account_id: self._bill(account_id)),  # type: ignore[misc]  # bound now
                    name=f"bill {account_id}",
                )
        for account_id, clock_id in await self._store.advancing_clocks():
            self._clocks.carry_on(account_id, clock_id)
        self.last_sweep_at = time.monotonic()

    async def _bill(self, account_id: str) -> None:
        """Work off what is due in one account, then look at charges without an outcome, then plan the next tick."""
        settling: asyncio.Task[None] | None = None
        while True:
            woken = await self._door.wake(account_id, limit=BOOKS_MAX)
            if settling is not None:
                await settling
            settling = asyncio.create_task(self._cashier.carry_out(account_id, woken.charges, woken.refunds))
            if woken.books < BOOKS_MAX and not woken.charges:
                break
        await settling
        await self._check(account_id)
        await self._plan(account_id)

    async def _check(self, account_id: str) -> None:
        """Ask the gateway about charges and refunds of which it is not known what became of them (promise 3)."""
        while True:
            claimed = await self._door.claim_checks(account_id, limit=_CHECKS_MAX, lease_seconds=_CHECK_LEASE_SECONDS)
            async with asyncio.TaskGroup() as tasks:
                for attempt in claimed.charges:
                    tasks.create_task(self._cashier.look_up(account_id, attempt))
                for refund in claimed.refunds:
                    tasks.create_task(self._cashier.refund(account_id, refund, ask_only=True))
            if claimed.books < _CHECKS_MAX:
                return

    async def _plan(self, account_id: str) -> None:
        """Tick exactly when the account's next book is due, if that is before the next sweep would find it."""
        seconds = await self._store.seconds_to_next_wake(account_id)
        if seconds is not None and self._scheduler.running and seconds < _PLANNED_SECONDS:
            self._scheduler.add_job(
                self._tick,
                "date",
                run_date=datetime.now(UTC) + timedelta(seconds=max(seconds, 0.0)),
                args=[self.sweep],
                id=f"due {account_id}",
                replace_existing=True,
                misfire_grace_time=None,
            )

    async def keep_house(self) -> None:
        """Forget idempotency keys, and events where a retention is set, that are older than promised."""
        now = int(time.time())
        for account_id in await self._store.account_ids():
            await self._store.purge_idempotency(account_id, now - IDEMPOTENCY_KEPT_SECONDS)
            if self._events_kept_seconds is not None:
                await self._forget_events(account_id, now - self._events_kept_seconds)

    async def _forget_events(self, account_id: str, before: int) -> None:
        dropped = 1
        while dropped:
            dropped = await self._store.purge_events(account_id, before)
