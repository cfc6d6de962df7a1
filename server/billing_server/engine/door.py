"""The one door: every change of a book passes here, many at a time, in one transaction of one account.

Lock the books, load them with a handful of queries, decide each command, save everything with a handful of
statements, append the events, commit. A refused command harms none of its neighbours; a broken one is found by
running the batch again in halves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from billing_server.domain.advance import StuckBook, advance
from billing_server.domain.book import Book, Decision, Reach
from billing_server.domain.calendar import DAY
from billing_server.domain.commands import Command, CreateCustomer, SettleAttempt
from billing_server.domain.decide import decide, decide_new_customer, reach, target
from billing_server.domain.errors import Conflict, DomainError, LimitReached, ResourceMissing, invalid
from billing_server.domain.event import Cause, Event
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.test_clock import TestClock
from billing_server.domain.turn import Pages
from billing_server.engine.bell import Bell
from billing_server.engine.conclusion import conclude, refusal_of
from billing_server.engine.events import event_rows
from billing_server.engine.ids import IdSource
from billing_server.engine.pages import PagesCache
from billing_server.engine.work import Answered, Caller, Woken, Work
from billing_server.store.errors import CommitUnknown, StoreBusy, StoreUnavailable
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit

LOGGER = logging.getLogger(__name__)

_TRIES_MAX = 5
PARK_SECONDS = 300
"""How long a book that fails to advance is left alone before it is tried again."""

T = TypeVar("T")


class InternalError(Exception):
    """A command broke the engine; details are in the log, not in the answer."""


class Door:
    """Executes batches against the store."""

    def __init__(self, store: Store, pages: PagesCache, new_id: IdSource, bell: Bell) -> None:
        self._store = store
        self._pages = pages
        self._new_id = new_id
        self.bell = bell
        self.parked = 0

    # --- commands

    async def execute(self, account_id: str, batch: Sequence[Work]) -> None:
        """Carry out the batch and tell each who waits; raises nothing."""
        try:
            answers = await self.committed(account_id, lambda unit: self._execute(unit, batch))
        except (StoreUnavailable, DomainError) as error:
            for work in batch:
                work.fail(error)
        except Exception as error:  # noqa: BLE001  # whoever waits must be told, whatever broke
            await self._split(account_id, batch, error)
        else:
            self.bell.ring(account_id)
            for work, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Answered):
                    work.give(answer)
                else:
                    work.fail(answer)

    async def _split(self, account_id: str, batch: Sequence[Work], error: Exception) -> None:
        """One of the batch breaks it: halve until it is alone."""
        if len(batch) == 1:
            LOGGER.error("%s of %s failed", type(batch[0].command).__name__, account_id, exc_info=error)
            batch[0].fail(InternalError())
            return
        middle = len(batch) // 2
        await self.execute(account_id, batch[:middle])
        await self.execute(account_id, batch[middle:])

    async def committed(self, account_id: str, body: Callable[[Unit], Awaitable[T]]) -> T:
        """Run a transaction until it is known whether it took effect. `body` may be run more than once.

        A connection that breaks during COMMIT says nothing about the outcome (trap 9): the database is asked.
        """
        for _ in range(_TRIES_MAX):
            results: list[T] = []
            try:
                async with self._store.transaction(account_id) as unit:
                    results.append(await body(unit))
            except StoreBusy as error:
                LOGGER.info("trying a transaction of %s again: %s", account_id, error)
                continue
            except CommitUnknown as error:
                if error.transaction is None or not await self._store.committed(error.transaction):
                    continue
            return results[0]
        raise StoreUnavailable("the database was busy, or lost the connection, again and again")

    async def _execute(self, unit: Unit, batch: Sequence[Work]) -> list[Answered | Exception]:
        """Lock, load, decide each command, save."""
        customers = await self._customers(unit, batch)
        keys = [work.key for work in batch if work.key is not None]
        opening = await unit.open([found for found in customers if found is not None], keys)
        pages = await self._pages.at(unit, opening.pages_version)
        wanted = _reaches(batch, customers)
        books = await unit.load(wanted)
        session = _Session(unit, opening, pages, self._new_id, books)
        answers: list[Answered | Exception] = []
        for work, customer in zip(batch, customers, strict=True):
            try:
                answers.append(await session.carry_out(work, customer))
            except DomainError as error:
                answers.append(error)
            except Exception as error:
                if len(batch) > 1:
                    raise
                LOGGER.exception("%s of %s failed", type(work.command).__name__, unit.account_id)
                answers.append(InternalError(str(error)))
        await session.save()
        return answers

    async def _customers(self, unit: Unit, batch: Sequence[Work]) -> list[str | None]:
        """The customer whose book each command is about; None for new customers and unknown objects."""
        targets = [None if isinstance(work.command, CreateCustomer) else target(work.command) for work in batch]
        unknown = {found for found in targets if found is not None and found.type != "customer"}
        owners = await unit.owners(unknown) if unknown else {}
        return [
            None if found is None else found.id if found.type == "customer" else owners.get(found) for found in targets
        ]

    # --- time

    async def wake(
        self, account_id: str, *, limit: int, until: int | None = None, test_clock: str | None = None
    ) -> Woken:
        """Advance up to `limit` due books, of real time or of one test clock, and commit.

        A book that fails is parked alone; the others of its batch are tried again without it.
        """

        async def body(unit: Unit) -> Woken:
            return await self._wake(unit, limit, until, test_clock)

        woken = await self.committed(account_id, body)
        if woken.events:
            self.bell.ring(account_id)
        return woken

    async def _wake(self, unit: Unit, limit: int, until: int | None, test_clock: str | None) -> Woken:
        opening = await unit.open()
        claimed = await unit.claim_due(limit, until, test_clock)
        moment = opening.now if until is None else until
        if not claimed:
            return Woken(horizon=moment)
        pages = await self._pages.at(unit, opening.pages_version)
        horizon = moment
        if test_clock is not None:
            # Books of one clock move together: all to the latest due time among them, few of them a little further.
            latest = max(unit.wake_at(customer) for customer in claimed)
            horizon = min(moment, latest if len(claimed) == limit else latest + DAY)
        books = await unit.load({customer: Reach(due_until=horizon) for customer in claimed})
        session = _Session(unit, opening, pages, self._new_id, books)
        parked = {}
        for customer in claimed:
            try:
                session.advance(customer, horizon)
            except (StuckBook, DomainError, ArithmeticError, LookupError, TypeError, ValueError, AssertionError):
                LOGGER.exception("the book of %s does not advance; it is parked", customer)
                parked[customer] = (moment if test_clock else opening.now) + PARK_SECONDS
        self.parked += len(parked)
        await session.save()
        if parked:
            await unit.park(parked)
        return Woken(
            books=len(claimed),
            events=session.events_saved,
            horizon=horizon,
            charges=tuple(session.charges),
            refunds=tuple(session.refunds),
        )

    async def claim_checks(self, account_id: str, *, limit: int, lease_seconds: int) -> Woken:
        """Unresolved charges and refunds that must be looked at by now, leased so that nobody else looks."""

        async def body(unit: Unit) -> Woken:
            opening = await unit.open()
            claimed = await unit.claim_checks(limit)
            books = await unit.load({customer: Reach() for customer in claimed})
            leased: list[tuple[Book | None, Book]] = []
            charges: list[PaymentAttempt] = []
            refunds: list[Refund] = []
            until = opening.now + lease_seconds
            for book in books.values():
                attempts = {
                    item.id: msgspec.structs.replace(item, check_at=until)
                    for item in book.attempts.values()
                    if item.check_at is not None and item.check_at <= opening.now
                }
                given = {
                    item.id: msgspec.structs.replace(item, check_at=until)
                    for item in book.refunds.values()
                    if item.check_at is not None and item.check_at <= opening.now
                }
                charges += attempts.values()
                refunds += given.values()
                after = msgspec.structs.replace(
                    book, attempts={**book.attempts, **attempts}, refunds={**book.refunds, **given}
                )
                leased.append((book, after))
            await unit.save(leased)
            return Woken(books=len(claimed), charges=tuple(charges), refunds=tuple(refunds))

        return await self.committed(account_id, body)


def _reaches(batch: Sequence[Work], customers: Sequence[str | None]) -> dict[str, Reach]:
    """What the batch needs of each book: the sum of what its commands need."""
    wanted: dict[str, Reach] = {}
    for work, customer in zip(batch, customers, strict=True):
        if customer is None:
            continue
        needed = reach(work.command)
        known = wanted.get(customer)
        wanted[customer] = needed if known is None else _sum(known, needed)
    return wanted


def _sum(one: Reach, other: Reach) -> Reach:
    return Reach(
        subscriptions=one.subscriptions + other.subscriptions,
        invoices=one.invoices + other.invoices,
        invoice_items=one.invoice_items + other.invoice_items,
        credit_notes=one.credit_notes + other.credit_notes,
        attempts_of=one.attempts_of + other.attempts_of,
        items_of_invoices=one.items_of_invoices or other.items_of_invoices,
        history=one.history or other.history,
        all_live=one.all_live or other.all_live,
        count_subscriptions=one.count_subscriptions or other.count_subscriptions,
    )


class _Session:
    """The books of one transaction while their commands are decided."""

    def __init__(self, unit: Unit, opening: Opening, pages: Pages, new_id: IdSource, books: Mapping[str, Book]) -> None:
        self._unit = unit
        self._opening = opening
        self._pages = pages
        self._new_id = new_id
        self._before: dict[str, Book] = dict(books)
        self._books: dict[str, Book] = dict(books)
        self._events: list[Event] = []
        self._answers: dict[str, IdempotencyRow] = {}
        self.charges: list[PaymentAttempt] = []
        self.refunds: list[Refund] = []
        self.events_saved = 0

    async def carry_out(self, work: Work, customer: str | None) -> Answered:
        """Decide one command on what its neighbours before it have left."""
        earlier = self._earlier_answer(work)
        if earlier is not None:
            return earlier
        if isinstance(work.command, CreateCustomer):
            decision = await self._new_customer(work.command, work.cause)
        else:
            decision = self._decide(work, customer)
        self._books[decision.book.customer.id] = decision.book
        self._events += decision.events
        return self._answered(work, decision)

    def _decide(self, work: Work, customer: str | None) -> Decision:
        book = None if customer is None else self._books.get(customer)
        if book is None:
            missing = target(work.command)
            raise ResourceMissing(missing.type, missing.id, field=target_field(work.command))
        return decide(
            book,
            work.command,
            now=self._now(book, work.command),
            wall_now=self._opening.now,
            pages=self._pages,
            new_id=self._new_id,
            cause=work.cause,
        )

    def _now(self, book: Book, command: Command) -> int:
        """Real time, or the book's test clock; a charge begun while a clock advances is settled at its own time."""
        if book.test_clock is None:
            return self._opening.now
        if isinstance(command, SettleAttempt):
            attempt = book.attempts.get(command.attempt)
            if attempt is not None and attempt.state == "started":
                return attempt.due_at
        return book.test_clock.frozen_time

    async def _new_customer(self, command: CreateCustomer, cause: Cause) -> Decision:
        now = self._opening.now
        if command.test_clock is not None:
            clock = await self._unit.lock_test_clock(command.test_clock)
            refuse_advancing(clock)
            now = clock.frozen_time
        return decide_new_customer(
            command,
            now=now,
            wall_now=self._opening.now,
            pages=self._pages,
            new_id=self._new_id,
            cause=cause,
        )

    def advance(self, customer: str, until: int) -> None:
        """Let time pass in one book."""
        decision = advance(
            self._books[customer],
            until,
            wall_now=self._opening.now,
            pages=self._pages,
            new_id=self._new_id,
        )
        self._books[customer] = decision.book
        self._events += decision.events
        self.charges += decision.charges
        self.refunds += decision.refunds

    # --- answers to callers

    def _earlier_answer(self, work: Work) -> Answered | None:
        """What is known of the request's idempotency key, if it was used before."""
        caller = work.caller
        if caller is None or caller.idempotency_key is None:
            return None
        key = caller.idempotency_key
        if key in self._answers:
            raise _key_in_use(key)
        row = self._opening.idempotency.get(key)
        if row is None:
            return None
        if row.request_hash != caller.request_hash or row.method != caller.method:
            raise invalid(
                "idempotency-key",
                "idempotency_mismatch",
                "this key was used with another request; use a new key for a new request",
            )
        if row.state == "complete":
            return Answered(now=self._opening.now, replay=row.response)
        return Answered(now=self._opening.now, unfinished=row.resource)

    def _answered(self, work: Work, decision: Decision) -> Answered:
        result, refusal = decision.result, None
        origin = work.origin
        if origin is not None and isinstance(work.command, SettleAttempt):
            attempt = decision.book.attempts.get(work.command.attempt)
            refusal = None if attempt is None else refusal_of(origin.command, attempt)
            result = conclude(origin.result, decision.book, decision.result)
        clock = decision.book.test_clock
        now = self._opening.now if clock is None else clock.frozen_time
        self._remember(work, decision, result, refusal, now)
        return Answered(
            now=now,
            result=result,
            refusal=refusal,
            charges=decision.charges,
            refunds=decision.refunds,
        )

    def _remember(
        self, work: Work, decision: Decision, result: msgspec.Struct | None, refusal: DomainError | None, now: int
    ) -> None:
        """Keep the answer beside its key: final, or which attempt it still depends on."""
        caller = work.caller or (None if work.origin is None else work.origin.caller)
        if caller is None or caller.idempotency_key is None:
            return
        unfinished = decision.charges[-1].id if decision.charges else None
        if isinstance(refusal, Conflict) and isinstance(work.command, SettleAttempt):
            unfinished = work.command.attempt
        response = None
        if unfinished is None:
            response = answer_bytes(caller, result, refusal, now)
        self._answers[caller.idempotency_key] = IdempotencyRow(
            key=caller.idempotency_key,
            method=caller.method,
            request_hash=caller.request_hash,
            state="complete" if unfinished is None else "in_progress",
            resource=unfinished,
            response=response,
            created=self._opening.now,
        )

    async def save(self) -> bool:
        """Write what has changed; whether there are new events."""
        saved = [
            (self._before.get(customer), book)
            for customer, book in self._books.items()
            if self._before.get(customer) is not book
        ]
        rows = event_rows(self._unit.account_id, self._events)
        if saved or rows or self._answers:
            await self._unit.save(saved, rows, list(self._answers.values()))
        self.events_saved = len(rows)
        return bool(rows)


def answer_bytes(caller: Caller, result: msgspec.Struct | None, refusal: DomainError | None, now: int) -> bytes | None:
    """The answer as it is stored beside its key; the result is seen at `now`."""
    if refusal is not None:
        return None if caller.encode_refusal is None else caller.encode_refusal(refusal)
    return None if caller.encode is None or result is None else caller.encode(result, now)


def refuse_advancing(clock: TestClock) -> None:
    """Nothing joins a test clock that is on its way."""
    if clock.status != "ready":
        raise LimitReached(
            "test_clock_advancing",
            f"the test clock '{clock.id}' is {clock.status}; try again when it is ready",
            retry_after_seconds=1,
        )


def target_field(command: Command) -> str:
    """The request field that names the command's target."""
    for name in ("customer", "id", "invoice", "payment_intent"):
        if name in command.__struct_fields__:
            return name
    return "id"


def _key_in_use(key: str) -> Conflict:
    return Conflict(
        "idempotency_key_in_use",
        f"a request with the idempotency key '{key}' is being worked on; try again shortly",
        field="idempotency-key",
    )
