"""Loading many books at once: a fixed handful of statements, whatever their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from billing_server.domain import automation as automations
from billing_server.domain import schedule as schedules
from billing_server.domain.automation import AutomationRun
from billing_server.domain.book import Book, Reach
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock
from billing_server.store.automation import AUTOMATION_RUNS
from billing_server.store.book import (
    BOOK_ROWS,
    HOLDS_PAYMENT_METHODS,
    HOLDS_PENDING_ITEMS,
    HOLDS_RUNS,
    HOLDS_SCHEDULES,
    HOLDS_UNRESOLVED_ATTEMPTS,
    HOLDS_UNRESOLVED_REFUNDS,
    KINDS,
    BookRow,
)
from billing_server.store.customer import CUSTOMERS, PAYMENT_METHODS
from billing_server.store.database import Connection
from billing_server.store.invoice import CREDIT_NOTES, INVOICE_ITEMS, INVOICES
from billing_server.store.payment import PAYMENT_ATTEMPTS, REFUNDS
from billing_server.store.rows import Rows
from billing_server.store.schedule import SCHEDULES
from billing_server.store.subscription import SUBSCRIPTIONS
from billing_server.store.test_clock import TEST_CLOCKS


class _Shelf:
    """The parts of many books while they are gathered, each kind by id."""

    def __init__(self, customers: Iterable[Customer]) -> None:
        self.customers = {customer.id: customer for customer in customers}
        self.clocks: dict[str, TestClock] = {}
        self.payment_methods: dict[str, PaymentMethod] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.schedules: dict[str, SubscriptionSchedule] = {}
        self.runs: dict[str, AutomationRun] = {}
        self.invoices: dict[str, Invoice] = {}
        self.invoice_items: dict[str, InvoiceItem] = {}
        self.attempts: dict[str, PaymentAttempt] = {}
        self.refunds: dict[str, Refund] = {}
        self.credit_notes: dict[str, CreditNote] = {}
        self.balance_transactions: dict[str, BalanceTransaction] = {}

    def grouped(self, name: str) -> dict[str, dict[str, Any]]:
        """One kind by customer."""
        groups: dict[str, dict[str, Any]] = defaultdict(dict)
        for identity, item in getattr(self, name).items():
            groups[item.customer][identity] = item
        return groups


class Loader:
    """Loads books of one account; `rows` are those of the locked books."""

    def __init__(self, connection: Connection, account_id: str, rows: Mapping[str, BookRow]) -> None:
        self._connection = connection
        self._account_id = account_id
        self._rows = rows

    async def load(self, reaches: Mapping[str, Reach]) -> dict[str, Book]:
        """The books by customer, each as far as its reach goes; customers that do not exist are left out."""
        customers = await self._fetch(CUSTOMERS, "get", sorted(reaches))
        shelf = _Shelf(customers)
        wanted = {customer: reach for customer, reach in reaches.items() if customer in shelf.customers}
        if not wanted:
            return {}
        await self._load_clocks(shelf)
        await self._load_what_is_always_wanted(shelf, wanted)
        await self._load_billing(shelf, wanted)
        await self._load_payments(shelf, wanted)
        rest = await self._rest(shelf, wanted)
        live = await self._count_live(wanted)
        return _books(shelf, rest, live)

    async def _fetch(self, rows: Rows[Any], query: str, *parameters: object) -> list[Any]:
        if not parameters[0]:
            return []
        return rows.decode(await self._connection.fetch(rows.queries[query], self._account_id, *parameters))

    def _holding(self, customers: Iterable[str], part: int) -> list[str]:
        return [customer for customer in customers if self._rows[customer].holds & part]

    async def _load_clocks(self, shelf: _Shelf) -> None:
        clocks = {customer.test_clock for customer in shelf.customers.values() if customer.test_clock}
        _add(shelf.clocks, await self._fetch(TEST_CLOCKS, "get", sorted(clocks)))

    async def _load_what_is_always_wanted(self, shelf: _Shelf, wanted: Mapping[str, Reach]) -> None:
        methods = self._holding(wanted, HOLDS_PAYMENT_METHODS)
        _add(shelf.payment_methods, await self._fetch(PAYMENT_METHODS, "load_attached", methods))
        scheduled = self._holding(wanted, HOLDS_SCHEDULES)
        _add(shelf.schedules, await self._fetch(SCHEDULES, "load_live", scheduled))
        named = _named(wanted, "schedules") - shelf.schedules.keys()
        _add(shelf.schedules, await self._fetch(SCHEDULES, "get", sorted(named)))
        running = self._holding(wanted, HOLDS_RUNS)
        _add(shelf.runs, await self._fetch(AUTOMATION_RUNS, "load_live", running))
        named = _named(wanted, "runs") - shelf.runs.keys()
        _add(shelf.runs, await self._fetch(AUTOMATION_RUNS, "get", sorted(named)))
        items = self._holding(wanted, HOLDS_PENDING_ITEMS)
        _add(shelf.invoice_items, await self._fetch(INVOICE_ITEMS, "load_pending", items))
        named = _named(wanted, "invoice_items") - shelf.invoice_items.keys()
        _add(shelf.invoice_items, await self._fetch(INVOICE_ITEMS, "get", sorted(named)))
        billed = {c: reach for c, reach in wanted.items() if reach.items_of_invoices}
        of_invoices = sorted(_named(billed, "invoices"))
        _add(shelf.invoice_items, await self._fetch(INVOICE_ITEMS, "load_of_invoices", of_invoices))

    async def _load_billing(self, shelf: _Shelf, wanted: Mapping[str, Reach]) -> None:
        """Subscriptions and invoices, and what each brings along."""
        due = {c: reach.due_until for c, reach in wanted.items() if reach.due_until is not None}
        spans = (list(due), list(due.values()))
        notes = await self._fetch(CREDIT_NOTES, "get", sorted(_named(wanted, "credit_notes")))
        invoices = _named(wanted, "invoices") | {note.invoice for note in notes}
        invoices |= {item.invoice for item in shelf.invoice_items.values() if item.invoice is not None}
        waking = _waking_runs(shelf, wanted)
        invoices |= {run.invoice for run in waking if run.invoice is not None}
        _add(shelf.invoices, await self._fetch(INVOICES, "get", sorted(invoices)))
        _add(shelf.invoices, await self._fetch(INVOICES, "load_due", *spans))
        _add(shelf.subscriptions, await self._fetch(SUBSCRIPTIONS, "load_due", *spans))
        everything = [customer for customer, reach in wanted.items() if reach.all_live]
        _add(shelf.subscriptions, await self._fetch(SUBSCRIPTIONS, "load_live", everything))
        named = _named(wanted, "subscriptions") | {i.subscription for i in shelf.invoices.values() if i.subscription}
        named |= _scheduled(shelf, wanted) | {run.subscription for run in waking if run.subscription is not None}
        named -= shelf.subscriptions.keys()
        _add(shelf.subscriptions, await self._fetch(SUBSCRIPTIONS, "get", sorted(named)))
        await self._load_invoices_of_subscriptions(shelf, wanted)
        finalized = [invoice.id for invoice in shelf.invoices.values() if invoice.status != "draft"]
        _add(shelf.credit_notes, await self._fetch(CREDIT_NOTES, "load_of_invoices", finalized))

    async def _load_invoices_of_subscriptions(self, shelf: _Shelf, wanted: Mapping[str, Reach]) -> None:
        subscriptions = list(shelf.subscriptions.values())
        pairs = ([s.customer for s in subscriptions], [s.id for s in subscriptions])
        _add(shelf.invoices, await self._fetch(INVOICES, "load_unsettled", *pairs, list(shelf.invoices)))
        past = [s for s in subscriptions if s.customer in wanted and wanted[s.customer].history]
        pairs = ([s.customer for s in past], [s.id for s in past])
        _add(shelf.invoices, await self._fetch(INVOICES, "load_history", *pairs))

    async def _load_payments(self, shelf: _Shelf, wanted: Mapping[str, Reach]) -> None:
        attempts = self._holding(wanted, HOLDS_UNRESOLVED_ATTEMPTS)
        _add(shelf.attempts, await self._fetch(PAYMENT_ATTEMPTS, "load_unresolved", attempts))
        refunds = self._holding(wanted, HOLDS_UNRESOLVED_REFUNDS)
        _add(shelf.refunds, await self._fetch(REFUNDS, "load_unresolved", refunds))
        invoices = sorted(_named(wanted, "attempts_of"))
        _add(shelf.attempts, await self._fetch(PAYMENT_ATTEMPTS, "load_of_invoices", invoices))
        _add(shelf.refunds, await self._fetch(REFUNDS, "load_of_invoices", invoices))

    async def _rest(self, shelf: _Shelf, wanted: Mapping[str, Reach]) -> dict[str, int | None]:
        """When what was not loaded wakes: exactly for books that are loaded to wake, else as last known."""
        rest = {customer: self._rows[customer].wake_at for customer in wanted}
        due = [customer for customer, reach in wanted.items() if reach.due_until is not None]
        if due:
            loaded = (list(shelf.subscriptions), list(shelf.invoices))
            query = BOOK_ROWS.queries["next_wake"]
            records = await self._connection.fetch(query, self._account_id, due, *loaded)
            rest.update((record[0], record[1]) for record in records)
        return rest

    async def _count_live(self, wanted: Mapping[str, Reach]) -> dict[str, int]:
        counted = [customer for customer, reach in wanted.items() if reach.count_subscriptions]
        if not counted:
            return {}
        query = SUBSCRIPTIONS.queries["count_live"]
        records = await self._connection.fetch(query, self._account_id, counted)
        return {record[0]: record[1] for record in records}


def _add(mapping: dict[str, Any], items: Iterable[Any]) -> None:
    """Add what is not there yet: an object that two queries found stays one object."""
    for item in items:
        mapping.setdefault(item.id, item)


def _named(wanted: Mapping[str, Reach], name: str) -> set[str]:
    """All ids that the reaches name in one of their fields."""
    return {identity for reach in wanted.values() for identity in getattr(reach, name)}


def _scheduled(shelf: _Shelf, wanted: Mapping[str, Reach]) -> set[str]:
    """The subscriptions of schedules that are named, or that wake."""
    found = set()
    for schedule in shelf.schedules.values():
        reach = wanted.get(schedule.customer)
        if reach is None or schedule.subscription is None:
            continue
        moment = schedules.wake_at(schedule)
        due = reach.due_until is not None and moment is not None and moment <= reach.due_until
        if due or schedule.id in reach.schedules:
            found.add(schedule.subscription)
    return found


def _waking_runs(shelf: _Shelf, wanted: Mapping[str, Reach]) -> list[AutomationRun]:
    """The runs that are named, or that wake; those under way with a retry policy wake with their invoices."""
    found = []
    for run in shelf.runs.values():
        reach = wanted.get(run.customer)
        if reach is None:
            continue
        moment = automations.wake_at(run)
        due = reach.due_until is not None and moment is not None and moment <= reach.due_until
        if due or run.id in reach.runs:
            found.append(run)
    return found


def _books(shelf: _Shelf, rest: Mapping[str, int | None], live: Mapping[str, int]) -> dict[str, Book]:
    # Most kinds are empty in most books; what belongs to a customer whose book is not wanted finds no book.
    parts = [(kind.name, groups) for kind in KINDS if (groups := shelf.grouped(kind.name))]
    books = {}
    for identity, customer in shelf.customers.items():
        contents: dict[str, Any] = {name: groups[identity] for name, groups in parts if identity in groups}
        books[identity] = Book(
            customer=customer,
            test_clock=shelf.clocks[customer.test_clock] if customer.test_clock else None,
            rest_wake_at=rest[identity],
            live_subscriptions=live.get(identity, 0),
            **contents,
        )
    return books
