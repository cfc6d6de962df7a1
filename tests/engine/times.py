"""Time by hand, and processes that stop where a test wants: a store that tells each step it takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec

from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit

START: Final = 1_767_225_600
"""2026-01-01T00:00:00Z, where the hand-driven time begins."""

HOUR: Final = 3_600
DAY: Final = 86_400


class ManualTime:
    """What the database's clock shows to all engines of a test."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def pass_(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds


class Stops:
    """Counts the steps of one process, and freezes it for ever at the wanted one, as a kill would."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.passed: list[str] = []
        self.reached = asyncio.Event()
        self._stop_at = stop_at

    async def at(self, step: str) -> None:
        """Pass a step, or stay there."""
        if not self.reached.is_set():
            self.passed.append(step)
            if len(self.passed) == self._stop_at:
                self.reached.set()
        if self.reached.is_set():
            await asyncio.get_running_loop().create_future()


class TimedStore(Store):
    """A store under a `ManualTime`; its transactions tell their steps, and count."""

    time: ManualTime
    stops: Stops
    transactions: int

    @classmethod
    async def under(
        cls, dsn: str, manual: ManualTime, *, stops: Stops | None = None, connections: int = 6
    ) -> TimedStore:
        """Connect; without `stops` nothing stops."""
        opened = await cls.open(dsn, min_connections=1, max_connections=connections)
        assert isinstance(opened, TimedStore)
        opened.time = manual
        opened.stops = stops or Stops()
        opened.transactions = 0
        return opened

    @contextlib.asynccontextmanager
    async def transaction(self, account_id: str, *, timeout_seconds: float | None = None) -> AsyncIterator[Unit]:
        await self.stops.at("a transaction begins")
        self.transactions += 1
        async with super().transaction(account_id, timeout_seconds=timeout_seconds) as unit:
            self._slow_down_time(unit)
            yield unit
            await self.stops.at("a transaction is about to commit")
        await self.stops.at("a transaction has committed")

    def _slow_down_time(self, unit: Unit) -> None:
        by_the_database = unit.open

        async def by_hand(customers: Iterable[str] = (), idempotency_keys: Iterable[str] = ()) -> Opening:
            opening = await by_the_database(customers, idempotency_keys)
            opening = msgspec.structs.replace(opening, now=self.time.now)
            unit._opening = opening
            return opening

        setattr(unit, "open", by_hand)  # noqa: B010  # a method of one object

    async def due_accounts(self, now: int | None = None) -> list[str]:
        return await super().due_accounts(self.time.now if now is None else now)

    async def seconds_to_next_wake(self, account_id: str) -> float | None:
        seconds = await super().seconds_to_next_wake(account_id)
        return None if seconds is None else seconds + time.time() - self.time.now

    def break_off(self) -> None:
        """Lose all connections at once, as a killed process does."""
        self._database._pool.terminate()
