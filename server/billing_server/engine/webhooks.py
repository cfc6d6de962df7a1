"""Webhook endpoints and their secrets, changed on request, and disabled when they say that they are gone.

Deliveries are made and tried by `delivery.webhooks`.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from billing_server.domain import commands as c
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.event import Cause, Event
from billing_server.domain.webhook import ENDPOINT_PREFIX, WebhookEndpoint
from billing_server.domain.webhook_endpoints import (
    EndpointChange,
    changed_endpoint,
    check_number,
    check_secrets,
    deleted_endpoint,
    gone_endpoint,
    new_endpoint,
    redelivered,
)
from billing_server.engine.door import Door
from billing_server.engine.ids import IdSource
from billing_server.engine.once import once
from billing_server.engine.work import Answer, Caller
from billing_server.store.store import Store
from billing_server.store.unit import Opening, Unit
from billing_server.store.webhook import WebhookUnit

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # a prefix, not a secret
_SECRET_BYTES: Final = 32
_RECEIVER: Final = Cause(kind="receiver")

Told = tuple[msgspec.Struct, Sequence[Event]]


class NewSecret(msgspec.Struct, frozen=True):
    """A secret that was made, by its number; what it is stays in the store. `previous_end_at` is when others end."""

    endpoint: WebhookEndpoint
    number: int
    previous_end_at: int


class Webhooks:
    """Changes the webhook endpoints of accounts. `allow_private` takes addresses that are not public."""

    def __init__(self, store: Store, door: Door, new_id: IdSource, *, allow_private: bool) -> None:
        self._store = store
        self._door = door
        self._new_id = new_id
        self.allow_private = allow_private
        self._ways: dict[type[c.Command], Callable[[Unit, Opening, Any, Cause], Awaitable[Told]]] = {
            c.CreateWebhookEndpoint: self._create,
            c.UpdateWebhookEndpoint: self._update,
            c.DeleteWebhookEndpoint: self._delete,
            c.RotateWebhookSecret: self._rotate,
            c.RedeliverWebhookDelivery: self._redeliver,
        }

    def takes(self, command: c.Command) -> bool:
        """Whether a command is carried out here."""
        return type(command) in self._ways

    async def execute(self, account_id: str, command: c.Command, caller: Caller) -> Answer:
        """Carry out a validated command. The result of what makes a secret is a `NewSecret`. Raises refusals."""
        way = self._ways[type(command)]

        async def change(unit: Unit, opening: Opening) -> Told:
            return await way(unit, opening, command, caller.cause)

        return await once(self._door, account_id, caller, change)

    async def secret(self, account_id: str, endpoint_id: str, number: int) -> str:
        """A secret as its maker is told it; empty when it has ended."""
        async with self._store.webhooks(account_id) as unit:
            found = await unit.secret(endpoint_id, number, await unit.now())
        return "" if found is None else SECRET_PREFIX + base64.b64encode(found).decode()

    async def gone(self, account_id: str, endpoint_id: str) -> None:
        """Disable an endpoint that says that it is gone, unless somebody has deleted it meanwhile."""

        async def change(unit: Unit, opening: Opening) -> Told:
            endpoint = await _locked(unit.webhooks, endpoint_id)
            change = gone_endpoint(endpoint, now=opening.now, cause=_RECEIVER)
            return await _keep(unit.webhooks, endpoint, change, opening.now)

        with contextlib.suppress(ResourceMissing):
            await once(self._door, account_id, Caller(method="deliver webhooks"), change)

    async def _create(self, unit: Unit, opening: Opening, command: c.CreateWebhookEndpoint, cause: Cause) -> Told:
        change = new_endpoint(
            self._new_id(ENDPOINT_PREFIX), command, now=opening.now, cause=cause, allow_private=self.allow_private
        )
        webhooks, endpoint = unit.webhooks, change.endpoint
        await webhooks.insert_endpoint(endpoint)
        number = await webhooks.add_secret(endpoint.id, secrets.token_bytes(_SECRET_BYTES))
        # This locks the event head, so that others who create endpoints now are counted, or count this one.
        await webhooks.begin(endpoint.id)
        check_number(await webhooks.count_endpoints())
        return NewSecret(endpoint, number, opening.now), change.events

    async def _update(self, unit: Unit, opening: Opening, command: c.UpdateWebhookEndpoint, cause: Cause) -> Told:
        endpoint = await _locked(unit.webhooks, command.id)
        change = changed_endpoint(endpoint, command, now=opening.now, cause=cause, allow_private=self.allow_private)
        return await _keep(unit.webhooks, endpoint, change, opening.now)

    async def _delete(self, unit: Unit, opening: Opening, command: c.DeleteWebhookEndpoint, cause: Cause) -> Told:
        endpoint = await _locked(unit.webhooks, command.id)
        await unit.webhooks.end(endpoint.id, opening.now)
        await unit.webhooks.delete_endpoint(endpoint.id)
        change = deleted_endpoint(endpoint, now=opening.now, cause=cause)
        return change.endpoint, change.events

    async def _rotate(self, unit: Unit, opening: Opening, command: c.RotateWebhookSecret, cause: Cause) -> Told:
        del cause
        webhooks, now = unit.webhooks, opening.now
        endpoint = await _locked(webhooks, command.id)
        if command.grace_seconds:
            check_secrets(len(await webhooks.valid_secrets(endpoint.id, now)))
        end = now + command.grace_seconds
        await webhooks.expire_secrets(endpoint.id, now, end)
        number = await webhooks.add_secret(endpoint.id, secrets.token_bytes(_SECRET_BYTES))
        return NewSecret(endpoint, number, end), ()

    async def _redeliver(self, unit: Unit, opening: Opening, command: c.RedeliverWebhookDelivery, cause: Cause) -> Told:
        del cause
        webhooks = unit.webhooks
        known = await webhooks.delivery(command.id)
        if known is None:
            raise ResourceMissing("webhook_delivery", command.id)
        endpoint = await webhooks.lock_endpoint(known.endpoint)
        again = redelivered(await webhooks.lock_delivery(known), endpoint, opening.now)
        await webhooks.update_delivery(again)
        return again, ()


async def _locked(webhooks: WebhookUnit, endpoint_id: str) -> WebhookEndpoint:
    endpoint = await webhooks.lock_endpoint(endpoint_id)
    if endpoint is None:
        raise ResourceMissing("webhook_endpoint", endpoint_id)
    return endpoint


async def _keep(webhooks: WebhookUnit, before: WebhookEndpoint, change: EndpointChange, now: int) -> Told:
    """Write what an endpoint has become; a cursor is what an enabled one has."""
    after = change.endpoint
    if change.events:
        await webhooks.update_endpoint(after)
    if before.status != after.status:
        if after.status == "enabled":
            await webhooks.begin(after.id)
        else:
            await webhooks.end(after.id, now)
    return after, change.events
