"""Sending webhooks: at least once, retried for three days, each endpoint by itself (promise 21).

Due deliveries are claimed for a while, tried, and settled, endpoint by endpoint. A process that dies in between
leaves them to be claimed again, by whomever, when that while is over; they go out a second time under the same id.

An endpoint that fails again and again is sick, for all processes: one delivery at a time sounds it out. Sick
endpoints wait only for each other, and all webhooks together use few connections to the database, so that no
endpoint delays another, nor anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from billing_server.delivery.fan_out import Clock, FanOut
from billing_server.delivery.receivers import SECONDS_MAX, NotSentError, Receivers
from billing_server.delivery.signature import signed_headers
from billing_server.domain.calendar import DAY
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint
from billing_server.domain.webhook_retries import (
    RETRY_SECONDS,
    SICK_SECONDS,
    failures_after,
    is_sick,
    wait_of_delivery,
    wait_of_endpoint,
)
from billing_server.engine.bell import Bell
from billing_server.engine.errands import Errands
from billing_server.engine.webhooks import Webhooks
from billing_server.store.errors import StoreError
from billing_server.store.store import Store
from billing_server.store.webhook import Health, WebhookTried
from billing_server.wire.codec import event_json

LOGGER = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 10
"""Requests to one endpoint under way in this process, and claimed at once."""

WELL_ENDPOINTS_MAX: Final = 100
SICK_ENDPOINTS_MAX: Final = 50
"""Endpoints that are served at once in this process. Only sick ones may have to wait for sick ones."""

LEASE_SECONDS: Final = int(SECONDS_MAX) * 4
KEPT_SECONDS: Final = 30 * DAY
"""How long settled deliveries are kept, to be looked up."""

POLL_SECONDS: Final = 1.0
_GATHER_SECONDS: Final = 0.02
"""How long events gather before they are looked at, when there are always new ones."""

_CONNECTIONS_MAX: Final = 2
_HOUSEKEEPING_SECONDS: Final = 3_600.0
_ERROR_CHARACTERS_MAX: Final = 500
_GONE: Final = 410
_ASKS_TO_WAIT: Final = (429, 503)


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries to be tried now, and all that is needed for it."""

    endpoint: WebhookEndpoint
    deliveries: Sequence[WebhookDelivery]
    payloads: Mapping[int, bytes]
    secrets: Sequence[bytes]
    now: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a try. `answered_well` is None when the endpoint had no part in it."""

    tried: WebhookTried
    answered_well: bool | None = None
    gone: bool = False


class WebhookDispatcher:
    """The webhooks of one process: `start` it, and `close` it in the end.

    `outcomes` counts tries: delivered, retried, failed for good, and endpoints gone.
    """

    def __init__(
        self,
        store: Store,
        bell: Bell,
        webhooks: Webhooks,
        receivers: Receivers,
        *,
        retry_seconds: Sequence[int] = RETRY_SECONDS,
        sick_seconds: Sequence[int] = SICK_SECONDS,
        now: Clock = lambda: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._bell = bell
        self._webhooks = webhooks
        self._receivers = receivers
        self._retry_seconds = retry_seconds
        self._sick_seconds = sick_seconds
        self._now = now
        self._chance = chance
        self._fan_out = FanOut(store, now)
        self._errands = Errands(_ended)
        self._well = asyncio.Semaphore(WELL_ENDPOINTS_MAX)
        self._sick = asyncio.Semaphore(SICK_ENDPOINTS_MAX)
        self._connections = asyncio.Semaphore(_CONNECTIONS_MAX)
        self._accounts: frozenset[str] = frozenset()
        self._rung = asyncio.Event()
        self._made = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.outcomes: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to make deliveries and to try them."""
        self._tasks = [
            asyncio.create_task(self._make_all(), name="make webhooks"),
            asyncio.create_task(self._send_all(), name="send webhooks"),
            asyncio.create_task(self._keep_house(), name="forget webhooks"),
        ]

    async def close(self, drain_seconds: float = SECONDS_MAX) -> None:
        """Claim no more; requests under way get so long for their answers, and are made again when they get none."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._errands.close(drain_seconds)
        await self._receivers.close()

    # --- making

    async def _make_all(self) -> None:
        """Make deliveries whenever there are events, until the end."""
        looked_at = 0.0
        with self._bell.overhearing(self._heard):
            while True:
                self._rung.clear()
                try:
                    if time.monotonic() - looked_at >= POLL_SECONDS:
                        self._accounts = frozenset(await self._store.accounts_with_webhooks())
                        looked_at = time.monotonic()
                    if self._accounts:
                        await self.make()
                except StoreError as error:
                    LOGGER.warning("webhooks cannot be made: %s", error)
                except Exception:
                    LOGGER.exception("webhooks could not be made")
                await asyncio.sleep(_GATHER_SECONDS)
                await _wait(self._rung, POLL_SECONDS)

    async def make(self) -> None:
        """Make all deliveries that there are to make now, and have them tried."""
        while True:
            async with self._connections:
                moved = await self._fan_out.make()
            if not moved:
                return
            self._made.set()

    def _heard(self, accounts: Iterable[str] | None) -> None:
        """Accounts have new events; None when some may have gone unheard."""
        if accounts is None or not self._accounts.isdisjoint(accounts):
            self._rung.set()

    # --- trying

    async def _send_all(self) -> None:
        """Try what is due, until the end."""
        while True:
            self._made.clear()
            try:
                await self.look()
            except StoreError as error:
                LOGGER.warning("webhooks cannot be looked for: %s", error)
            except Exception:
                LOGGER.exception("webhooks could not be looked for")
            await _wait(self._made, POLL_SECONDS)

    async def look(self) -> None:
        """Set out to all endpoints that have something to get now."""
        async with self._connections:
            due = await self._store.webhook_endpoints_due(self._now())
        for account_id, endpoint_id, failures in due:
            lane = self._sick if is_sick(failures) else self._well
            self._errands.run(endpoint_id, partial(self._serve, lane, account_id, endpoint_id))

    async def idle(self) -> None:
        """Wait until all that was set out for is done."""
        await self._errands.idle()

    async def _serve(self, lane: asyncio.Semaphore, account_id: str, endpoint_id: str) -> None:
        """Try the deliveries of one endpoint, some at a time, until none is due or it is sick."""
        async with lane:
            while not self._stopping.is_set():
                claimed = await self._claim(account_id, endpoint_id)
                if claimed is None:
                    return
                outcomes = await asyncio.gather(*(self._try(account_id, claimed, one) for one in claimed.deliveries))
                await self._settle(account_id, endpoint_id, outcomes)
                if len(outcomes) < AT_ONCE_MAX:
                    return

    async def _claim(self, account_id: str, endpoint_id: str) -> Claimed | None:
        """Take some deliveries that are due; None when there are none, or somebody else sounds the endpoint out."""
        async with self._connections, self._store.webhooks(account_id) as unit:
            moment = self._now()
            now = await unit.now() if moment is None else moment
            health = await unit.health(endpoint_id)
            endpoint = None if health is None else await unit.endpoint(endpoint_id)
            if health is None or endpoint is None:
                return None
            limit = AT_ONCE_MAX
            if health.retry_at is not None:
                limit = 1
                if not await unit.sound_out(endpoint_id, now, LEASE_SECONDS):
                    return None
            deliveries = await unit.claim(endpoint_id, limit, now, LEASE_SECONDS)
            if not deliveries:
                return None
            return Claimed(
                endpoint=endpoint,
                deliveries=deliveries,
                payloads=await unit.payloads([delivery.position for delivery in deliveries]),
                secrets=await unit.valid_secrets(endpoint_id, now),
                now=now,
            )

    async def _try(self, account_id: str, claimed: Claimed, delivery: WebhookDelivery) -> Outcome:
        """Send one delivery, and say what became of it."""
        payload = claimed.payloads.get(delivery.position)
        if payload is None:
            return self._failed(delivery, "the event is no longer kept", None)
        try:
            body = event_json(payload, account_id, delivery.position)
            headers = signed_headers(claimed.secrets, delivery.id, claimed.now, body)
            reply = await self._receivers.post(claimed.endpoint.url, headers, body)
        except NotSentError as error:
            return self._postponed(delivery, str(error), claimed.now)
        except Exception as error:
            LOGGER.exception("webhook %s could not be sent", delivery.id)
            return self._postponed(delivery, f"{type(error).__name__} within the server, see its log", claimed.now)
        if 200 <= reply.status < 300:
            self.outcomes["delivered"] += 1
            tried = WebhookTried(id=delivery.id, attempts=delivery.attempts, response_status=reply.status)
            return Outcome(tried=tried, answered_well=True)
        wish = reply.retry_after if reply.status in _ASKS_TO_WAIT else None
        redirected = " (redirects are not followed)" if 300 <= reply.status < 400 else ""
        error_text = f"the answer was {reply.status}{redirected}"
        outcome = self._postponed(delivery, error_text, claimed.now, status=reply.status, wish=wish)
        return msgspec.structs.replace(outcome, gone=reply.status == _GONE)

    def _postponed(
        self, delivery: WebhookDelivery, error: str, now: int, *, status: int | None = None, wish: int | None = None
    ) -> Outcome:
        wait = wait_of_delivery(delivery.attempts, now - delivery.started_at, self._chance(), wish, self._retry_seconds)
        if wait is None:
            LOGGER.warning("webhook %s is given up: %s", delivery.id, error)
            return self._failed(delivery, error, status, answered_well=False)
        self.outcomes["retried"] += 1
        tried = WebhookTried(
            id=delivery.id,
            attempts=delivery.attempts,
            response_status=status,
            error=error[:_ERROR_CHARACTERS_MAX],
            wait=wait,
        )
        return Outcome(tried=tried, answered_well=False)

    def _failed(
        self, delivery: WebhookDelivery, error: str, status: int | None, *, answered_well: bool | None = None
    ) -> Outcome:
        self.outcomes["failed"] += 1
        tried = WebhookTried(
            id=delivery.id, attempts=delivery.attempts, response_status=status, error=error[:_ERROR_CHARACTERS_MAX]
        )
        return Outcome(tried=tried, answered_well=answered_well)

    async def _settle(self, account_id: str, endpoint_id: str, outcomes: Sequence[Outcome]) -> None:
        """Keep what became of some tries, and how the endpoint does."""
        async with self._connections, self._store.webhooks(account_id) as unit:
            moment = self._now()
            now = await unit.now() if moment is None else moment
            health = await unit.health(endpoint_id, lock=True)
            await unit.settle([outcome.tried for outcome in outcomes], now)
            if health is not None:
                after = self._health(health, [outcome.answered_well for outcome in outcomes], now)
                if after != health:
                    await unit.set_health(endpoint_id, after)
        if any(outcome.gone for outcome in outcomes):
            LOGGER.warning("the webhook endpoint %s says that it is gone, and is disabled", endpoint_id)
            self.outcomes["gone"] += 1
            await self._webhooks.gone(account_id, endpoint_id)

    def _health(self, before: Health, answers: Sequence[bool | None], now: int) -> Health:
        """How an endpoint does after some answers."""
        if True in answers:
            return Health()
        failures = failures_after(before.failures, answers.count(False))
        wait = wait_of_endpoint(failures, self._sick_seconds)
        return Health(failures, None if wait is None else now + wait)

    # --- housekeeping

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                await self.forget_old()
            except StoreError as error:
                LOGGER.warning("old webhooks were not forgotten: %s", error)

    async def forget_old(self) -> None:
        """Drop deliveries that were settled long ago."""
        moment = self._now()
        before = (int(time.time()) if moment is None else moment) - KEPT_SECONDS
        for account_id in await self._store.account_ids():
            while await self._store.purge_webhook_deliveries(account_id, before):
                pass


def _ended(name: str, error: Exception | None) -> None:
    """Nothing that goes wrong with one endpoint may reach another; claimed deliveries come back after their lease."""
    if isinstance(error, StoreError):
        LOGGER.warning("webhooks to %s were interrupted: %s", name, error)
    elif error is not None:
        LOGGER.error("webhooks to %s failed", name, exc_info=error)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer than this."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
