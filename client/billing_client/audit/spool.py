"""A place on disk for what was read of the account, so that memory stays small however large the account is.

Lists come newest first and for all customers at once; the checks want one customer at a time, oldest first. The
spool is a temporary SQLite file that turns the one into the other.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from google.protobuf.message import Message

from billing.v1.customer_model_pb2 import Customer
from billing.v1.invoice_model_pb2 import CreditNote, Invoice, InvoiceItem
from billing.v1.payment_model_pb2 import PaymentAttempt, Refund
from billing.v1.subscription_model_pb2 import Subscription
from billing_client.audit.book import Book, Member

_KINDS: Final[dict[str, type[Member]]] = {
    kind.__name__: kind for kind in (Subscription, Invoice, InvoiceItem, CreditNote, PaymentAttempt, Refund)
}

_SCHEMA: Final = """
CREATE TABLE customers (id TEXT PRIMARY KEY, prefix TEXT, payload BLOB) WITHOUT ROWID;
CREATE TABLE members (place INTEGER PRIMARY KEY, kind TEXT, id TEXT, customer TEXT, payload BLOB);
CREATE TABLE folded (id TEXT PRIMARY KEY, type TEXT, payload BLOB) WITHOUT ROWID;
"""


class Spool:
    """Objects of an account, by customer. A context manager; its file is gone afterwards."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="billing-audit-")
        self._database = sqlite3.connect(Path(self._directory.name) / "spool.sqlite", isolation_level=None)
        # Nothing of this has to survive a crash.
        self._database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()
        self._directory.cleanup()

    # --- writing

    def add_customers(self, customers: Iterable[Customer]) -> None:
        """Keep customers."""
        self._write(
            "INSERT OR REPLACE INTO customers VALUES (?, ?, ?)",
            ((customer.id, customer.invoice_prefix, customer.SerializeToString()) for customer in customers),
        )

    def add_members(self, members: Iterable[Member]) -> None:
        """Keep objects of customers, in the order of their list."""
        self._write(
            "INSERT INTO members (kind, id, customer, payload) VALUES (?, ?, ?, ?)",
            ((type(member).__name__, member.id, member.customer, member.SerializeToString()) for member in members),
        )

    def fold_events(self, told: Mapping[str, tuple[str, Message]]) -> None:
        """Keep the newest state of each object that events told of, by its id, with the type of the event."""
        self._write(
            "INSERT OR REPLACE INTO folded VALUES (?, ?, ?)",
            ((name, type_, state.SerializeToString()) for name, (type_, state) in told.items()),
        )

    def finish_reading(self) -> None:
        """All is there: make it quick to find."""
        self._database.execute("CREATE INDEX by_customer ON members (customer)")

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")

    # --- reading

    def customers_missing(self) -> list[str]:
        """Ids of customers that objects name, but that were not listed: deleted ones, if they exist at all."""
        rows = self._database.execute(
            "SELECT DISTINCT customer FROM members WHERE customer NOT IN (SELECT id FROM customers)"
        )
        return [customer for (customer,) in rows]

    def prefixes_shared(self) -> list[tuple[str, str]]:
        """Customers whose invoice prefix is that of another one as well, with the prefix."""
        rows = self._database.execute(
            "SELECT id, prefix FROM customers WHERE prefix IN"
            " (SELECT prefix FROM customers WHERE prefix <> '' GROUP BY prefix HAVING count(*) > 1)"
        )
        return [(customer, prefix) for customer, prefix in rows]

    def counts(self) -> dict[str, int]:
        """How many objects of each kind there are."""
        (customers,) = self._database.execute("SELECT count(*) FROM customers").fetchone()
        found = dict(self._database.execute("SELECT kind, count(*) FROM members GROUP BY kind").fetchall())
        return {"Customer": customers, **{kind: found.get(kind, 0) for kind in _KINDS}}

    def books(self) -> Iterator[Book]:
        """The customers one by one, each with what is theirs, oldest first."""
        ids = self._database.execute("SELECT id, payload FROM customers ORDER BY id")
        for customer, payload in ids:
            book = Book(Customer.FromString(payload))
            members = self._database.execute(
                "SELECT kind, payload FROM members WHERE customer = ? ORDER BY place DESC", (customer,)
            )
            for kind, content in members:
                book.add(_KINDS[kind].FromString(content))
            yield book

    def folded(self, object_id: str) -> tuple[str, bytes] | None:
        """Type of the newest event of an object, and the object as it was then; None without any event."""
        row = self._database.execute("SELECT type, payload FROM folded WHERE id = ?", (object_id,)).fetchone()
        return None if row is None else (row[0], row[1])
