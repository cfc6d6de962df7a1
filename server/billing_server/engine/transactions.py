"""Transactions that are run until it is known whether they took effect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from billing_server.store.errors import CommitUnknown, OutcomeLost, StoreBusy, StoreError, StoreUnavailable
from billing_server.store.store import Store
from billing_server.store.transaction_id import TransactionId
from billing_server.store.unit import Unit

LOGGER = logging.getLogger(__name__)

TRIES_MAX: Final = 5
SECONDS_MAX = 90.0
"""How long one transaction may take before its connection is given up; longer than PostgreSQL waits for us."""

QUESTION_PAUSES: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the questions what became of a transaction, while the database is away."""

T = TypeVar("T")


async def committed(store: Store, account_id: str, body: Callable[[Unit], Awaitable[T]]) -> T:
    """Run a transaction of an account until it is known that it took effect. `body` may be run more than once.

    A connection that breaks during COMMIT says nothing about the outcome (trap 9): the database is asked, and the
    transaction is run again only if it certainly left nothing behind.

    Raises what `body` raises, StoreBusy when others were faster again and again, StoreUnavailable when the database
    is away, and CommitUnknown, which is one, when even the question got no answer, or none that can be relied on.
    """
    tries = 0
    while True:
        tries += 1
        results: list[T] = []
        transaction: TransactionId | None = None
        try:
            async with asyncio.timeout(SECONDS_MAX), store.transaction(account_id) as unit:
                results.append(await body(unit))
                transaction = unit.opening.transaction
            return results[0]
        except StoreBusy as error:
            if tries == TRIES_MAX:
                raise
            LOGGER.info("trying a transaction of %s again: %s", account_id, error)
        except CommitUnknown as error:
            if await took_effect(store, error.transaction):
                return results[0]
            if tries == TRIES_MAX:
                raise StoreUnavailable("the connection to the database was lost again and again") from error
        except TimeoutError as error:
            if results and await took_effect(store, transaction):
                return results[0]
            raise StoreUnavailable("the database did not answer in time") from error


async def took_effect(store: Store, transaction: TransactionId | None) -> bool:
    """Find out what became of a transaction. Raises CommitUnknown when nobody can tell, at all or for long."""
    if transaction is None:
        return False
    for pause in QUESTION_PAUSES:
        try:
            return await store.committed(transaction)
        except OutcomeLost as error:
            raise CommitUnknown(transaction) from error
        except StoreError as error:
            LOGGER.warning("it is not known yet whether transaction %s took effect: %s", transaction, error)
            await asyncio.sleep(pause)
    raise CommitUnknown(transaction)
