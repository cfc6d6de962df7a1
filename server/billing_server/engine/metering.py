"""Metering: events come in by the thousand, and go to the database many in one transaction.

Like group commit, but for facts instead of commands: what gathers while two batches are being written becomes the
next one. No book is locked, nothing is decided; tallies are added to in one order, so no two batches deadlock.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from billing_server.domain.errors import Conflict, DomainError, LimitReached
from billing_server.domain.meter import MeterEvent
from billing_server.domain.metering import DIGEST_BYTES, Entry, digester, judge, tallies
from billing_server.engine.door import InternalError
from billing_server.engine.once import complete, earlier_answer, keys_of
from billing_server.engine.pages import PagesCache
from billing_server.engine.transactions import committed
from billing_server.engine.work import Caller
from billing_server.store.errors import StoreUnavailable
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit
from billing_server.store.usage import EventRow

LOGGER = logging.getLogger(__name__)

EVENTS_MAX: Final = 5_000
"""Events in one report, which is never divided."""

BATCH_MAX: Final = 2_000
"""Events in one transaction, unless one report has more: few enough that other callers do not notice."""

WAITING_MAX: Final = 200_000
"""Events that may wait in this process; who reports more is asked to come back."""

BATCHES_AT_ONCE: Final = 2
"""Batches of one account on their way, so that one is put together while the database works on the other."""

_LINGER_SECONDS: Final = 0.001
_RANDOM_BYTES: Final = DIGEST_BYTES - 8


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events of one report: taken, duplicates, or refused, by their indices."""

    entries: dict[int, Entry]
    duplicates: frozenset[int] = frozenset()
    refusals: tuple[tuple[int, DomainError], ...] = ()

    @property
    def accepted(self) -> int:
        """How many events count now that did not before."""
        return len(self.entries) - len(self.duplicates)


Answer = Reported | bytes
"""What became of a report, or the answer kept for its idempotency key."""


class _Parcel:
    """One report on its way."""

    __slots__ = ("caller", "events", "promise")

    def __init__(self, events: Sequence[MeterEvent], caller: Caller | None) -> None:
        self.events = events
        self.caller = caller
        self.promise: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def give(self, answer: Answer | Exception) -> None:
        """Tell who waits; whoever has gone away in the meantime changes nothing."""
        if self.promise.done():
            return
        if isinstance(answer, Exception):
            self.promise.set_exception(answer)
        else:
            self.promise.set_result(answer)


class Metering:
    """Takes the meter events of all accounts of this process."""

    def __init__(self, store: Store, pages: PagesCache) -> None:
        self._store = store
        self._pages = pages
        self._queues: dict[str, deque[_Parcel]] = {}
        self._runners: dict[str, set[asyncio.Task[None]]] = {}
        self._last_received = 0
        self.waiting = 0
        self.accepted = 0
        self.duplicates = 0
        self.refused = 0

    async def report(self, account_id: str, events: Sequence[MeterEvent], caller: Caller | None = None) -> Answer:
        """Take some events, at most `EVENTS_MAX`, in one transaction; return when they are stored for good.

        Raises LimitReached when too many wait, and what the caller's idempotency key is refused for.
        """
        if self.waiting + len(events) > WAITING_MAX and self.waiting:
            raise LimitReached(
                "rate_limit", "too many meter events are waiting in this server; try again", retry_after_seconds=1
            )
        parcel = _Parcel(events, caller)
        self.waiting += len(events)
        self._queues.setdefault(account_id, deque()).append(parcel)
        runners = self._runners.setdefault(account_id, set())
        if len(runners) < BATCHES_AT_ONCE:
            runner = asyncio.create_task(self._run(account_id), name=f"meter events of {account_id}")
            runners.add(runner)
        try:
            return await parcel.promise
        finally:
            self.waiting -= len(events)

    async def idle(self) -> None:
        """Wait until nothing is being written, nor waits for it."""
        while self._runners:
            await asyncio.wait([runner for runners in self._runners.values() for runner in runners])

    async def close(self) -> None:
        """Break off what is still being written; whoever waits is told."""
        left = [runner for runners in self._runners.values() for runner in runners]
        for runner in left:
            runner.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # --- batches

    async def _run(self, account_id: str) -> None:
        """Write batches until nothing waits any more. Whatever happens, nobody is left waiting."""
        queue = self._queues[account_id]
        batch: list[_Parcel] = []
        try:
            await asyncio.sleep(_LINGER_SECONDS)
            while queue:
                batch = _next_batch(queue)
                await self._write(account_id, batch)
        except asyncio.CancelledError:
            for parcel in (*batch, *queue):
                parcel.give(StoreUnavailable("the server is stopping"))
            queue.clear()
            raise
        finally:
            self._leave(account_id)

    def _leave(self, account_id: str) -> None:
        runners = self._runners[account_id]
        runners.discard(asyncio.current_task())
        if not runners:
            del self._runners[account_id]
            del self._queues[account_id]

    async def _write(self, account_id: str, batch: Sequence[_Parcel]) -> None:
        """Store a batch and tell who waits. A report that breaks the batch is found by halving it."""
        try:
            answers = await committed(self._store, account_id, lambda unit: self._take(unit, batch))
        except (StoreUnavailable, DomainError) as error:
            for parcel in batch:
                parcel.give(error)
        except Exception as error:
            if len(batch) == 1:
                LOGGER.exception("meter events of %s could not be stored", account_id)
                batch[0].give(InternalError(str(error)))
                return
            middle = len(batch) // 2
            await self._write(account_id, batch[:middle])
            await self._write(account_id, batch[middle:])
        else:
            for parcel, answer in zip(batch, answers, strict=True):
                self._count(answer)
                parcel.give(answer)

    def _count(self, answer: Answer | Exception) -> None:
        if isinstance(answer, Reported):
            self.accepted += answer.accepted
            self.duplicates += len(answer.duplicates)
            self.refused += len(answer.refusals)

    async def _take(self, unit: Unit, batch: Sequence[_Parcel]) -> list[Answer | Exception]:
        """Judge the events, write those that are new, and add them to the tallies."""
        keys = {key for parcel in batch if parcel.caller is not None for key in keys_of(parcel.caller)}
        opening = await unit.open((), keys)
        answers, fresh = _known_answers(batch, opening)
        pages = await self._pages.at(unit, opening.pages_version)
        reporters = await unit.reporters({event.customer for parcel in fresh.values() for event in parcel.events})
        judged = {
            number: judge(parcel.events, pages.catalog, reporters, opening.now) for number, parcel in fresh.items()
        }
        taken = await self._insert(unit, [entry for entries, _ in judged.values() for entry in entries])
        kept: list[IdempotencyRow] = []
        for number, (entries, refusals) in judged.items():
            reported = Reported(
                entries={entry.number: entry for entry in entries},
                duplicates=frozenset(entry.number for entry in entries if id(entry) not in taken),
                refusals=tuple(refusals),
            )
            answers[number] = reported
            caller = fresh[number].caller
            if caller is not None and not refusals:
                kept += complete(caller, reported, opening.now)
        if kept:
            await unit.save((), (), kept)
        return [answers[number] for number in range(len(batch))]

    async def _insert(self, unit: Unit, entries: Sequence[Entry]) -> set[int]:
        """Write events; which of the entries are new, by their identities."""
        if not entries:
            return set()
        first = max(await unit.microseconds(), self._last_received + 1)
        self._last_received = first + len(entries) - 1
        inserted = await unit.insert_meter_events(_rows(entries, first))
        taken = list(zip(entries, range(first, first + len(entries)), strict=True))
        if len(inserted) < len(entries):
            taken = [(entry, received) for entry, received in taken if received in inserted]
        await unit.save_tallies(*tallies(taken))
        return {id(entry) for entry, _ in taken}


def _rows(entries: Sequence[Entry], first: int) -> list[EventRow]:
    """The entries as they are stored, received one after the other from a moment on."""
    digests = {entry.meter.id: digester(entry.meter) for entry in {entry.meter.id: entry for entry in entries}.values()}
    salt = secrets.token_bytes(_RANDOM_BYTES)
    return [
        (
            entry.customer,
            entry.meter.id,
            digests[entry.meter.id](entry.identifier) if entry.identifier else received.to_bytes(8, "big") + salt,
            entry.timestamp,
            entry.value,
            received,
        )
        for received, entry in enumerate(entries, first)
    ]


def _next_batch(queue: deque[_Parcel]) -> list[_Parcel]:
    """The reports that go together: as many as a transaction takes, and one at least."""
    batch = [queue.popleft()]
    size = len(batch[0].events)
    while queue and size + len(queue[0].events) <= BATCH_MAX:
        parcel = queue.popleft()
        size += len(parcel.events)
        batch.append(parcel)
    return batch


def _known_answers(
    batch: Sequence[_Parcel], opening: Opening
) -> tuple[dict[int, Answer | Exception], dict[int, _Parcel]]:
    """The answers to reports whose idempotency keys are known or used twice, and the other reports."""
    answers: dict[int, Answer | Exception] = {}
    fresh: dict[int, _Parcel] = {}
    seen: set[str] = set()
    for number, parcel in enumerate(batch):
        try:
            earlier = None if parcel.caller is None else earlier_answer(opening.idempotency, parcel.caller)
        except DomainError as refusal:
            answers[number] = refusal
            continue
        if earlier is not None and earlier.replay is not None:
            answers[number] = earlier.replay
            continue
        key = None if parcel.caller is None else parcel.caller.idempotency_key
        if key is not None and key in seen:
            answers[number] = _in_use(key)
            continue
        if key is not None:
            seen.add(key)
        fresh[number] = parcel
    return answers, fresh


def _in_use(key: str) -> Conflict:
    return Conflict(
        "idempotency_key_in_use",
        f"a request with the idempotency key '{key}' is being worked on; try again shortly",
        field="idempotency-key",
    )
