"""WebhookService: endpoints that events are sent to, their secrets, and what became of the deliveries."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from billing.v1.webhook_service_pb2 import CreateWebhookEndpointResponse, RotateWebhookSecretResponse
from billing_server.api.call import Call
from billing_server.api.endpoints import (
    Edge,
    Endpoint,
    caller_of,
    choice,
    command,
    get,
    listing,
    nothing,
    path_of,
    response_of,
)
from billing_server.domain import commands as c
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint
from billing_server.engine.webhooks import NewSecret
from billing_server.store.webhook import WebhookDeliveryFilter, WebhookEndpointFilter
from billing_server.wire.codec import decode, encode


async def _create(edge: Edge, call: Call, request: Any) -> bytes:
    """Make an endpoint. What is kept beside the idempotency key holds the number of the secret in its place."""
    wanted = decode(request, c.CreateWebhookEndpoint)
    answer = await edge.engine.execute(call.account_id, wanted, caller_of(call, request, _encode_created))
    response = CreateWebhookEndpointResponse.FromString(response_of(answer, _encode_created))
    endpoint = response.webhook_endpoint.id
    response.secret = await edge.engine.webhooks.secret(call.account_id, endpoint, int(response.secret))
    return response.SerializeToString()


def _encode_created(made: msgspec.Struct, _now: int | None) -> bytes:
    assert isinstance(made, NewSecret)
    response = CreateWebhookEndpointResponse(webhook_endpoint=encode(made.endpoint), secret=str(made.number))
    return response.SerializeToString()


async def _rotate(edge: Edge, call: Call, request: Any) -> bytes:
    """Make a secret; see `_create` for what is kept of it."""
    wanted = decode(request, c.RotateWebhookSecret)
    answer = await edge.engine.execute(call.account_id, wanted, caller_of(call, request, _encode_rotated))
    response = RotateWebhookSecretResponse.FromString(response_of(answer, _encode_rotated))
    response.secret = await edge.engine.webhooks.secret(call.account_id, wanted.id, int(response.secret))
    return response.SerializeToString()


def _encode_rotated(made: msgspec.Struct, _now: int | None) -> bytes:
    assert isinstance(made, NewSecret)
    response = RotateWebhookSecretResponse(secret=str(made.number))
    response.previous_ends_at.seconds = made.previous_end_at
    return response.SerializeToString()


def _endpoints(request: Any) -> WebhookEndpointFilter:
    return WebhookEndpointFilter(status=choice(request, "status"))


def _deliveries(request: Any) -> WebhookDeliveryFilter:
    return WebhookDeliveryFilter(
        endpoint=request.endpoint or None, event=request.event or None, state=choice(request, "state")
    )


ENDPOINTS: Final = (
    Endpoint(path_of("WebhookService/CreateWebhookEndpoint"), unary=_create),
    get("WebhookService/GetWebhookEndpoint", WebhookEndpoint, "webhook_endpoint"),
    listing("WebhookService/ListWebhookEndpoints", "webhook_endpoints", _endpoints),
    command("WebhookService/UpdateWebhookEndpoint", c.UpdateWebhookEndpoint),
    command("WebhookService/DeleteWebhookEndpoint", c.DeleteWebhookEndpoint, shown=nothing),
    Endpoint(path_of("WebhookService/RotateWebhookSecret"), unary=_rotate),
    get("WebhookService/GetWebhookDelivery", WebhookDelivery, "webhook_delivery"),
    listing("WebhookService/ListWebhookDeliveries", "webhook_deliveries", _deliveries),
    command("WebhookService/RedeliverWebhookDelivery", c.RedeliverWebhookDelivery),
)
