"""Saving many books at once: a fixed handful of statements, whatever their number.

What has changed is what is no longer the same object: a new id is inserted, another object updated, the same
object left alone, an id that is gone deleted. Of many rows that changed in the same columns, only those are
written, which is half the work of writing them whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from billing_server.domain.book import Book
from billing_server.store.book import BOOK_ROWS, KINDS, BookRow, row_of
from billing_server.store.customer import CUSTOMERS
from billing_server.store.database import Transaction
from billing_server.store.errors import StoreCorrupted
from billing_server.store.rows import Rows

SavedBook: TypeAlias = tuple[Book | None, Book]
"""A book before (None: its customer is new) and after."""

_ALIKE_MIN: Final = 16
"""From how many rows on a statement for just their changed columns is worth having."""


class _Changes:
    """What became of one kind of object in all books."""

    __slots__ = ("deleted", "inserted", "updated")

    def __init__(self) -> None:
        self.inserted: list[Any] = []
        self.updated: list[tuple[Any, Any]] = []
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
                self.updated.append((known, item))
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
                customers.updated.append((before.customer, after.customer))
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
        if changes.deleted:
            await self._execute(rows, rows.queries["delete"], len(changes.deleted), changes.deleted)
        if changes.updated:
            await self._update(rows, changes.updated)
        if changes.inserted:
            await self._execute(rows, rows.queries["insert"], len(changes.inserted), rows.encode(changes.inserted))
            self._inserted[rows.table] += len(changes.inserted)

    async def _update(self, rows: Rows[Any], updated: Sequence[tuple[Any, Any]]) -> None:
        """Write rows that changed alike by their changed columns, all others whole."""
        whole = updated
        if len(updated) >= _ALIKE_MIN:
            whole = []
            alike: dict[tuple[int, ...], list[tuple[Any, Any]]] = defaultdict(list)
            for pair in updated:
                alike[rows.changed(*pair)].append(pair)
            for changed, pairs in alike.items():
                statement = rows.update_of(changed) if len(pairs) >= _ALIKE_MIN else None
                if statement is None:
                    whole += pairs
                else:
                    columns = statement.encode([after for _, after in pairs])
                    await self._execute(rows, statement.sql, len(pairs), *columns)
        if whole:
            encoded = rows.encode([after for _, after in whole])
            await self._execute(rows, rows.queries["update"], len(whole), encoded)

    async def _execute(self, rows: Rows[Any], query: str, count: int, *parameters: object) -> None:
        written = await self._connection.execute(query, self._account_id, *parameters)
        if written != count:
            verb = query.split(maxsplit=1)[0].lower()
            raise StoreCorrupted(f"{verb} of {rows.table} hit {written} rows instead of {count}")

    async def _write_book_rows(self, saved: Sequence[SavedBook]) -> None:
        inserted, updated = [], []
        for before, after in saved:
            row = row_of(after)
            if before is None:
                inserted.append(row)
            elif self._rows[row.customer] != row:
                updated.append(row)
            self._rows[row.customer] = row
        for query, some in (("update", updated), ("insert", inserted)):
            if some:
                await self._execute(BOOK_ROWS, BOOK_ROWS.queries[query], len(some), BOOK_ROWS.encode(some))
        self._inserted[BOOK_ROWS.table] += len(inserted)
