"""What changes of webhook endpoints lead to. Each is told by an event, which never holds a secret."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET

from billing_server.domain.commands import CreateWebhookEndpoint, UpdateWebhookEndpoint
from billing_server.domain.errors import LimitReached, WrongState, invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.event import Cause, Event, previous_attributes
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.webhook import WebhookDelivery, WebhookDisabledReason, WebhookEndpoint
from billing_server.domain.webhook_address import refusal_of_url

ENDPOINTS_MAX: Final = 50
"""Endpoints of one account."""

SECRETS_MAX: Final = 5
"""Secrets of one endpoint that are valid at once."""

_COPIED: Final = ("url", "event_types", "description")


class EndpointChange(msgspec.Struct, frozen=True):
    """What an endpoint becomes, and what is told of it. No event: nothing changes."""

    endpoint: WebhookEndpoint
    events: tuple[Event, ...] = ()


def new_endpoint(
    identity: str, command: CreateWebhookEndpoint, *, now: int, cause: Cause, allow_private: bool
) -> EndpointChange:
    """A new endpoint. Raises InvalidArgument when nothing would ever be sent to its address."""
    _check_url(command.url, allow_private)
    endpoint = WebhookEndpoint(
        id=identity,
        created=now,
        metadata=initial_metadata(command.metadata),
        **{name: getattr(command, name) for name in _COPIED},
    )
    return EndpointChange(endpoint, (_told("created", endpoint, now, cause),))


def check_number(endpoints: int) -> None:
    """Refuse an account more endpoints than it may have. Raises LimitReached."""
    if endpoints > ENDPOINTS_MAX:
        raise LimitReached(
            "webhook_max_endpoints", f"an account has at most {ENDPOINTS_MAX} webhook endpoints; delete one first"
        )


def changed_endpoint(
    endpoint: WebhookEndpoint, command: UpdateWebhookEndpoint, *, now: int, cause: Cause, allow_private: bool
) -> EndpointChange:
    """What an update makes of an endpoint. Raises Conflict and InvalidArgument."""
    check_etag(command.etag, endpoint.version)
    if command.url is not UNSET:
        _check_url(command.url, allow_private)
    wished = {name: getattr(command, name) for name in _COPIED if getattr(command, name) is not UNSET}
    if command.metadata is not UNSET:
        wished["metadata"] = merged_metadata(endpoint.metadata, command.metadata)
    if command.enabled is not UNSET and command.enabled != (endpoint.status == "enabled"):
        wished |= _status(None if command.enabled else "requested", now)
    return _revised(endpoint, wished, now, cause)


def gone_endpoint(endpoint: WebhookEndpoint, *, now: int, cause: Cause) -> EndpointChange:
    """The endpoint said that it is gone; one that is disabled already stays as it is."""
    if endpoint.status == "disabled":
        return EndpointChange(endpoint)
    return _revised(endpoint, _status("gone", now), now, cause)


def deleted_endpoint(endpoint: WebhookEndpoint, *, now: int, cause: Cause) -> EndpointChange:
    """The endpoint as it was in the end."""
    return EndpointChange(endpoint, (_told("deleted", endpoint, now, cause),))


def check_secrets(valid: int) -> None:
    """Refuse one more secret beside so many valid ones. Raises LimitReached."""
    if valid >= SECRETS_MAX:
        raise LimitReached(
            "webhook_max_secrets",
            f"{valid} secrets of the endpoint are valid; wait until one ends, or end them by grace_seconds 0",
        )


def redelivered(delivery: WebhookDelivery, endpoint: WebhookEndpoint | None, now: int) -> WebhookDelivery:
    """The delivery as it is begun anew. Raises WrongState when its endpoint takes nothing."""
    if endpoint is None or endpoint.status == "disabled":
        state = "deleted" if endpoint is None else "disabled; enable it first"
        raise WrongState(
            "webhook_endpoint_disabled",
            f"the endpoint '{delivery.endpoint}' is {state}",
            subject=delivery.endpoint,
        )
    # One that is pending may be under way just now: its count of tries tells its claims apart.
    attempts = delivery.attempts if delivery.state == "pending" else 0
    return msgspec.structs.replace(
        delivery, state="pending", attempts=attempts, started_at=now, due_at=now, settled_at=None
    )


def _check_url(url: str, allow_private: bool) -> None:
    refusal = None if allow_private else refusal_of_url(url)
    if refusal is not None:
        raise invalid("url", "parameter_invalid", refusal)


def _status(disabled_reason: WebhookDisabledReason | None, now: int) -> dict[str, Any]:
    if disabled_reason is None:
        return {"status": "enabled", "disabled_reason": None, "disabled_at": None}
    return {"status": "disabled", "disabled_reason": disabled_reason, "disabled_at": now}


def _revised(endpoint: WebhookEndpoint, wished: dict[str, Any], now: int, cause: Cause) -> EndpointChange:
    changes = {name: value for name, value in wished.items() if value != getattr(endpoint, name)}
    if not changes:
        return EndpointChange(endpoint)
    after = msgspec.structs.replace(endpoint, version=endpoint.version + 1, **changes)
    return EndpointChange(after, (_told("updated", after, now, cause, endpoint),))


def _told(what: str, endpoint: WebhookEndpoint, now: int, cause: Cause, before: WebhookEndpoint | None = None) -> Event:
    previous = None if before is None else previous_attributes(before, endpoint)
    return Event(f"webhook_endpoint.{what}", now, None, endpoint, previous, cause)
