"""Making deliveries: which new events each webhook endpoint gets.

Nothing is written for webhooks while events are made. Each endpoint has a cursor, the position in the account's log
up to which this was decided for it. One transaction reads the events after it, writes the deliveries and moves the
cursor, so each event is decided once, by whichever process has locked the cursor.

What an endpoint does not keep up with stays in the log: one that is sick has few deliveries pending, one that is
well has many, but not without bound.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from billing_server.domain.webhook import WebhookDelivery, delivery_id, wants
from billing_server.domain.webhook_retries import is_sick
from billing_server.store.errors import StoreError
from billing_server.store.store import Store
from billing_server.store.webhook import EventHeading, Recipient, WebhookUnit
from billing_server.wire.codec import event_id

LOGGER = logging.getLogger(__name__)

EVENTS_AT_ONCE: Final = 500
ENDPOINTS_AT_ONCE: Final = 20
PENDING_MAX: Final = 10_000
PENDING_OF_SICK_MAX: Final = 100

_FULL_SECONDS: Final = 2.0
"""How long an endpoint with no room is left alone."""

Clock = Callable[[], int | None]
"""Tells the time in UTC seconds; None means the database's clock."""


class FanOut:
    """Makes deliveries for the endpoints of all accounts; any number of processes do so beside each other."""

    def __init__(self, store: Store, now: Clock) -> None:
        self._store = store
        self._now = now
        self._full_until: dict[str, float] = {}

    async def make(self) -> int:
        """Look once for what is new for each endpoint; return for how many there was something to decide."""
        moment = time.monotonic()
        self._full_until = {endpoint: until for endpoint, until in self._full_until.items() if until > moment}
        waiting: defaultdict[str, list[str]] = defaultdict(list)
        for account_id, endpoint in await self._store.webhook_endpoints_behind():
            if endpoint not in self._full_until:
                waiting[account_id].append(endpoint)
        moved = 0
        for account_id, endpoints in waiting.items():
            remaining = iter(endpoints)
            while some := list(islice(remaining, ENDPOINTS_AT_ONCE)):
                try:
                    moved += await self._make(account_id, some)
                except StoreError as error:
                    LOGGER.warning("deliveries of account %s were not made: %s", account_id, error)
        return moved

    async def _make(self, account_id: str, endpoints: Sequence[str]) -> int:
        """Decide about the next events for some endpoints of an account; return how many moved on."""
        async with self._store.webhooks(account_id) as unit:
            moment = self._now()
            now = await unit.now() if moment is None else moment
            windows: dict[int, list[EventHeading]] = {}
            deliveries: list[WebhookDelivery] = []
            positions: dict[str, int] = {}
            for recipient in await unit.recipients(endpoints, PENDING_MAX):
                room = _room(recipient)
                if room <= 0:
                    self._full_until[recipient.endpoint] = time.monotonic() + _FULL_SECONDS
                    continue
                after = recipient.position
                if after not in windows:
                    windows[after] = await _window(unit, after)
                chosen, reached = choose(recipient, windows[after], room)
                if reached > after:
                    positions[recipient.endpoint] = reached
                    deliveries += (_delivery(account_id, recipient.endpoint, event, now) for event in chosen)
            await unit.add(deliveries, positions)
        return len(positions)


def choose(recipient: Recipient, window: Sequence[EventHeading], room: int) -> tuple[list[EventHeading], int]:
    """Which of the next events an endpoint gets while it has room, and up to where that decides."""
    chosen: list[EventHeading] = []
    for event in window:
        if event.quiet or not wants(recipient.event_types, event.type):
            continue
        if len(chosen) == room:
            return chosen, event.position - 1
        chosen.append(event)
    return chosen, window[-1].position if window else recipient.position


def _room(recipient: Recipient) -> int:
    most = PENDING_OF_SICK_MAX if is_sick(recipient.failures) else PENDING_MAX
    return most - recipient.pending


async def _window(unit: WebhookUnit, after: int) -> list[EventHeading]:
    """The next events after a position; where some are no longer kept, that is told."""
    head = await unit.head()
    window = await unit.headings(after, EVENTS_AT_ONCE)
    if not window and head > after:
        LOGGER.warning("the events %s to %s of account %s are no longer kept", after + 1, head, unit.account_id)
        return [EventHeading(head, "", quiet=True)]
    if window and window[0].position > after + 1:
        LOGGER.warning(
            "the events %s to %s of account %s are no longer kept", after + 1, window[0].position - 1, unit.account_id
        )
    return window


def _delivery(account_id: str, endpoint: str, event: EventHeading, now: int) -> WebhookDelivery:
    return WebhookDelivery(
        id=delivery_id(endpoint, event.position),
        created=now,
        endpoint=endpoint,
        event=event_id(account_id, event.position),
        position=event.position,
        event_type=event.type,
        started_at=now,
        due_at=now,
    )
