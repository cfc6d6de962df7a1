"""Time by hand, and processes that stop where a test wants: a store that tells each step it takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from billing_server.domain.message import Message
from billing_server.store.consumer import Met, Share, Stored
from billing_server.store.database import Database
from billing_server.store.message import Tried
from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit
from billing_server.store.webhook import WebhookUnit

T = TypeVar("T")

START: Final = 4_102_444_800
"""2100-01-01T00:00:00Z, where the hand-driven time begins: nothing of it is ever due in real time."""

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

    def __init__(self, stop_at: int | None = None, *, stop_at_first: str | None = None) -> None:
        self.passed: list[str] = []
        self.reached = asyncio.Event()
        self._stop_at = stop_at
        self._stop_at_first = stop_at_first

    async def at(self, step: str) -> None:
        """Pass a step, or stay there."""
        if not self.reached.is_set():
            self.passed.append(step)
            if len(self.passed) == self._stop_at or step == self._stop_at_first:
                self.reached.set()
        if self.reached.is_set():
            await asyncio.get_running_loop().create_future()

    async def writing(self) -> None:
        """A transaction has decided, and is about to write."""


class Gate(Stops):
    """Stops nowhere, but waits between a decision and its writing until the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def at(self, step: str) -> None:
        pass

    async def writing(self) -> None:
        self.reached.set()
        await self.open.wait()


class TimedStore(Store):
    """A store under a `ManualTime`, for the accounts of one test; its transactions tell their steps, and count."""

    def __init__(
        self, database: Database, manual: ManualTime, accounts: set[str], stops: Stops, *, shared: bool = False
    ) -> None:
        super().__init__(database)
        self.time = manual
        self.accounts = accounts
        self.stops = stops
        self.transactions = 0
        self._shared = shared

    async def close(self) -> None:
        if not self._shared:
            await super().close()

    @contextlib.asynccontextmanager
    async def transaction(self, account_id: str, *, timeout_seconds: float | None = None) -> AsyncIterator[Unit]:
        await self.stops.at("a transaction begins")
        self.transactions += 1
        async with super().transaction(account_id, timeout_seconds=timeout_seconds) as unit:
            self._put_under_control(unit)
            yield unit
            await self.stops.at("a transaction is about to commit")
        await self.stops.at("a transaction has committed")

    @contextlib.asynccontextmanager
    async def webhooks(self, account_id: str) -> AsyncIterator[WebhookUnit]:
        await self.stops.at("a transaction on webhooks begins")
        async with super().webhooks(account_id) as unit:
            yield unit
            await self.stops.at("a transaction on webhooks is about to commit")
        await self.stops.at("a transaction on webhooks has committed")

    async def webhook_endpoints_behind(self) -> list[tuple[str, str]]:
        behind = await super().webhook_endpoints_behind()
        return [found for found in behind if found[0] in self.accounts]

    async def webhook_endpoints_due(self, now: int | None = None) -> list[tuple[str, str, int]]:
        due = await super().webhook_endpoints_due(self.time.now if now is None else now)
        return [found for found in due if found[0] in self.accounts]

    async def accounts_with_due_messages(self) -> list[str]:
        return [account_id for account_id in await super().accounts_with_due_messages() if account_id in self.accounts]

    async def claim_messages(self, account_id: str, limit: int, lease_seconds: int) -> list[Message]:
        return await self._between(
            "claiming letters", partial(super().claim_messages, account_id, limit, lease_seconds)
        )

    async def settle_messages(self, account_id: str, tried: Sequence[Tried]) -> int:
        return await self._between("settling letters", partial(super().settle_messages, account_id, tried))

    async def meet_consumer(self, account_id: str, share: Share, lease_seconds: float) -> Met:
        return await self._between("a meeting", partial(super().meet_consumer, account_id, share, lease_seconds))

    async def store_share(self, account_id: str, share: Share) -> Stored:
        return await self._between("storing a share", partial(super().store_share, account_id, share))

    async def leave_consumer(self, account_id: str, share: Share) -> None:
        await self._between("leaving", partial(super().leave_consumer, account_id, share))

    async def _between(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """A transaction, with a step before and one after it."""
        await self.stops.at(f"before {what}")
        result = await work()
        await self.stops.at(f"after {what}")
        return result

    def _put_under_control(self, unit: Unit) -> None:
        by_the_database = unit.open

        async def by_hand(customers: Iterable[str] = (), idempotency_keys: Iterable[str] = ()) -> Opening:
            opening = await by_the_database(customers, idempotency_keys)
            opening = msgspec.structs.replace(opening, now=self.time.now)
            unit._opening = opening
            return opening

        written = unit.save

        async def with_a_step(*what: Any) -> int | None:
            await self.stops.writing()
            return await written(*what)

        setattr(unit, "open", by_hand)  # noqa: B010  # a method of one object
        setattr(unit, "save", with_a_step)  # noqa: B010  # a method of one object

    async def due_accounts(self, now: int | None = None) -> list[str]:
        due = await super().due_accounts(self.time.now if now is None else now)
        return [account_id for account_id in due if account_id in self.accounts]

    async def advancing_clocks(self) -> list[tuple[str, str]]:
        clocks = await super().advancing_clocks()
        return [(account_id, clock_id) for account_id, clock_id in clocks if account_id in self.accounts]

    async def account_ids(self) -> list[str]:
        return sorted(self.accounts)

    async def seconds_to_next_wake(self, account_id: str) -> float | None:
        seconds = await super().seconds_to_next_wake(account_id)
        return None if seconds is None else seconds + time.time() - self.time.now

    def break_off(self) -> None:
        """Lose all connections at once, as a killed process does."""
        if not self._shared:
            self._database._pool.terminate()
