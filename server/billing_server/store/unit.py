"""A unit of work: one transaction of one account, in the order in which the engine uses it.

Open (lock books, read the clock), claim (find and lock what is due), load, save. The account's event head
is locked last of all, so that transactions wait for each other only for as long as a commit takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import astuple

from billing_server.domain.account import Account, ApiKey
from billing_server.domain.automation import Automation
from billing_server.domain.book import Book, Reach, Target
from billing_server.domain.catalog import Price, Product
from billing_server.domain.consumer import Consumer
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.message import Message
from billing_server.domain.meter import Meter
from billing_server.domain.metering import Reporter, Tallies
from billing_server.domain.tally import Tally
from billing_server.domain.test_clock import TestClock
from billing_server.store import consumer as consumers
from billing_server.store import event as event_log
from billing_server.store import owners, pages, test_clock, usage
from billing_server.store.account import ACCOUNTS, API_KEYS, ChangedPages
from billing_server.store.book import BOOK_ROWS, BookRow
from billing_server.store.database import Transaction
from billing_server.store.errors import StoreCorrupted
from billing_server.store.event import Appended, EventRow
from billing_server.store.idempotency import IDEMPOTENCY, IdempotencyRow
from billing_server.store.loading import Loader
from billing_server.store.message import MESSAGES
from billing_server.store.saving import SavedBook, Saver
from billing_server.store.test_clock import TEST_CLOCKS
from billing_server.store.transaction_id import TransactionId
from billing_server.store.webhook import WebhookUnit


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit begins with.

    `now` is real time in seconds by the database's clock, read once and after the locks were taken.
    By `transaction` `Store.committed` finds out what became of it.
    `customers` are those of the wanted ones that exist.
    """

    now: int
    transaction: TransactionId
    pages_version: int
    customers: frozenset[str]
    idempotency: dict[str, IdempotencyRow]


class ClockWork(msgspec.Struct, frozen=True):
    """What is left to do for a test clock up to a moment."""

    due: int
    in_flight: int
    next_wake_at: int | None


class Unit:
    """One transaction of one account. Made by `Store.transaction`."""

    def __init__(self, account_id: str, transaction: Transaction) -> None:
        self.account_id = account_id
        self._transaction = transaction
        self._connection = transaction.connection
        self._rows: dict[str, BookRow] = {}
        self._opening: Opening | None = None
        self.appended: Appended | None = None
        """The events that were written, for those who follow them; they count once the transaction is committed."""

    # --- locking

    async def open(self, customers: Iterable[str] = (), idempotency_keys: Iterable[str] = ()) -> Opening:
        """Lock the books of some customers, then read the clock, the pages' version and the idempotency keys.

        Waits for whoever works on one of the books. Raises ResourceMissing when there is no such account.
        """
        wanted = sorted(set(customers))
        if wanted:
            await self._lock(BOOK_ROWS.queries["lock"], wanted)
        record = await self._connection.fetchrow(ACCOUNTS.queries["opening"], self.account_id)
        if record is None or record["pages_version"] is None:
            raise ResourceMissing("account", self.account_id)
        keys = sorted(set(idempotency_keys))
        known = await self._connection.fetch(IDEMPOTENCY.queries["find"], self.account_id, keys) if keys else []
        self._opening = Opening(
            now=record["now"],
            transaction=self._transaction.number(record["transaction"]),
            pages_version=record["pages_version"],
            customers=frozenset(self._rows),
            idempotency={row.key: row for row in IDEMPOTENCY.decode(known)},
        )
        return self._opening

    async def claim_due(self, limit: int, until: int | None = None, test_clock: str | None = None) -> list[str]:
        """Lock up to `limit` books due at `until` (default: now); return their customers, earliest first.

        Without a test clock, books on real time; with one, its books. Skips books that others work on, and
        books with a charge under way.
        """
        moment = self.opening.now if until is None else until
        if test_clock is None:
            return await self._lock(BOOK_ROWS.queries["claim_due"], moment, limit)
        return await self._lock(BOOK_ROWS.queries["claim_due_on_clock"], moment, limit, test_clock)

    async def claim_checks(self, limit: int) -> list[str]:
        """Lock up to `limit` books with an unresolved charge or refund that must be looked at by now."""
        return await self._lock(BOOK_ROWS.queries["claim_checks"], self.opening.now, limit)

    async def _lock(self, query: str, *parameters: object) -> list[str]:
        rows = BOOK_ROWS.decode(await self._connection.fetch(query, self.account_id, *parameters))
        self._rows.update((row.customer, row) for row in rows)
        return [row.customer for row in rows]

    def overdue(self) -> set[str]:
        """The locked books on real time of which something is due by now, with no charge under way."""
        now = self.opening.now
        return {
            customer
            for customer, row in self._rows.items()
            if row.wake_at is not None and row.wake_at <= now and row.test_clock is None and not row.in_flight
        }

    def wake_at(self, customer: str) -> int:
        """When a claimed book was due."""
        moment = self._rows[customer].wake_at
        if moment is None:
            raise AssertionError(f"the book of {customer} was claimed but is not due")
        return moment

    @property
    def opening(self) -> Opening:
        """What `open` returned."""
        if self._opening is None:
            raise AssertionError("a unit is opened before anything else")
        return self._opening

    # --- books

    async def owners(self, targets: Iterable[Target]) -> dict[Target, str]:
        """The customers of some objects; objects that do not exist are left out."""
        return await owners.of_targets(self._connection, self.account_id, targets)

    async def load(self, reaches: Mapping[str, Reach]) -> dict[str, Book]:
        """Load locked books by customer, each as far as its reach goes; unknown customers are left out."""
        known = {customer: reach for customer, reach in reaches.items() if customer in self._rows}
        return await Loader(self._connection, self.account_id, self._rows).load(known)

    async def save(
        self,
        saved: Sequence[SavedBook],
        events: Sequence[EventRow] = (),
        idempotency: Sequence[IdempotencyRow] = (),
        messages: Sequence[Message] = (),
    ) -> int | None:
        """Write what changed in the books, then the messages and answers, then the events; call it once, last.

        Returns the position of the last event, None without events. Raises AlreadyExists, StoreBusy (another
        transaction used one of the keys first: try again) and StoreCorrupted.
        """
        await Saver(self._transaction, self.account_id, self._rows).save(saved)
        await self._stage(messages)
        await self._save_idempotency(idempotency)
        if not events:
            return None
        rows = list(map(astuple, events))
        position: int | None = await self._connection.fetchval(
            event_log.QUERIES["append"], self.account_id, len(rows), rows, self.opening.now
        )
        if position is None:
            raise StoreCorrupted(f"account {self.account_id} has no event head")
        self.appended = Appended(events, position)
        return position

    async def _stage(self, messages: Sequence[Message]) -> None:
        if messages:
            query = MESSAGES.queries["insert"]
            await self._connection.execute(query, self.account_id, MESSAGES.encode(messages))
            self._transaction.inserted[MESSAGES.table] += len(messages)

    async def _save_idempotency(self, rows: Sequence[IdempotencyRow]) -> None:
        known = self.opening.idempotency
        for query, some in (
            ("insert", [row for row in rows if row.key not in known]),
            ("update", [row for row in rows if row.key in known]),
        ):
            if some:
                await self._connection.execute(IDEMPOTENCY.queries[query], self.account_id, IDEMPOTENCY.encode(some))

    async def park(self, until: Mapping[str, int]) -> None:
        """Postpone books that failed to advance, each until a moment of its own."""
        query = BOOK_ROWS.queries["park"]
        await self._connection.execute(query, self.account_id, list(until), list(until.values()))

    # --- the account's pages

    async def load_pages(self, since_version: int = 0, *, lock: bool = False) -> ChangedPages:
        """The account, and what changed of its other pages after a version.

        With `lock`, no other transaction changes the pages until this one ends: for commands that do so.
        Raises ResourceMissing when there is no such account.
        """
        query = ACCOUNTS.queries["lock" if lock else "load"]
        record = await self._connection.fetchrow(query, self.account_id)
        if record is None:
            raise ResourceMissing("account", self.account_id)
        return await pages.load_changed(self._connection, self.account_id, record, since_version)

    async def save_pages(
        self,
        *,
        account: Account | None = None,
        products: Sequence[Product] = (),
        prices: Sequence[Price] = (),
        meters: Sequence[Meter] = (),
        automations: Sequence[Automation] = (),
    ) -> int:
        """Write new and changed pages, already locked by `load_pages`; return their new version.

        Raises AlreadyExists when another price has the lookup key.
        """
        version: int = await self._connection.fetchval(ACCOUNTS.queries["next_pages_version"], self.account_id)
        if account is not None:
            await self._connection.execute(ACCOUNTS.queries["update"], self.account_id, ACCOUNTS.encode([account]))
        await pages.save(self._connection, self.account_id, version, products, prices, meters, automations)
        return version

    # --- usage

    async def reporters(self, customers: Iterable[str]) -> dict[str, Reporter]:
        """The customers that exist, as far as it matters for their events; their test clocks stand until the end."""
        return await usage.reporters(self._connection, self.account_id, customers)

    async def microseconds(self) -> int:
        """Real time by the database's clock."""
        return await usage.microseconds(self._connection)

    async def insert_meter_events(self, rows: Sequence[usage.EventRow]) -> set[int]:
        """Write events, and tell by their moments of receipt which of them were not there yet."""
        inserted = await usage.insert_events(self._connection, self.account_id, rows)
        self._transaction.inserted["meter_events"] += len(inserted)
        return inserted

    async def save_tallies(self, added: Tallies, replaced: Tallies) -> None:
        """Add to tallies by minute and hour, and replace those of windows; both in the order of their buckets."""
        await usage.save_tallies(self._connection, self.account_id, added, replaced)
        self._transaction.inserted["meter_tallies"] += len(added) + len(replaced)

    async def read_usage(self, wanted: Sequence[usage.WantedSpan]) -> list[Tally]:
        """The tallies of some spans, in their order."""
        return await usage.read(self._connection, self.account_id, wanted)

    # --- consumers

    async def event_span(self) -> tuple[int, int]:
        """Position of the oldest event that is kept, or will be, and of the last one."""
        head = await event_log.head(self._connection, self.account_id)
        oldest: int | None = await self._connection.fetchval(event_log.QUERIES["oldest"], self.account_id)
        return (head + 1 if oldest is None else oldest), head

    async def create_consumer(self, consumer: Consumer, position: int) -> None:
        """Keep a new consumer that begins behind a position. Raises AlreadyExists."""
        await consumers.create(self._connection, self.account_id, consumer, position)

    async def count_consumers(self) -> int:
        """How many consumers the account has, this transaction's included; nobody else creates one until it ends."""
        return await consumers.count(self._connection, self.account_id)

    async def lock_consumer(self, name: str) -> Consumer:
        """The consumer, locked until the transaction ends. Raises ResourceMissing."""
        return await consumers.lock(self._connection, self.account_id, name)

    async def update_consumer(self, consumer: Consumer) -> None:
        """Keep a changed consumer, locked before."""
        rows = consumers.CONSUMERS
        await self._connection.execute(rows.queries["update"], self.account_id, rows.encode([consumer]))

    async def seek_consumer(self, name: str, position: int) -> None:
        """Move a locked consumer behind a position."""
        await consumers.seek(self._connection, self.account_id, name, position)

    async def delete_consumer(self, name: str) -> None:
        """Delete a locked consumer."""
        await self._connection.execute(consumers.CONSUMERS.queries["delete"], self.account_id, name)

    async def consumer_progress(self, name: str) -> consumers.Progress:
        """How far a consumer that exists has come."""
        return (await consumers.progress(self._connection, self.account_id, [name]))[name]

    async def retry_parked(self, name: str, positions: Sequence[int] | None) -> tuple[int, int]:
        """Ask for parked events to be tried again; how many will be, and how many are no longer kept."""
        return await consumers.retry(self._connection, self.account_id, name, positions)

    async def drop_parked(self, name: str, positions: Sequence[int] | None) -> int:
        """Forget parked events (None: all); return how many."""
        query = consumers.PARKED.queries["drop"]
        return await self._connection.execute(query, self.account_id, name, positions)

    # --- API keys

    async def insert_api_key(self, key: ApiKey, secret_hash: bytes) -> None:
        """Keep a new key, by the hash of its secret."""
        query = API_KEYS.queries["insert"]
        await self._connection.execute(query, self.account_id, API_KEYS.encode([key]), secret_hash)

    async def update_api_key(self, key: ApiKey) -> None:
        """Keep a changed key; revoking one is such a change."""
        await self._connection.execute(API_KEYS.queries["update"], self.account_id, API_KEYS.encode([key]))

    # --- webhooks

    @property
    def webhooks(self) -> WebhookUnit:
        """The account's webhooks, in this transaction."""
        return WebhookUnit(self.account_id, self._transaction)

    # --- test clocks

    async def insert_test_clock(self, clock: TestClock) -> None:
        """Keep a new test clock."""
        await self._connection.execute(TEST_CLOCKS.queries["insert"], self.account_id, TEST_CLOCKS.encode([clock]))

    async def lock_test_clock(self, clock_id: str) -> TestClock:
        """The test clock, locked until the transaction ends. Raises ResourceMissing."""
        found = await self._connection.fetch(TEST_CLOCKS.queries["lock"], self.account_id, clock_id)
        if not found:
            raise ResourceMissing("test_clock", clock_id)
        return TEST_CLOCKS.decode(found)[0]

    async def update_test_clock(self, clock: TestClock) -> None:
        """Keep a moved or otherwise changed test clock, locked before."""
        await self._connection.execute(TEST_CLOCKS.queries["update"], self.account_id, TEST_CLOCKS.encode([clock]))

    async def delete_test_clock(self, clock_id: str) -> int:
        """Delete a locked test clock with its customers and all that is theirs; return how many they were."""
        return await test_clock.delete_with_customers(self._connection, self.account_id, clock_id)

    async def clock_work(self, clock_id: str, until: int) -> ClockWork:
        """What is left to do for a test clock up to a moment."""
        query = BOOK_ROWS.queries["clock_work"]
        (record,) = await self._connection.fetch(query, self.account_id, clock_id, until)
        return ClockWork(*record)
