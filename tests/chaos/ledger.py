"""The gateway's ledger: which money moved, in an SQLite file that outlives every process.

An entry and the answer for its key are written in one transaction, so that a key that comes again, also after a
kill, is answered as at first. The audit reads the same file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["charge", "refund"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    charge_key TEXT NOT NULL,
    invoice TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    moved INTEGER NOT NULL,
    request BLOB NOT NULL,
    result BLOB NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE TABLE IF NOT EXISTS oddities (what TEXT NOT NULL);
"""
_COLUMNS = "kind, key, charge_key, invoice, attempt, amount, moved, request, result"


class Entry(NamedTuple):
    """What was decided for one key. `moved` tells whether money did; `charge_key` is the refunded charge's."""

    kind: Kind
    key: str
    charge_key: str
    invoice: str
    attempt: int
    amount: int
    moved: bool
    request: bytes
    result: bytes


class Ledger:
    """The file. It is safe against the death of the process, which is what happens here."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def enter(self, entry: Entry) -> Entry:
        """Write an entry down, unless its key is known; return what is known under the key."""
        placeholders = ", ".join("?" * len(Entry._fields))
        self._connection.execute(
            f"INSERT INTO entries ({_COLUMNS}) VALUES ({placeholders}) ON CONFLICT DO NOTHING", entry
        )
        known = self.find(entry.kind, entry.key)
        if known is None:
            raise LookupError(f"the {entry.kind} {entry.key} was written, and is not there")
        if known.request != entry.request:
            self.note(f"the {entry.kind} {entry.key} was sent again with other fields")
        return known

    def find(self, kind: Kind, key: str) -> Entry | None:
        """What is known under a key."""
        found = self._select("kind = ? AND key = ?", kind, key)
        return found[0] if found else None

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return self._select("TRUE")

    def note(self, what: str) -> None:
        """Keep something that no engine may do, for the audit."""
        self._connection.execute("INSERT INTO oddities (what) VALUES (?)", (what,))

    def oddities(self) -> list[str]:
        """What was noted."""
        return [what for (what,) in self._connection.execute("SELECT what FROM oddities ORDER BY rowid")]

    def _select(self, condition: str, *parameters: str) -> list[Entry]:
        query = f"SELECT {_COLUMNS} FROM entries WHERE {condition} ORDER BY rowid"
        return [
            Entry(kind, key, charge_key, invoice, attempt, amount, bool(moved), request, result)
            for kind, key, charge_key, invoice, attempt, amount, moved, request, result in self._connection.execute(
                query, parameters
            )
        ]
