"""Read models: objects by id, lists, and events, without locks; each query as of the moment when it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from billing_server.domain.account import Account
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.tally import Tally
from billing_server.store import consumer as consumers
from billing_server.store import event as event_log
from billing_server.store import owners, pages, usage
from billing_server.store.account import ACCOUNTS, API_KEYS, ApiKeyFilter, ChangedPages
from billing_server.store.automation import AUTOMATION_RUNS, AUTOMATIONS, AutomationFilter, AutomationRunFilter
from billing_server.store.catalog import PRICES, PRODUCTS, PriceFilter, ProductFilter
from billing_server.store.consumer import CONSUMERS, ConsumerFilter
from billing_server.store.customer import (
    BALANCE_TRANSACTIONS,
    CUSTOMERS,
    PAYMENT_METHODS,
    BalanceTransactionFilter,
    CustomerFilter,
    PaymentMethodFilter,
)
from billing_server.store.database import Connection
from billing_server.store.event import EVERYTHING, EventFilter, EventPage, PayloadPage, StoredEvent
from billing_server.store.idempotency import IDEMPOTENCY, IdempotencyRow
from billing_server.store.invoice import (
    CREDIT_NOTES,
    INVOICE_ITEMS,
    INVOICES,
    CreditNoteFilter,
    InvoiceFilter,
    InvoiceItemFilter,
)
from billing_server.store.listing import Cursor, Filter, Page, fetch_page
from billing_server.store.message import MESSAGES, MessageFilter
from billing_server.store.meter import METERS, MeterFilter
from billing_server.store.payment import PAYMENT_ATTEMPTS, REFUNDS, PaymentAttemptFilter, RefundFilter
from billing_server.store.rows import Rows
from billing_server.store.schedule import SCHEDULES, ScheduleFilter
from billing_server.store.subscription import SUBSCRIPTIONS, SubscriptionFilter
from billing_server.store.test_clock import TEST_CLOCKS, TestClockFilter
from billing_server.store.webhook import (
    WEBHOOK_DELIVERIES,
    WEBHOOK_ENDPOINTS,
    WebhookDeliveryFilter,
    WebhookEndpointFilter,
)

T = TypeVar("T", bound=msgspec.Struct)

_LISTED: Final[Mapping[type[Filter[Any]], Rows[Any]]] = {
    ApiKeyFilter: API_KEYS,
    AutomationFilter: AUTOMATIONS,
    AutomationRunFilter: AUTOMATION_RUNS,
    BalanceTransactionFilter: BALANCE_TRANSACTIONS,
    ConsumerFilter: CONSUMERS,
    CreditNoteFilter: CREDIT_NOTES,
    CustomerFilter: CUSTOMERS,
    InvoiceFilter: INVOICES,
    InvoiceItemFilter: INVOICE_ITEMS,
    MeterFilter: METERS,
    MessageFilter: MESSAGES,
    PaymentAttemptFilter: PAYMENT_ATTEMPTS,
    PaymentMethodFilter: PAYMENT_METHODS,
    PriceFilter: PRICES,
    ProductFilter: PRODUCTS,
    RefundFilter: REFUNDS,
    ScheduleFilter: SCHEDULES,
    SubscriptionFilter: SUBSCRIPTIONS,
    TestClockFilter: TEST_CLOCKS,
    WebhookDeliveryFilter: WEBHOOK_DELIVERIES,
    WebhookEndpointFilter: WEBHOOK_ENDPOINTS,
}
_ROWS: Final[Mapping[type[msgspec.Struct], Rows[Any]]] = {rows.struct: rows for rows in _LISTED.values()}


class View:
    """What one account holds, in a read-only transaction. Made by `Store.view`."""

    def __init__(self, account_id: str, connection: Connection) -> None:
        self.account_id = account_id
        self._connection = connection

    async def get(self, noun: type[T], identity: str, resource_type: str, field: str = "id") -> T:
        """The object with this id. Raises ResourceMissing, naming the given type and field."""
        found = await self.get_many(noun, [identity])
        if not found:
            raise ResourceMissing(resource_type, identity, field=field)
        return found[0]

    async def get_many(self, noun: type[T], ids: Sequence[str]) -> list[T]:
        """The objects with these ids, as far as they exist, in no particular order."""
        rows: Rows[T] = _ROWS[noun]
        return rows.decode(await self._connection.fetch(rows.queries["get"], self.account_id, list(ids)))

    async def page(self, wanted: Filter[T], *, limit: int, after: Cursor | None = None) -> Page[T]:
        """A page of the objects that the filter wants, newest first, after the cursor of the page before."""
        rows: Rows[T] = _LISTED[type(wanted)]
        return await fetch_page(self._connection, rows, self.account_id, wanted, limit=limit, after=after)

    async def account(self) -> Account:
        """The account itself, with its settings. Raises ResourceMissing."""
        record = await self._connection.fetchrow(ACCOUNTS.queries["load"], self.account_id)
        if record is None:
            raise ResourceMissing("account", self.account_id)
        return ACCOUNTS.decode([record], skip=1)[0]

    async def pages(self) -> ChangedPages:
        """The account with all its pages. Raises ResourceMissing."""
        record = await self._connection.fetchrow(ACCOUNTS.queries["load"], self.account_id)
        if record is None:
            raise ResourceMissing("account", self.account_id)
        return await pages.load_changed(self._connection, self.account_id, record, 0)

    async def usage(self, wanted: Sequence[usage.WantedSpan]) -> list[Tally]:
        """The tallies of some spans, in their order."""
        return await usage.read(self._connection, self.account_id, wanted)

    async def idempotency(self, key: str) -> IdempotencyRow | None:
        """What is known of an idempotency key."""
        found = await self._connection.fetch(IDEMPOTENCY.queries["find"], self.account_id, [key])
        return next(iter(IDEMPOTENCY.decode(found)), None)

    async def customers_of(self, ids: Sequence[str]) -> dict[str, str]:
        """The customers of some objects, by the objects' ids; those that do not exist are left out."""
        return await owners.of_ids(self._connection, self.account_id, ids)

    # --- consumers

    async def consumer_progress(self, names: Sequence[str]) -> dict[str, consumers.Progress]:
        """How far some consumers have come, by their names."""
        return await consumers.progress(self._connection, self.account_id, names)

    async def parked_events(self, consumer: str, *, before: int, limit: int) -> list[consumers.ParkedRow]:
        """Parked events of a consumer before a position, the latest in the log first."""
        return await consumers.parked_page(self._connection, self.account_id, consumer, before, limit)

    # --- events

    async def head(self) -> int:
        """Position of the last event; 0 before the first."""
        return await event_log.head(self._connection, self.account_id)

    async def oldest(self) -> int | None:
        """Position of the oldest event that is kept; None when none is."""
        position: int | None = await self._connection.fetchval(event_log.QUERIES["oldest"], self.account_id)
        return position

    async def kept_events(self) -> tuple[int, int]:
        """Position of the oldest event that is kept, or will be, and of the last one."""
        record = await self._connection.fetchrow(event_log.QUERIES["kept"], self.account_id)
        assert record is not None
        head, oldest = record[0] or 0, record[1]
        return head + 1 if oldest is None else oldest, head

    async def read_events(
        self, *, after: int, limit: int, wanted: EventFilter = EVERYTHING, until: int | None = None
    ) -> EventPage:
        """Up to `limit` events after a position, in order, and not beyond `until`."""
        return await event_log.read(
            self._connection, self.account_id, after=after, limit=limit, wanted=wanted, until=until
        )

    async def read_payloads(self, *, after: int, limit: int) -> PayloadPage:
        """Payloads of up to `limit` events of any kind after a position."""
        return await event_log.read_payloads(self._connection, self.account_id, after=after, limit=limit)

    async def events_at(self, positions: Sequence[int]) -> list[StoredEvent]:
        """The events at some positions, in order, as far as they are kept."""
        return await event_log.at_positions(self._connection, self.account_id, positions)

    async def newest_events(self, *, before: int | None, limit: int, wanted: EventFilter = EVERYTHING) -> EventPage:
        """Up to `limit` events before a position (None: the newest), newest first."""
        return await event_log.read_newest(self._connection, self.account_id, before=before, limit=limit, wanted=wanted)

    async def event(self, position: int) -> StoredEvent | None:
        """The event at a position, if it is there."""
        return await event_log.get(self._connection, self.account_id, position)
