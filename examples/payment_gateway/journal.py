"""What the gateway has been asked, and what became of it, in an SQLite file.

A request is written down, durably, before the processor hears of it. So a repeated key is recognized after
any crash, and a request that was interrupted is found and finished.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["charge", "refund"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    kind TEXT NOT NULL,
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    result BLOB,
    charge_reference TEXT,
    PRIMARY KEY (kind, account, key)
);
CREATE INDEX IF NOT EXISTS requests_of_charge ON requests (account, charge_reference);
"""


class Entry(NamedTuple):
    """One request. `result` is None until it is decided."""

    kind: Kind
    account: str
    key: str
    request: bytes
    result: bytes | None


class Journal:
    """The file. SQLite answers so fast that its calls are simply made in the event loop."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin(self, kind: Kind, account: str, key: str, request: bytes, charge_reference: str | None) -> Entry:
        """Write a request down, unless its key is known; return what is known under the key, the first request."""
        self._connection.execute(
            "INSERT INTO requests (kind, account, key, request, charge_reference) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (kind, account, key, request, charge_reference),
        )
        entry = self.find(kind, account, key)
        if entry is None:
            raise LookupError(f"the {kind} {key} was written, and is not there")
        return entry

    def finish(self, entry: Entry, result: bytes, charge_reference: str | None) -> None:
        """Write down what became of a request."""
        self._connection.execute(
            "UPDATE requests SET result = ?, charge_reference = ? WHERE kind = ? AND account = ? AND key = ?",
            (result, charge_reference, entry.kind, entry.account, entry.key),
        )

    def find(self, kind: Kind, account: str, key: str) -> Entry | None:
        """What is known under a key."""
        rows = self._select("kind = ? AND account = ? AND key = ?", kind, account, key)
        return rows[0] if rows else None

    def undecided(self) -> list[Entry]:
        """Requests that were interrupted."""
        return self._select("result IS NULL")

    def of_charge(self, account: str, charge_reference: str) -> list[Entry]:
        """A charge and its refunds."""
        return self._select("account = ? AND charge_reference = ?", account, charge_reference)

    def _select(self, condition: str, *parameters: str) -> list[Entry]:
        query = f"SELECT kind, account, key, request, result FROM requests WHERE {condition} ORDER BY rowid"  # noqa: S608  conditions are written in this class
        return [Entry(*row) for row in self._connection.execute(query, parameters)]
