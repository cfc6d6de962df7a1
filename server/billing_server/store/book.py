"""What is kept of a book besides its parts, and which parts a book has.

Loading is in `loading.py`, saving in `saving.py`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from billing_server.domain.book import Book
from billing_server.domain.payment import UNRESOLVED
from billing_server.store.automation import AUTOMATION_RUNS
from billing_server.store.customer import BALANCE_TRANSACTIONS, PAYMENT_METHODS
from billing_server.store.invoice import CREDIT_NOTES, INVOICE_ITEMS, INVOICES
from billing_server.store.payment import PAYMENT_ATTEMPTS, REFUNDS
from billing_server.store.rows import Rows
from billing_server.store.schedule import SCHEDULES
from billing_server.store.subscription import SUBSCRIPTIONS

HOLDS_PAYMENT_METHODS: Final = 1
HOLDS_PENDING_ITEMS: Final = 2
HOLDS_UNRESOLVED_ATTEMPTS: Final = 4
HOLDS_UNRESOLVED_REFUNDS: Final = 8
HOLDS_SCHEDULES: Final = 16
HOLDS_RUNS: Final = 32

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
    in_flight, check_at = False, None
    for method in book.payment_methods.values():
        if method.detached_at is None:
            holds = HOLDS_PAYMENT_METHODS
            break
    if book.invoice_items and any(item.invoice is None for item in book.invoice_items.values()):
        holds |= HOLDS_PENDING_ITEMS
    if book.schedules and any(not schedule.ended for schedule in book.schedules.values()):
        holds |= HOLDS_SCHEDULES
    if book.runs and any(not run.ended for run in book.runs.values()):
        holds |= HOLDS_RUNS
    if book.attempts or book.refunds:
        in_flight, check_at = book.in_flight, book.check_at
        if any(attempt.state in UNRESOLVED for attempt in book.attempts.values()):
            holds |= HOLDS_UNRESOLVED_ATTEMPTS
        if any(refund.status in _UNRESOLVED_REFUNDS for refund in book.refunds.values()):
            holds |= HOLDS_UNRESOLVED_REFUNDS
    return BookRow(
        customer=book.customer.id,
        test_clock=book.customer.test_clock,
        wake_at=book.wake_at,
        in_flight=in_flight,
        check_at=check_at,
        holds=holds,
    )


class Kind(msgspec.Struct, frozen=True):
    """A part of books: its field in the book, how it is stored, and whether it may vanish."""

    name: str
    rows: Rows[Any]
    deletable: bool = False


KINDS: Final = (
    Kind("payment_methods", PAYMENT_METHODS),
    Kind("subscriptions", SUBSCRIPTIONS),
    Kind("schedules", SCHEDULES),
    Kind("invoices", INVOICES, deletable=True),
    Kind("invoice_items", INVOICE_ITEMS, deletable=True),
    Kind("attempts", PAYMENT_ATTEMPTS),
    Kind("refunds", REFUNDS),
    Kind("credit_notes", CREDIT_NOTES),
    Kind("balance_transactions", BALANCE_TRANSACTIONS),
    Kind("runs", AUTOMATION_RUNS),
)
