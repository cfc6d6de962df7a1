"""How webhook endpoints and deliveries are stored and listed, and how the work on them is shared.

Rows are locked in one order: the endpoint, its cursor, its deliveries, the event head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from billing_server.domain.webhook import (
    WebhookDelivery,
    WebhookDeliveryState,
    WebhookEndpoint,
    WebhookEndpointStatus,
)
from billing_server.store import event as event_log
from billing_server.store.database import Transaction
from billing_server.store.listing import Filter
from billing_server.store.queries import read_queries
from billing_server.store.rows import Rows

WEBHOOK_ENDPOINTS: Final = Rows(WebhookEndpoint, "webhook_endpoint", "webhook_endpoints", "webhook_endpoint_row")
WEBHOOK_DELIVERIES: Final = Rows(WebhookDelivery, "webhook_delivery", "webhook_deliveries", "webhook_delivery_row")
CURSORS: Final = read_queries("webhook_cursor")
SECRETS: Final = read_queries("webhook_secret")

_EVENT_TYPES: Final = msgspec.json.Decoder(tuple[str, ...])


class WebhookEndpointFilter(Filter[WebhookEndpoint], frozen=True, kw_only=True):
    """Which endpoints to list."""

    status: WebhookEndpointStatus | None = None


class WebhookDeliveryFilter(Filter[WebhookDelivery], frozen=True, kw_only=True):
    """Which deliveries to list."""

    endpoint: str | None = None
    event: str | None = None
    state: WebhookDeliveryState | None = None


class Recipient(msgspec.Struct, frozen=True):
    """An endpoint for which deliveries are to be made: how far it has come, and what waits for it already."""

    endpoint: str
    position: int
    failures: int
    event_types: tuple[str, ...]
    pending: int


class EventHeading(msgspec.Struct, frozen=True):
    """What decides who gets an event. A `quiet` one is for readers of the log alone."""

    position: int
    type: str
    quiet: bool


class Health(msgspec.Struct, frozen=True):
    """How an endpoint does: tries that failed since the last good one, and when it is sounded out."""

    failures: int = 0
    retry_at: int | None = None


class WebhookTried(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a try to deliver.

    `attempts` is that of the delivery when it was claimed: whoever lost the claim meanwhile changes nothing. `wait`
    is how many seconds until the next try; None when the delivery is settled, well or (with an error) for good.
    """

    id: str
    attempts: int
    response_status: int | None = None
    error: str | None = None
    wait: int | None = None


class WebhookBacklog(msgspec.Struct, frozen=True):
    """What waits, over all accounts: see `sql/webhook_cursor.sql`."""

    pending: int = 0
    late_seconds: int = 0
    behind: int = 0
    sick: int = 0


class WebhookUnit:
    """One transaction on one account's webhooks. Made by `Store.webhooks`."""

    def __init__(self, account_id: str, transaction: Transaction) -> None:
        self.account_id = account_id
        self._transaction = transaction
        self._connection = transaction.connection

    async def now(self) -> int:
        """Real time by the database's clock."""
        return int(await self._connection.fetchval(CURSORS["now"]))

    # --- endpoints

    async def insert_endpoint(self, endpoint: WebhookEndpoint) -> None:
        """Keep a new endpoint."""
        query = WEBHOOK_ENDPOINTS.queries["insert"]
        await self._connection.execute(query, self.account_id, WEBHOOK_ENDPOINTS.encode([endpoint]))

    async def lock_endpoint(self, endpoint_id: str) -> WebhookEndpoint | None:
        """The endpoint, locked until the transaction ends; None when there is none."""
        found = await self._connection.fetch(WEBHOOK_ENDPOINTS.queries["lock"], self.account_id, endpoint_id)
        return next(iter(WEBHOOK_ENDPOINTS.decode(found)), None)

    async def update_endpoint(self, endpoint: WebhookEndpoint) -> None:
        """Keep a changed endpoint, locked before."""
        query = WEBHOOK_ENDPOINTS.queries["update"]
        await self._connection.execute(query, self.account_id, WEBHOOK_ENDPOINTS.encode([endpoint]))

    async def count_endpoints(self) -> int:
        """How many endpoints the account has."""
        return int(await self._connection.fetchval(WEBHOOK_ENDPOINTS.queries["count"], self.account_id))

    async def delete_endpoint(self, endpoint_id: str) -> None:
        """Drop a locked endpoint and its secrets."""
        await self._connection.execute(WEBHOOK_ENDPOINTS.queries["delete"], self.account_id, endpoint_id)
        await self._connection.execute(SECRETS["delete"], self.account_id, endpoint_id)

    async def begin(self, endpoint_id: str) -> None:
        """Let an endpoint get what comes after the one event that this transaction is going to append."""
        await self._connection.execute(CURSORS["begin"], self.account_id, endpoint_id)

    async def end(self, endpoint_id: str, now: int) -> None:
        """Let an endpoint get nothing more, and cancel what is pending."""
        await self._connection.execute(CURSORS["end"], self.account_id, endpoint_id)
        query = WEBHOOK_DELIVERIES.queries["cancel"]
        await self._connection.execute(query, self.account_id, endpoint_id, now)

    # --- secrets

    async def add_secret(self, endpoint_id: str, secret: bytes) -> int:
        """Keep the next secret of an endpoint; return its number."""
        return int(await self._connection.fetchval(SECRETS["insert"], self.account_id, endpoint_id, secret))

    async def secret(self, endpoint_id: str, number: int, now: int) -> bytes | None:
        """The secret with a number, unless it has ended."""
        parameters = (self.account_id, endpoint_id, number, now)
        found: bytes | None = await self._connection.fetchval(SECRETS["get"], *parameters)
        return found

    async def valid_secrets(self, endpoint_id: str, now: int) -> list[bytes]:
        """The secrets that sign, the current one first."""
        records = await self._connection.fetch(SECRETS["valid"], self.account_id, endpoint_id, now)
        return [record[0] for record in records]

    async def expire_secrets(self, endpoint_id: str, now: int, at: int) -> None:
        """Let the secrets that there are end at a moment, and drop those that have ended."""
        await self._connection.execute(SECRETS["expire"], self.account_id, endpoint_id, at)
        await self._connection.execute(SECRETS["drop_expired"], self.account_id, endpoint_id, now)

    # --- making deliveries

    async def recipients(self, endpoints: Sequence[str], pending_max: int) -> list[Recipient]:
        """Some endpoints, locked, but for those that others work on; what is pending is counted up to a number."""
        query = CURSORS["lock"]
        records = await self._connection.fetch(query, self.account_id, list(endpoints), pending_max)
        return [
            Recipient(record[0], record[1], record[2], _EVENT_TYPES.decode(record[3]), record[4]) for record in records
        ]

    async def head(self) -> int:
        """Position of the account's last event; 0 before the first."""
        return await event_log.head(self._connection, self.account_id)

    async def headings(self, after: int, limit: int) -> list[EventHeading]:
        """The next events after a position, in order."""
        records = await self._connection.fetch(CURSORS["events"], self.account_id, after, limit)
        return [EventHeading(*record) for record in records]

    async def add(self, deliveries: Sequence[WebhookDelivery], positions: Mapping[str, int]) -> None:
        """Keep new deliveries, together with how far their endpoints have come by them."""
        if deliveries:
            query = WEBHOOK_DELIVERIES.queries["insert"]
            await self._connection.execute(query, self.account_id, WEBHOOK_DELIVERIES.encode(deliveries))
            self._transaction.inserted[WEBHOOK_DELIVERIES.table] += len(deliveries)
        if positions:
            columns = (list(positions), list(positions.values()))
            await self._connection.execute(CURSORS["advance"], self.account_id, *columns)

    # --- trying deliveries

    async def health(self, endpoint_id: str, *, lock: bool = False) -> Health | None:
        """How an enabled endpoint does; None when it is disabled. With `lock` it stays so until the unit ends."""
        query = CURSORS["lock_health" if lock else "health"]
        record = await self._connection.fetchrow(query, self.account_id, endpoint_id)
        return None if record is None else Health(*record)

    async def set_health(self, endpoint_id: str, health: Health) -> None:
        """How an endpoint does from now on."""
        parameters = (self.account_id, endpoint_id, health.failures, health.retry_at)
        await self._connection.execute(CURSORS["set_health"], *parameters)

    async def sound_out(self, endpoint_id: str, now: int, lease_seconds: int) -> bool:
        """Take the one try that a sick endpoint gets now; whether it was still to be had."""
        parameters = (self.account_id, endpoint_id, now, lease_seconds)
        return await self._connection.fetchval(CURSORS["sound_out"], *parameters) is not None

    async def claim(self, endpoint_id: str, limit: int, now: int, lease_seconds: int) -> list[WebhookDelivery]:
        """Take up to `limit` due deliveries, longest due first, so that nobody else tries them for so long."""
        query = WEBHOOK_DELIVERIES.queries["claim"]
        parameters = (self.account_id, endpoint_id, limit, now, lease_seconds)
        return WEBHOOK_DELIVERIES.decode(await self._connection.fetch(query, *parameters))

    async def endpoint(self, endpoint_id: str) -> WebhookEndpoint | None:
        """The endpoint as it is now."""
        found = await self._connection.fetch(WEBHOOK_ENDPOINTS.queries["get"], self.account_id, [endpoint_id])
        return next(iter(WEBHOOK_ENDPOINTS.decode(found)), None)

    async def payloads(self, positions: Sequence[int]) -> dict[int, bytes]:
        """The serialized events at some positions, as far as they are kept."""
        records = await self._connection.fetch(CURSORS["payloads"], self.account_id, list(positions))
        return {record[0]: record[1] for record in records}

    async def settle(self, tried: Sequence[WebhookTried], now: int) -> int:
        """Keep what became of claimed deliveries; return of how many it was still to be kept."""
        names = ("id", "attempts", "response_status", "error", "wait")
        columns = [[getattr(entry, name) for entry in tried] for name in names]
        return await self._connection.execute(WEBHOOK_DELIVERIES.queries["settle"], self.account_id, *columns, now)

    # --- one delivery

    async def delivery(self, delivery_id: str) -> WebhookDelivery | None:
        """The delivery as it is now; None when there is none."""
        found = await self._connection.fetch(WEBHOOK_DELIVERIES.queries["get"], self.account_id, [delivery_id])
        return next(iter(WEBHOOK_DELIVERIES.decode(found)), None)

    async def lock_delivery(self, delivery: WebhookDelivery) -> WebhookDelivery:
        """The delivery as it is now, locked until the transaction ends; as it was when it is gone by now."""
        found = await self._connection.fetch(WEBHOOK_DELIVERIES.queries["lock"], self.account_id, delivery.id)
        return next(iter(WEBHOOK_DELIVERIES.decode(found)), delivery)

    async def update_delivery(self, delivery: WebhookDelivery) -> None:
        """Keep a delivery that was asked for again, locked before."""
        query = WEBHOOK_DELIVERIES.queries["update"]
        await self._connection.execute(query, self.account_id, WEBHOOK_DELIVERIES.encode([delivery]))
