"""The store: what the engine and the API edge know of the database.

store.transaction(account)   a unit of work: lock, load, save, commit
store.view(account)          reading, without locks
the rest                     what belongs to no account, or is asked before the account is known
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

from billing_server.domain.account import Account, ApiKey
from billing_server.domain.message import Message
from billing_server.store import consumer as consumers
from billing_server.store import event as event_log
from billing_server.store import usage
from billing_server.store.account import ACCOUNTS, API_KEYS
from billing_server.store.book import BOOK_ROWS
from billing_server.store.database import Connection, Database, PoolWaits, account_setting
from billing_server.store.errors import OutcomeLost, StoreCorrupted, StoreError
from billing_server.store.idempotency import IDEMPOTENCY
from billing_server.store.message import MESSAGES, Tried
from billing_server.store.notifications import Listener, notification_payloads
from billing_server.store.test_clock import TEST_CLOCKS
from billing_server.store.test_gateway import GATEWAY_ROWS, GatewayRow, RememberedRow
from billing_server.store.transaction_id import TransactionId
from billing_server.store.unit import Unit
from billing_server.store.view import View
from billing_server.store.webhook import CURSORS, WEBHOOK_DELIVERIES, WebhookBacklog, WebhookUnit

_SWEEP: Final = "SET LOCAL app.sweep = 'on'"
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]{2,128}")
_OUTCOME_POLL_SECONDS: Final = 0.05
_OUTCOME_POLLS_MAX: Final = 200
_PURGED_AT_ONCE: Final = 5_000


class Store:
    """One PostgreSQL, as one server process uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        min_connections: int = 2,
        max_connections: int = 10,
        acquire_seconds_max: float = 10.0,
    ) -> Store:
        """Connect to a migrated database. Raises StoreUnavailable."""
        database = await Database.open(
            dsn,
            min_connections=min_connections,
            max_connections=max_connections,
            acquire_seconds_max=acquire_seconds_max,
        )
        return cls(database)

    @property
    def waits(self) -> PoolWaits:
        """How long work has waited for a connection of the pool."""
        return self._database.waits

    async def close(self) -> None:
        """Close all connections, when the work on them is done."""
        await self._database.close()

    @contextlib.asynccontextmanager
    async def transaction(self, account_id: str, *, timeout_seconds: float | None = None) -> AsyncIterator[Unit]:
        """A unit of work that commits when the block ends well and leaves nothing behind otherwise.

        `timeout_seconds` limits each statement. Raises what `store.errors` lists; `CommitUnknown` when the
        connection broke while committing.
        """
        async with self._database.transaction(
            account_setting(account_id), timeout_seconds=timeout_seconds
        ) as transaction:
            yield Unit(account_id, transaction)

    @contextlib.asynccontextmanager
    async def view(self, account_id: str, *, timeout_seconds: float | None = None) -> AsyncIterator[View]:
        """Reading of one account, in a short transaction of its own."""
        async with self._database.transaction(
            account_setting(account_id), read_only=True, timeout_seconds=timeout_seconds
        ) as transaction:
            yield View(account_id, transaction.connection)

    async def committed(self, transaction: TransactionId) -> bool:
        """Whether a transaction took effect; waits for one that is still ending.

        Raises OutcomeLost when nobody can tell any more, StoreError when it is not decided in time.
        """
        for _ in range(_OUTCOME_POLLS_MAX):
            async with self._database.connection() as connection:
                status = await _status(connection, transaction.number)
                recovery = connection.recovery
            if status == "aborted":
                return False
            if status == "committed" and recovery == transaction.recovery:
                return True
            if status == "committed":
                # The number may be another transaction's by now.
                raise OutcomeLost(f"the outcome of transaction {transaction} is not known: the database has crashed")
            if status is None:
                raise OutcomeLost(f"the outcome of transaction {transaction} is not known any more")
            await asyncio.sleep(_OUTCOME_POLL_SECONDS)
        raise StoreError(f"the outcome of transaction {transaction} is not known yet")

    # --- accounts and keys

    async def create_account(self, account: Account) -> bool:
        """Keep a new account; False when there is one with this id already."""
        async with self._database.transaction(account_setting(account.id)) as transaction:
            connection = transaction.connection
            inserted = await connection.execute(ACCOUNTS.queries["insert"], account.id, ACCOUNTS.encode([account]))
            if not inserted:
                return False
            await connection.execute(ACCOUNTS.queries["insert_head"], account.id)
            return True

    async def account_ids(self) -> list[str]:
        """The ids of all accounts, in order."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            records = await transaction.connection.fetch(ACCOUNTS.queries["all"])
            return [record[0] for record in records]

    async def find_api_key(self, secret_hash: bytes) -> tuple[str, ApiKey] | None:
        """The account and the key whose secret has this hash, revoked ones included."""
        digits = secret_hash.hex()
        if not _HEXADECIMAL.fullmatch(digits):
            return None
        setting = f"SET LOCAL app.key_hash = '{digits}'"
        async with self._database.transaction(setting, read_only=True) as transaction:
            found = await transaction.connection.fetch(API_KEYS.queries["find"], secret_hash)
            return (found[0][0], API_KEYS.decode(found, skip=1)[0]) if found else None

    # --- time

    async def due_accounts(self, now: int | None = None) -> list[str]:
        """Accounts with books that are due, or have to be checked, now by the database's clock (or at `now`)."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            records = await transaction.connection.fetch(BOOK_ROWS.queries["accounts_with_due_books"], now)
            return [record[0] for record in records]

    async def due_backlog(self) -> tuple[int, int, int]:
        """How many books are due by the database's clock, for how many seconds the first has been, how many have
        charges or refunds without a known outcome.
        """
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            (record,) = await transaction.connection.fetch(BOOK_ROWS.queries["due_backlog"])
            return record[0], record[1], record[2]

    async def advancing_clocks(self) -> list[tuple[str, str]]:
        """Accounts and ids of all test clocks that are on their way."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            records = await transaction.connection.fetch(TEST_CLOCKS.queries["advancing"])
            return [(record[0], record[1]) for record in records]

    async def seconds_to_next_wake(self, account_id: str) -> float | None:
        """How long until the account's next book is due by the database's clock, or must be checked."""
        async with self._database.transaction(account_setting(account_id), read_only=True) as transaction:
            query = BOOK_ROWS.queries["next_wake_of_account"]
            seconds: float | None = await transaction.connection.fetchval(query, account_id)
            return seconds

    # --- messages

    async def accounts_with_due_messages(self) -> list[str]:
        """Accounts with e-mails that are to be tried now, by the database's clock."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            records = await transaction.connection.fetch(MESSAGES.queries["accounts_with_due"])
            return [record[0] for record in records]

    async def claim_messages(self, account_id: str, limit: int, lease_seconds: int) -> list[Message]:
        """Take up to `limit` due messages, longest due first, so that nobody else sends them for so long."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            query = MESSAGES.queries["claim"]
            return MESSAGES.decode(await transaction.connection.fetch(query, account_id, limit, lease_seconds))

    async def settle_messages(self, account_id: str, tried: Sequence[Tried]) -> int:
        """Keep what became of claimed messages; return of how many it was still to be kept."""
        columns = [[getattr(entry, name) for entry in tried] for name in ("id", "attempts", "error", "wait")]
        async with self._database.transaction(account_setting(account_id)) as transaction:
            return await transaction.connection.execute(MESSAGES.queries["settle"], account_id, *columns)

    async def purge_messages(self, account_id: str, before: int) -> int:
        """Drop a slice of the messages settled before a moment of real time; 0 when none is left."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            query = MESSAGES.queries["purge"]
            return await transaction.connection.execute(query, account_id, before, _PURGED_AT_ONCE)

    # --- consumers

    async def meet_consumer(self, account_id: str, share: consumers.Share, lease_seconds: float) -> consumers.Met:
        """Renew the lease of a consumer's connection and settle what it works on. Raises ResourceMissing."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            return await consumers.meet(transaction.connection, account_id, share, lease_seconds)

    async def store_share(self, account_id: str, share: consumers.Share) -> consumers.Stored:
        """Store how far a consumer's connection has come."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            return await consumers.store(transaction.connection, account_id, share)

    async def leave_consumer(self, account_id: str, share: consumers.Share) -> None:
        """Store how far a consumer's connection has come, and leave all of its work to others."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            await consumers.leave(transaction.connection, account_id, share)

    # --- webhooks

    @contextlib.asynccontextmanager
    async def webhooks(self, account_id: str) -> AsyncIterator[WebhookUnit]:
        """A transaction on the account's webhooks alone."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            yield WebhookUnit(account_id, transaction)

    async def accounts_with_webhooks(self) -> list[str]:
        """Accounts that have enabled endpoints."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            records = await transaction.connection.fetch(CURSORS["accounts"])
            return [record[0] for record in records]

    async def webhook_endpoints_behind(self) -> list[tuple[str, str]]:
        """Accounts and ids of the endpoints for which there are events that nobody has looked at."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            records = await transaction.connection.fetch(CURSORS["behind"])
            return [(record[0], record[1]) for record in records]

    async def webhook_endpoints_due(self, now: int | None = None) -> list[tuple[str, str, int]]:
        """Accounts, ids and failures in a row of the endpoints with deliveries to try, now or at `now`; well ones
        first."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            connection = transaction.connection
            moment = await connection.fetchval(CURSORS["now"]) if now is None else now
            records = await connection.fetch(CURSORS["due"], moment)
            return [(record[0], record[1], record[2]) for record in records]

    async def webhook_backlog(self) -> WebhookBacklog:
        """What waits to be sent."""
        async with self._database.transaction(_SWEEP, read_only=True) as transaction:
            connection = transaction.connection
            moment = await connection.fetchval(CURSORS["now"])
            (record,) = await connection.fetch(CURSORS["backlog"], moment)
            return WebhookBacklog(*record)

    async def purge_webhook_deliveries(self, account_id: str, before: int) -> int:
        """Drop a slice of the deliveries settled before a moment of real time; 0 when none is left."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            query = WEBHOOK_DELIVERIES.queries["purge"]
            return await transaction.connection.execute(query, account_id, before, _PURGED_AT_ONCE)

    # --- housekeeping

    async def purge_idempotency(self, account_id: str, before: int) -> int:
        """Drop keys created before a moment of real time; return how many."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            return await transaction.connection.execute(IDEMPOTENCY.queries["purge"], account_id, before)

    async def purge_events(self, account_id: str, before: int) -> int:
        """Drop a slice of the events that happened before a moment of real time; 0 when none is left."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            query = event_log.QUERIES["purge"]
            return await transaction.connection.execute(query, account_id, before, _PURGED_AT_ONCE)

    async def purge_meter_events(self, account_id: str, before: int) -> int:
        """Drop a slice of the meter events received before a moment of real time; 0 when none is left to drop.

        Those at the ends of spans that are still to be billed stay.
        """
        return await self._purge_usage(account_id, "purge_events", before)

    async def purge_minutes(self, account_id: str, before: int) -> int:
        """The same for tallies by minute; those by hour stay for good."""
        return await self._purge_usage(account_id, "purge_minutes", before)

    async def _purge_usage(self, account_id: str, query: str, before: int) -> int:
        async with self._database.transaction(account_setting(account_id)) as transaction:
            moment = before * 1_000_000
            return await transaction.connection.execute(usage.QUERIES[query], account_id, moment, _PURGED_AT_ONCE)

    async def test_clocks_over(self, account_id: str, now: int) -> list[str]:
        """Some of the test clocks whose lifetime is over at a moment of real time, by id; the others come later."""
        async with self._database.transaction(account_setting(account_id)) as transaction:
            query = TEST_CLOCKS.queries["over"]
            return [record[0] for record in await transaction.connection.fetch(query, account_id, now, _PURGED_AT_ONCE)]

    # --- waking readers

    async def notify(self, account_ids: Iterable[str]) -> None:
        """Tell all listening processes that these accounts have new events. Never call it in a transaction.

        NOTIFY takes a lock that all committing transactions share; so it is sent once for many commits.
        """
        async with self._database.connection() as connection:
            for payload in notification_payloads(account_ids):
                await connection.execute(ACCOUNTS.queries["notify"], payload)

    def listen(self, callback: Callable[[frozenset[str] | None], None]) -> Listener:
        """Call back with the accounts that have new events; with None when some may have been missed.

        Returns a listener with a connection of its own, to be started and closed.
        """
        return Listener(self._database.dsn, callback)

    # --- the memory of the test gateway

    async def remember_charges(self, account_id: str, rows: Sequence[GatewayRow]) -> dict[str, RememberedRow]:
        """Keep what the test gateway did, by key; a known key keeps what it did first, which is returned."""
        return await self._gateway(account_id, "remember_charges", GATEWAY_ROWS.encode(rows))

    async def remember_refunds(self, account_id: str, rows: Sequence[GatewayRow]) -> dict[str, RememberedRow]:
        """The same for refunds."""
        return await self._gateway(account_id, "remember_refunds", GATEWAY_ROWS.encode(rows))

    async def find_charges(self, account_id: str, keys: Sequence[str]) -> dict[str, RememberedRow]:
        """What the test gateway did under some keys."""
        return await self._gateway(account_id, "find_charges", list(keys))

    async def find_refunds(self, account_id: str, keys: Sequence[str]) -> dict[str, RememberedRow]:
        """The same for refunds."""
        return await self._gateway(account_id, "find_refunds", list(keys))

    async def _gateway(self, account_id: str, query: str, parameter: Sequence[object]) -> dict[str, RememberedRow]:
        async with self._database.transaction(account_setting(account_id)) as transaction:
            records = await transaction.connection.fetch(GATEWAY_ROWS.queries[query], account_id, parameter)
        rows = GATEWAY_ROWS.decode(records, skip=1)
        return {row.key: RememberedRow(row=row, asked=record[0]) for row, record in zip(rows, records, strict=True)}


async def _status(connection: Connection, number: int) -> str | None:
    """What PostgreSQL says of a transaction: committed, aborted, in progress; None when it is long ago."""
    try:
        status: str | None = await connection.fetchval(ACCOUNTS.queries["status_of_transaction"], str(number))
    except StoreCorrupted:
        # No such number was given yet: a crash lost the transaction, and nothing was left of it.
        return "aborted"
    return status
