"""Loading and saving many books at once: a fixed handful of statements, whatever their number.

What has changed is what is no longer the same object: a new id is inserted, another object updated, the same
object left alone, an id that is gone deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from billing_server.domain.book import Book, Reach
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt, Refund
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock
from billing_server.store.customer import BALANCE_TRANSACTIONS, CUSTOMERS, PAYMENT_METHODS
from billing_server.store.database import Connection, Transaction
from billing_server.store.errors import StoreCorrupted
from billing_server.store.invoice import CREDIT_NOTES, INVOICE_ITEMS, INVOICES
from billing_server.store.payment import PAYMENT_ATTEMPTS, REFUNDS
from billing_server.store.rows import Rows
from billing_server.store.subscription import SUBSCRIPTIONS
from billing_server.store.test_clock import TEST_CLOCKS

HOLDS_PAYMENT_METHODS: Final = 1
HOLDS_PENDING_ITEMS: Final = 2
HOLDS_UNRESOLVED_ATTEMPTS: Final = 4
HOLDS_UNRESOLVED_REFUNDS: Final = 8

_UNRESOLVED_REFUNDS: Final = frozenset({"pending", "unknown"})


class BookRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a book before it is loaded; see the table `books`.

    `holds` says which parts the book has at all. Those parts are always loaded whole, so it can
    always be told anew when the book is saved.
    """

    customer: str
    test_clock: str | None
    wake_at: int | None
    in_flight: bool
    check_at: int | None
    holds: int


BOOK_ROWS = Rows(BookRow, "book", "books", "book_row", keys=frozenset({"customer"}))


def row_of(book: Book) -> BookRow:
    """What must be known of a book before it is loaded again."""
    holds = 0
    if any(method.detached_at is None for method in book.payment_methods.values()):
        holds |= HOLDS_PAYMENT_METHODS
    if any(item.invoice is None for item in book.invoice_items.values()):
        holds |= HOLDS_PENDING_ITEMS
    if any(attempt.state in UNRESOLVED for attempt in book.attempts.values()):
        holds |= HOLDS_UNRESOLVED_ATTEMPTS
    if any(refund.status in _UNRESOLVED_REFUNDS for refund in book.refunds.values()):
        holds |= HOLDS_UNRESOLVED_REFUNDS
    return BookRow(
        customer=book.customer.id,
        test_clock=book.customer.test_clock,
        wake_at=book.wake_at,
        in_flight=book.in_flight,
        check_at=book.check_at,
        holds=holds,
    )


# --- loading


class _Shelf:
    """The parts of many books while they are gathered, each kind by id."""

    def __init__(self, customers: Iterable[Customer]) -> None:
        self.customers = {customer.id: customer for customer in customers}
        self.clocks: dict[str, TestClock] = {}
        self.payment_methods: dict[str, PaymentMethod] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.invoices: dict[str, Invoice] = {}
        self.invoice_items: dict[str, InvoiceItem] = {}
        self.attempts: dict[str, PaymentAttempt] = {}
        self.refunds: dict[str, Refund] = {}
        self.credit_notes: dict[str, CreditNote] = {}
        self.balance_transactions: dict[str, BalanceTransaction] = {}

    def grouped(self, name: str) -> dict[str, dict[str, Any]]:
        """One kind by customer; what belongs to a customer whose book is not wanted is left out."""
        groups: dict[str, dict[str, Any]] = defaultdict(dict)
        for identity, item in getattr(self, name).items():
            if item.customer in self.customers:
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
        _add(shelf.invoices, await self._fetch(INVOICES, "get", sorted(invoices)))
        _add(shelf.invoices, await self._fetch(INVOICES, "load_due", *spans))
        _add(shelf.subscriptions, await self._fetch(SUBSCRIPTIONS, "load_due", *spans))
        everything = [customer for customer, reach in wanted.items() if reach.all_live]
        _add(shelf.subscriptions, await self._fetch(SUBSCRIPTIONS, "load_live", everything))
        named = _named(wanted, "subscriptions") | {i.subscription for i in shelf.invoices.values() if i.subscription}
        named -= shelf.subscriptions.keys()
        _add(shelf.subscriptions, await self._fetch(SUBSCRIPTIONS, "get", sorted(named)))
        await self._load_invoices_of_subscriptions(shelf, wanted)
        finalized = [invoice.id for invoice in shelf.invoices.values() if invoice.status != "draft"]
        _add(shelf.credit_notes, await self._fetch(CREDIT_NOTES, "load_of_invoices", finalized))

    async def _load_invoices_of_subscriptions(self, shelf: _Shelf, wanted: Mapping[str, Reach]) -> None:
        subscriptions = list(shelf.subscriptions.values())
        pairs = ([s.customer for s in subscriptions], [s.id for s in subscriptions])
        _add(shelf.invoices, await self._fetch(INVOICES, "load_unsettled", *pairs))
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


def _books(shelf: _Shelf, rest: Mapping[str, int | None], live: Mapping[str, int]) -> dict[str, Book]:
    parts = {kind.name: shelf.grouped(kind.name) for kind in KINDS}
    nothing: dict[str, Any] = {}
    books = {}
    for identity, customer in shelf.customers.items():
        contents: dict[str, Any] = {name: groups.get(identity, nothing) for name, groups in parts.items()}
        books[identity] = Book(
            customer=customer,
            test_clock=shelf.clocks[customer.test_clock] if customer.test_clock else None,
            rest_wake_at=rest[identity],
            live_subscriptions=live.get(identity, 0),
            **contents,
        )
    return books


# --- saving


class _Kind(msgspec.Struct, frozen=True):
    """A part of books: its field in the book, how it is stored, and whether it may vanish."""

    name: str
    rows: Rows[Any]
    deletable: bool = False


KINDS: Final = (
    _Kind("payment_methods", PAYMENT_METHODS),
    _Kind("subscriptions", SUBSCRIPTIONS),
    _Kind("invoices", INVOICES, deletable=True),
    _Kind("invoice_items", INVOICE_ITEMS, deletable=True),
    _Kind("attempts", PAYMENT_ATTEMPTS),
    _Kind("refunds", REFUNDS),
    _Kind("credit_notes", CREDIT_NOTES),
    _Kind("balance_transactions", BALANCE_TRANSACTIONS),
)

SavedBook = tuple[Book | None, Book]
"""A book before (None: its customer is new) and after."""


class _Changes:
    """What became of one kind of object in all books."""

    __slots__ = ("deleted", "inserted", "updated")

    def __init__(self) -> None:
        self.inserted: list[Any] = []
        self.updated: list[Any] = []
        self.deleted: list[str] = []

    def compare(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Note what is new, other or gone."""
        if before is after:
            return
        for identity, item in after.items():
            known = before.get(identity)
            if known is None:
                self.inserted.append(item)
            elif known is not item:
                self.updated.append(item)
        if not before.keys() <= after.keys():
            self.deleted += [identity for identity in before if identity not in after]


class Saver:
    """Saves books of one account; `rows` are those of the locked books, and are kept up to date."""

    def __init__(self, transaction: Transaction, account_id: str, rows: dict[str, BookRow]) -> None:
        self._connection = transaction.connection
        self._inserted = transaction.inserted
        self._account_id = account_id
        self._rows = rows

    async def save(self, saved: Sequence[SavedBook]) -> None:
        """Write all that changed. Raises StoreCorrupted when the database holds other rows than the books."""
        customers = _Changes()
        for before, after in saved:
            if before is None:
                customers.inserted.append(after.customer)
            elif before.customer is not after.customer:
                customers.updated.append(after.customer)
        await self._write(CUSTOMERS, customers)
        for kind in KINDS:
            changes = _Changes()
            for before, after in saved:
                changes.compare(getattr(before, kind.name, {}), getattr(after, kind.name))
            if changes.deleted and not kind.deletable:
                raise StoreCorrupted(f"{kind.name} vanished from their books: {changes.deleted}")
            await self._write(kind.rows, changes)
        await self._write_book_rows(saved)

    async def _write(self, rows: Rows[Any], changes: _Changes) -> None:
        # What goes makes room first; what moves from one object to another has left before it arrives.
        await self._execute(rows, "delete", changes.deleted, changes.deleted)
        await self._execute(rows, "update", changes.updated, rows.encode(changes.updated))
        await self._execute(rows, "insert", changes.inserted, rows.encode(changes.inserted))
        self._inserted[rows.table] += len(changes.inserted)

    async def _execute(self, rows: Rows[Any], query: str, items: Sequence[Any], parameter: Sequence[Any]) -> None:
        if not items:
            return
        written = await self._connection.execute(rows.queries[query], self._account_id, parameter)
        if written != len(items):
            raise StoreCorrupted(f"{query} of {rows.table} hit {written} rows instead of {len(items)}")

    async def _write_book_rows(self, saved: Sequence[SavedBook]) -> None:
        changes = _Changes()
        for before, after in saved:
            row = row_of(after)
            if before is None:
                changes.inserted.append(row)
            elif self._rows[row.customer] != row:
                changes.updated.append(row)
            self._rows[row.customer] = row
        await self._write(BOOK_ROWS, changes)
