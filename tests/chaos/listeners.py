"""Those who are told what happens, other than by streams: receivers of webhooks, durable consumers, and a post office.

They belong to two accounts: the shop's, and a neighbour's of which the shop must never hear.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from billing.v1.event_service_pb2 import GetConsumerRequest
from billing.v1.webhook_service_pb2 import CreateWebhookEndpointRequest
from billing_client.errors import BillingError
from tests.chaos.calls import Calls
from tests.chaos.consumers import DurableConsumer
from tests.chaos.receivers import Receiver
from tests.mail.post_office import DROP, OK, TAKE_AND_DROP, PostOffice

CATCH_UP_SECONDS_MAX: Final = 120.0
_LOOK_SECONDS: Final = 0.5
_LATER: Final = "451 not now"
_AT_FIRST: Final = (_LATER, DROP, _LATER)
_ANSWERS: Final = (*([_LATER] * 4), DROP, TAKE_AND_DROP, *([OK] * 14))
"""What the post office says to letters: the first answers in this order, the others each as often as it stands here."""


@dataclass
class Audience:
    """Who is told what happens in one account. `calm`: they behave."""

    account: str
    calls: Calls
    receivers: list[Receiver] = field(default_factory=list)
    consumers: list[DurableConsumer] = field(default_factory=list)
    calm: bool = False

    async def subscribe(self, dice: random.Random) -> None:
        """Open the receivers, and make an endpoint for each."""
        for receiver in self.receivers:
            await receiver.open()
            request = CreateWebhookEndpointRequest(url=receiver.url, event_types=receiver.event_types)
            made: Any = await self.calls.change(dice, "webhooks", "CreateWebhookEndpoint", request)
            receiver.endpoint = made.webhook_endpoint.id
            receiver.secrets.append(made.secret)

    async def consumed(self) -> list[str]:
        """Wait until the consumers have nothing left to do; what they still have after a long time."""
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(self._consumed(consumer)) for consumer in self.consumers]
        return [finding for task in waiting for finding in task.result()]

    async def _consumed(self, consumer: DurableConsumer) -> list[str]:
        left = "never asked"
        give_up_at = time.monotonic() + CATCH_UP_SECONDS_MAX
        while time.monotonic() < give_up_at:
            try:
                request = GetConsumerRequest(name=consumer.name)
                progress = (await self.calls.clients[0].event_log.GetConsumer(request, timeout=30)).progress
            except BillingError as error:
                left = str(error)
            else:
                if not progress.lag and not progress.unacknowledged:
                    return []
                left = f"{progress.lag} positions behind, {progress.unacknowledged} unacknowledged"
            await asyncio.sleep(_LOOK_SECONDS)
        return [f"the consumer {consumer.name} did not come to an end: {left}"]


def audience(account: str, calls: Calls, names: Sequence[str], seed: int) -> Audience:
    """The receivers and consumers of an account; only some of those that there are, by their names."""
    receivers = {
        "orders": ("customer.subscription.*",),
        "books": ("invoice.paid", "invoice.payment_failed", "invoice.voided"),
        "people": ("customer.created", "customer.updated"),
        "everything": (),
    }
    consumers = {"crm": ((), 3), "ledger": (("invoice.*", "payment_intent.*"), 2)}
    return Audience(
        account,
        calls,
        [Receiver(n, types, random.Random(f"{seed}:{n}")) for n, types in receivers.items() if n in names],
        [
            DurableConsumer(n, types, calls.targets, calls.api_key, members, f"{seed}:{account}")
            for n, (types, members) in consumers.items()
            if n in names
        ],
    )


def misbehave(audiences: Sequence[Audience], post_office: PostOffice, dice: random.Random) -> None:
    """From now on nobody makes it easy."""
    at_first = list(_AT_FIRST)

    def answer() -> str:
        if at_first:
            return at_first.pop()
        return OK if all(one.calm for one in audiences) else dice.choice(_ANSWERS)

    post_office.chance = answer
    for one in audiences:
        for receiver in one.receivers:
            receiver.polite = False


def behave(audiences: Sequence[Audience]) -> None:
    """From now on everybody takes what they are given; the post office, too, when it has refused as many as it must."""
    for one in audiences:
        one.calm = True
        for receiver in one.receivers:
            receiver.polite = True
        for consumer in one.consumers:
            consumer.calm = True
