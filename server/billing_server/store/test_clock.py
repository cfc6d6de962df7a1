"""How test clocks are stored, and what deleting one means: its customers go with everything they have.

Their events stay: what was told was true, and a reader that folds events sees the clock's deletion.
"""

from __future__ import annotations

from typing import Final

from billing_server.domain.test_clock import TestClock
from billing_server.store.database import Connection
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

TEST_CLOCKS = Rows(TestClock, "test_clock", "test_clocks", "test_clock_row_2")

_TABLES_OF_CUSTOMERS: Final = (
    "meter_events",
    "meter_tallies",
    "messages",
    "automation_runs",
    "payment_attempts",
    "refunds",
    "credit_notes",
    "balance_transactions",
    "invoice_items",
    "invoices",
    "subscriptions",
    "subscription_schedules",
    "payment_methods",
    "books",
    "customers",
)


class TestClockFilter(Filter[TestClock], frozen=True, kw_only=True):
    """All test clocks."""

    __test__ = False


async def delete_with_customers(connection: Connection, account_id: str, clock_id: str) -> int:
    """Delete a locked clock and all that belongs to its customers; return how many customers that were.

    One statement per table, all books locked before: whoever works on one of them ends first, and whoever
    comes later finds no such customer.
    """
    queries = TEST_CLOCKS.queries
    books = await connection.fetch(queries["lock_books"], account_id, clock_id)
    customers = [record[0] for record in books]
    if customers:
        for table in _TABLES_OF_CUSTOMERS:
            await connection.execute(queries[f"delete_{table}"], account_id, customers)
    await connection.execute(queries["delete"], account_id, clock_id)
    return len(customers)
