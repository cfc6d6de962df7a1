"""What can go wrong between the engine and PostgreSQL.

    StoreError
    ├── StoreUnavailable       the database cannot be reached, or is going away; try again later
    │   └── CommitUnknown      the connection broke while committing: ask `Store.committed(transaction)`
    ├── OutcomeLost            nobody can tell any more whether a transaction took effect
    ├── StoreBusy              a deadlock, or another process was faster; the same work may be tried again now
    ├── StoreTimeout           the work took longer than the time it was given; nothing was written
    └── StoreCorrupted         the database refuses the rows or disagrees with the books; never try again

What a caller can be told about is raised as a domain error instead (`AlreadyExists` for a key that is taken).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import asyncpg

from billing_server.domain.errors import AlreadyExists
from billing_server.store.transaction_id import TransactionId


class StoreError(Exception):
    """The database did not do what was asked; nothing was written unless a subclass says otherwise."""


class StoreUnavailable(StoreError):
    """No connection to the database, or none in time."""


class CommitUnknown(StoreUnavailable):
    """The connection broke during COMMIT, so it is not known whether `transaction` took effect."""

    def __init__(self, transaction: TransactionId | None) -> None:
        super().__init__("the connection was lost while committing")
        self.transaction = transaction


class OutcomeLost(StoreError):
    """Nobody can tell any more whether a transaction took effect, however long one asks."""


class StoreBusy(StoreError):
    """Deadlock, serialization failure, or a key that a concurrent transaction wrote first; try again."""


class StoreTimeout(StoreError):
    """`statement_timeout` or the time to wait for a connection ran out."""


class StoreCorrupted(StoreError):
    """A statement hit other rows than the books say, or broke a constraint; retrying cannot help."""


DRIVER_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""All that the driver raises when a connection does not do what it should."""

_TAKEN: Final = {
    "prices_account_id_lookup_key_key": (
        "lookup_key",
        "another price has this lookup key; transfer it, or use another",
    ),
    "meters_active_event_name": ("event_name", "another active meter has this event name; use another"),
    "consumers_pkey": ("name", "another consumer has this name; use another"),
    "customers_account_id_invoice_prefix_key": (
        "invoice_prefix",
        "another customer has this invoice prefix; use another",
    ),
}
"""Unique constraints on what callers choose: the field, and the way out."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into those above, so that no other room needs to know the driver."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise _unique_violation(error) from error
    except (
        asyncpg.DeadlockDetectedError,
        asyncpg.SerializationError,
        asyncpg.LockNotAvailableError,
    ) as error:
        raise StoreBusy(str(error)) from error
    except asyncpg.QueryCanceledError as error:
        raise StoreTimeout("the statement was canceled by its time limit") from error
    except (
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.DataError,
        asyncpg.InsufficientPrivilegeError,
    ) as error:
        raise StoreCorrupted(str(error)) from error
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        # The server has said that it goes away, and the driver has not yet seen it go.
        asyncpg.InternalClientError,
        OSError,
    ) as error:
        raise StoreUnavailable(f"the database is not available: {error!r}") from error
    except asyncpg.InterfaceError as error:
        # The driver refuses values that do not fit a column by the same class as work on a lost connection.
        if isinstance(error, ValueError):
            raise StoreCorrupted(str(error)) from error
        raise StoreUnavailable(f"the connection is not usable: {error}") from error
    except asyncpg.PostgresError as error:
        raise StoreError(str(error)) from error


def _unique_violation(error: asyncpg.UniqueViolationError) -> Exception:
    """Keys that callers choose are theirs to change; all others mean that somebody was faster."""
    taken = _TAKEN.get(error.constraint_name or "")
    if taken is None:
        return StoreBusy(f"another transaction wrote {error.constraint_name} first")
    field, description = taken
    return AlreadyExists("resource_already_exists", description, field=field)
