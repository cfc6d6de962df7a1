"""Webhooks: endpoints that events are sent to, and the deliveries of single events."""

from __future__ import annotations

from typing import Literal

import msgspec

from billing_server.domain.event import is_of_type

WebhookEndpointStatus = Literal["enabled", "disabled"]
WebhookDisabledReason = Literal["requested", "gone"]
WebhookDeliveryState = Literal["pending", "delivered", "failed", "canceled"]

ENDPOINT_PREFIX = "we"
DELIVERY_PREFIX = "wd"
POSITION_DIGITS = 12


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where an account's events are sent; its secrets and how far it has come are kept apart from it.

    `event_types` are exact, or prefixes such as "invoice.*"; none means all.
    """

    id: str
    created: int
    url: str
    event_types: tuple[str, ...] = ()
    description: str | None = None
    status: WebhookEndpointStatus = "enabled"
    disabled_reason: WebhookDisabledReason | None = None
    disabled_at: int | None = None
    metadata: dict[str, str] = {}
    version: int = 1


class WebhookDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one endpoint. All times are real time.

    The event is `event` at `position` of the account's log, where its content is read when it is sent. While it is
    `pending`, it is tried at `due_at`; `attempts` counts the tries begun. `started_at` is when it was made, or asked
    for again: from then it is tried for three days.
    """

    id: str
    created: int
    endpoint: str
    event: str
    position: int
    event_type: str
    state: WebhookDeliveryState = "pending"
    attempts: int = 0
    started_at: int
    due_at: int | None
    tried_at: int | None = None
    response_status: int | None = None
    error: str | None = None
    settled_at: int | None = None


def wants(event_types: tuple[str, ...], event_type: str) -> bool:
    """Whether an endpoint with these filters is sent events of a type."""
    return not event_types or any(is_of_type(event_type, name) for name in event_types)


def delivery_id(endpoint_id: str, position: int) -> str:
    """The id of an event's delivery to an endpoint: always the same, so that there can be only one."""
    return f"{DELIVERY_PREFIX}{endpoint_id.removeprefix(ENDPOINT_PREFIX)}{position:0{POSITION_DIGITS}d}"
