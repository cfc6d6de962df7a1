"""The one door: every change of a book passes here, many at a time, in one transaction of one account.

Lock the books, load them with a handful of queries, decide each command, save everything with a handful of
statements, append the events, commit. A refused command harms none of its neighbours; a broken one is found by
running the batch again in halves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from billing_server.domain.book import Book, Reach
from billing_server.domain.calendar import DAY
from billing_server.domain.commands import CreateCustomer, SettleAttempt, SettleRefund
from billing_server.domain.decide import reach, target
from billing_server.domain.errors import DomainError, ResourceMissing
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.test_clock import TestClock
from billing_server.engine.bell import Bell
from billing_server.engine.ids import IdSource
from billing_server.engine.lateness import Lateness
from billing_server.engine.pages import PagesCache
from billing_server.engine.session import Session
from billing_server.engine.slices import DECISIONS, Wanted, by_nobody, in_slices
from billing_server.engine.transactions import committed
from billing_server.engine.usage import with_usage
from billing_server.engine.work import Answered, OnClaimed, OnLocked, Woken, Work, nobody_asks, nobody_waits
from billing_server.store.errors import StoreBusy, StoreTimeout, StoreUnavailable
from billing_server.store.store import Store
from billing_server.store.unit import Unit

LOGGER = logging.getLogger(__name__)

PARK_SECONDS = 300
"""How long a book that fails to advance is left alone before it is tried again."""

T = TypeVar("T")

CarryOut = Callable[[str, Sequence[PaymentAttempt], Sequence[Refund]], None]
"""Has charges and refunds made that are committed, without waiting for them."""


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
        self.carry_out: CarryOut = _leave_to_leases
        self.lateness = Lateness()
        self.turns_wanted: Wanted = by_nobody
        """Whether anybody waits for the loop while a billing run decides."""
        # Billing runs decide one batch after the other: two that take turns would both want the database afterwards.
        self._deciding = asyncio.Lock()

    # --- commands

    async def execute(self, account_id: str, batch: Sequence[Work], on_locked: OnLocked = nobody_asks) -> None:
        """Carry out the batch and tell each who waits; raises nothing.

        `on_locked` is told when the batch waits no more for what others have locked.
        """
        try:
            answers, session = await self.committed(account_id, lambda unit: self._execute(unit, batch, on_locked))
        except (StoreUnavailable, ResourceMissing) as error:
            # The database is away, or the account is not there: nothing that one of the batch could help.
            for work in batch:
                work.fail(error)
        except Exception as error:  # noqa: BLE001  # whoever waits must be told, whatever broke
            await self._split(account_id, batch, error)
        else:
            if session.charges or session.refunds:
                self.carry_out(account_id, session.charges, session.refunds)
            for work, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Answered):
                    work.give(answer)
                else:
                    work.fail(answer)

    async def _split(self, account_id: str, batch: Sequence[Work], error: Exception) -> None:
        """One of the batch breaks it, or is refused by the database: halve until it is alone."""
        if len(batch) == 1:
            batch[0].fail(_told(account_id, batch[0], error))
            return
        middle = len(batch) // 2
        await self.execute(account_id, batch[:middle])
        await self.execute(account_id, batch[middle:])

    async def committed(self, account_id: str, body: Callable[[Unit], Awaitable[T]]) -> T:
        """Run a transaction until it is known whether it took effect; see `transactions.committed`.

        Whoever follows the account's events is told of those that it has appended.
        """
        units: list[Unit] = []

        async def told(unit: Unit) -> T:
            units[:] = (unit,)
            return await body(unit)

        result = await committed(self._store, account_id, told)
        if units[0].appended is not None:
            self.bell.ring(account_id, units[0].appended)
        return result

    async def _execute(
        self, unit: Unit, batch: Sequence[Work], on_locked: OnLocked
    ) -> tuple[list[Answered | DomainError], Session]:
        """Lock, load, let what is overdue happen, decide each command, save. What each is answered.

        After an outage a command may be faster than the timekeeper. What was due before it happens before it, each
        thing at its own time, or a cancellation would swallow the renewal that it comes after.
        """
        customers = await self._customers(unit, batch)
        keys = [work.key for work in batch if work.key is not None]
        opening = await unit.open([found for found in customers if found is not None], keys)
        pages = await self._pages.at(unit, opening.pages_version)
        reaches = _reaches(batch, customers)
        late = unit.overdue() & _commanded(batch, customers)
        overdue = {name: msgspec.structs.replace(reaches[name], due_until=opening.now) for name in late}
        reaches |= overdue
        books = await unit.load(reaches)
        clocks = await self._clocks(unit, batch, customers, books)
        on_locked()
        books = {customer: _at_clock(book, clocks) for customer, book in books.items()}
        books = await with_usage(unit, books, reaches, pages.catalog, opening.now)
        session = Session(unit, opening, pages, self._new_id, books, clocks)
        for name in sorted(late & books.keys()):
            _catch_up(session, name, opening.now)
        answers: list[Answered | DomainError] = []
        for work, customer in zip(batch, customers, strict=True):
            try:
                answers.append(session.carry_out(work, customer))
            except DomainError as error:
                answers.append(error)
        for name in sorted(_found_out_later(batch, customers, books)):
            clock = session.send_after(name)
            if clock is not None:
                await unit.update_test_clock(clock)
        await session.save()
        return answers, session

    async def _clocks(
        self, unit: Unit, batch: Sequence[Work], customers: Sequence[str | None], books: Mapping[str, Book]
    ) -> dict[str, TestClock]:
        """The test clocks that the batch goes by, locked, so that none sets out before the batch is committed.

        A command decided at the old time, but committed after the clock has arrived, would leave behind something
        that was due on the way. So would an outcome that is found out when the clock does not wait for it any more;
        other settlements need no lock.
        """
        wanted = {books[name].customer.test_clock for name in _found_out_later(batch, customers, books)}
        for work, customer in zip(batch, customers, strict=True):
            if isinstance(work.command, CreateCustomer):
                wanted.add(work.command.test_clock)
            elif not isinstance(work.command, SettleAttempt | SettleRefund):
                book = books.get(customer or "")
                wanted.add(None if book is None else book.customer.test_clock)
        clocks = {}
        for clock_id in sorted(identity for identity in wanted if identity is not None):
            with contextlib.suppress(ResourceMissing):
                clocks[clock_id] = await unit.lock_test_clock(clock_id)
        return clocks

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
        self,
        account_id: str,
        *,
        limit: int,
        until: int | None = None,
        test_clock: str | None = None,
        on_claimed: OnClaimed = nobody_waits,
    ) -> Woken:
        """Advance up to `limit` due books, of real time or of one test clock, and commit.

        A book that fails is parked alone; the others of its batch are tried again without it. `on_claimed` is told
        how many books were found, before anything is decided: whoever has found as many as he may should look for more.
        """

        claimed: list[str] = []

        async def body(unit: Unit) -> Woken:
            claimed.clear()
            return await self._wake(unit, limit, until, test_clock, claimed, on_claimed)

        try:
            woken = await self.committed(account_id, body)
        except StoreUnavailable:
            raise
        except Exception as error:
            if not claimed:
                raise
            return await self._wake_in_halves(account_id, claimed, until, test_clock, error)
        self.parked += woken.parked
        for seconds in woken.late:
            self.lateness.note(seconds)
        return woken

    async def _wake_in_halves(
        self, account_id: str, claimed: Sequence[str], until: int | None, test_clock: str | None, error: Exception
    ) -> Woken:
        """One book breaks the whole batch, when it is loaded or saved: halve until it is alone, and park it."""
        if len(claimed) == 1:
            LOGGER.error("the book of %s can not be advanced; it is parked", claimed[0], exc_info=error)
            return await self._park(account_id, claimed[0], until)
        middle = len(claimed) // 2
        first = await self.wake(account_id, limit=middle, until=until, test_clock=test_clock)
        second = await self.wake(account_id, limit=len(claimed) - middle, until=until, test_clock=test_clock)
        return Woken(
            books=first.books + second.books,
            parked=first.parked + second.parked,
            unfinished=first.unfinished + second.unfinished,
            events=first.events + second.events,
            horizon=min(first.horizon, second.horizon),
            charges=first.charges + second.charges,
            refunds=first.refunds + second.refunds,
        )

    async def _park(self, account_id: str, customer: str, until: int | None) -> Woken:
        """Put one book aside without looking into it."""

        async def body(unit: Unit) -> Woken:
            opening = await unit.open([customer])
            moment = opening.now if until is None else until
            if opening.customers:
                await unit.park({customer: moment + PARK_SECONDS})
            return Woken(books=1, parked=1, horizon=moment)

        parked = await self.committed(account_id, body)
        self.parked += parked.parked
        return parked

    async def _wake(
        self,
        unit: Unit,
        limit: int,
        until: int | None,
        test_clock: str | None,
        claimed: list[str],
        on_claimed: OnClaimed,
    ) -> Woken:
        opening = await unit.open()
        claimed += await unit.claim_due(limit, until, test_clock)
        on_claimed(len(claimed))
        moment = opening.now if until is None else until
        if not claimed:
            return Woken(horizon=moment)
        pages = await self._pages.at(unit, opening.pages_version)
        horizon = moment
        late: tuple[int, ...] = ()
        if test_clock is None:
            late = tuple(moment - unit.wake_at(customer) for customer in claimed)
        else:
            # Books of one clock move together: all to the latest due time among them, few of them a little further.
            latest = max(unit.wake_at(customer) for customer in claimed)
            horizon = min(moment, latest if len(claimed) == limit else latest + DAY)
        reaches = {customer: Reach(due_until=horizon) for customer in claimed}
        books = await with_usage(unit, await unit.load(reaches), reaches, pages.catalog, opening.now)
        session = Session(unit, opening, pages, self._new_id, books)
        parked = {}
        async with self._deciding:
            async for some in in_slices(claimed, DECISIONS, self.turns_wanted):
                for customer in some:
                    try:
                        session.advance(customer, horizon)
                    except Exception:  # whatever is wrong with one book must not stop the others
                        LOGGER.exception("the book of %s does not advance; it is parked", customer)
                        parked[customer] = moment + PARK_SECONDS
        await session.save(self.turns_wanted)
        if parked:
            await unit.park(parked)
        return Woken(
            books=len(claimed),
            parked=len(parked),
            unfinished=session.unfinished,
            events=session.events_saved,
            horizon=horizon,
            late=late,
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


def _commanded(batch: Sequence[Work], customers: Sequence[str | None]) -> set[str]:
    """The customers whom callers' commands are about; outcomes of the gateway come whenever they come."""
    return {
        customer
        for work, customer in zip(batch, customers, strict=True)
        if customer is not None and not isinstance(work.command, SettleAttempt | SettleRefund)
    }


def _found_out_later(batch: Sequence[Work], customers: Sequence[str | None], books: Mapping[str, Book]) -> set[str]:
    """The customers of test clocks of whose charges the outcome comes when no clock waits for it any more."""
    found = set()
    for work, customer in zip(batch, customers, strict=True):
        book = books.get(customer or "")
        if book is None or book.customer.test_clock is None or not isinstance(work.command, SettleAttempt):
            continue
        attempt = book.attempts.get(work.command.attempt)
        if attempt is not None and not attempt.waited_for:
            found.add(book.customer.id)
    return found


def _catch_up(session: Session, customer: str, until: int) -> None:
    """Let happen in a book what is overdue; one that does not advance is left to the timekeeper, which parks it."""
    try:
        session.advance(customer, until)
    except Exception:
        LOGGER.exception("the book of %s does not advance before a command; it is left to be parked", customer)


def _leave_to_leases(_account_id: str, _charges: Sequence[PaymentAttempt], _refunds: Sequence[Refund]) -> None:
    """Nobody goes to the gateway at once: the leases of the charges end, and then they are looked after."""


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
        schedules=one.schedules + other.schedules,
        invoices=one.invoices + other.invoices,
        invoice_items=one.invoice_items + other.invoice_items,
        credit_notes=one.credit_notes + other.credit_notes,
        attempts_of=one.attempts_of + other.attempts_of,
        runs=one.runs + other.runs,
        items_of_invoices=one.items_of_invoices or other.items_of_invoices,
        history=one.history or other.history,
        all_live=one.all_live or other.all_live,
        count_subscriptions=one.count_subscriptions or other.count_subscriptions,
        usage=one.usage or other.usage,
    )


def _at_clock(book: Book, clocks: Mapping[str, TestClock]) -> Book:
    """The book with its test clock as it was locked: it may have moved since the book was loaded."""
    clock = clocks.get(book.customer.test_clock or "")
    return book if clock is None else msgspec.structs.replace(book, test_clock=clock)


def _told(account_id: str, work: Work, error: Exception) -> Exception:
    """What a command's caller is told of the error that it led to."""
    if isinstance(error, DomainError | StoreBusy | StoreTimeout):
        return error
    LOGGER.error("%s of %s failed", type(work.command).__name__, account_id, exc_info=error)
    return InternalError()
