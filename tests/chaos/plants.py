"""Servers with bugs planted in them: what the audit must catch before its silence means anything.

`python -m tests.chaos.plants NAME…` runs the server as `python -m billing_server` does, with the bugs. Nothing of it
is in the server's own code.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from billing_server.__main__ import main as serve
from billing_server.delivery import streams
from billing_server.delivery.mail import Mail
from billing_server.delivery.webhooks import Claimed, Outcome, WebhookDispatcher
from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.consumption import Hand, Reading
from billing_server.domain.message import Message
from billing_server.domain.payment import PaymentError
from billing_server.domain.webhook import WebhookDelivery
from billing_server.engine import session
from billing_server.gateways.port import ChargeRequest
from billing_server.gateways.remote import RemoteGateway
from billing_server.store import database
from billing_server.store.message import Tried
from billing_server.store.webhook import WebhookTried


def charge_twice() -> None:
    """A charge that got no answer is made again at once, under a fresh key."""
    charge = RemoteGateway.charge

    async def again(gateway: RemoteGateway, request: ChargeRequest) -> ChargeOutcome:
        outcome = await charge(gateway, request)
        if outcome.state == "unknown":
            outcome = await charge(gateway, msgspec.structs.replace(request, key=request.key + "x"))
        return outcome

    setattr(RemoteGateway, "charge", again)  # noqa: B010  # the plant


def forget_event() -> None:
    """One in five transactions with several events loses the last of them."""
    counter = itertools.count(1)
    rows_of: Any = vars(session)["event_rows"]

    def forgetful(account_id: str, events: Sequence[Any]) -> Any:
        kept = list(events)
        if len(kept) > 1 and next(counter) % 5 == 0:
            kept.pop()
        return rows_of(account_id, kept)

    setattr(session, "event_rows", forgetful)  # noqa: B010  # the plant


def early_ack() -> None:
    """Commits are acknowledged before they are durable."""
    settings = {**database._SETTINGS, "synchronous_commit": "off"}
    setattr(database, "_SETTINGS", settings)  # noqa: B010  # the plant


def silence_is_failure() -> None:
    """A gateway that does not answer is taken to have declined."""
    error = PaymentError(code="processing_error", message="no answer")

    async def hasty(gateway: RemoteGateway, request: ChargeRequest) -> ChargeOutcome:
        outcome = await charge(gateway, request)
        return ChargeOutcome(state="failed", error=error) if outcome.state == "unknown" else outcome

    charge = RemoteGateway.charge
    setattr(RemoteGateway, "charge", hasty)  # noqa: B010  # the plant


def forget_key() -> None:
    """What was answered to an idempotency key is not kept."""
    setattr(session.Session, "_remember", lambda *_: None)  # noqa: B010  # the plant


def skip_event() -> None:
    """One in ten batches of a stream misses its last event."""
    counter = itertools.count(1)
    bytes_of: Any = vars(streams)["event_batch_bytes"]

    def gappy(account_id: str, part: list[tuple[int, bytes]], head: int, *, caught_up: bool) -> bytes:
        if part and next(counter) % 10 == 0:
            part = part[:-1]
        told: bytes = bytes_of(account_id, part, head, caught_up=caught_up)
        return told

    setattr(streams, "event_batch_bytes", gappy)  # noqa: B010  # the plant


def early_webhook() -> None:
    """A webhook is taken to be delivered before it is sent."""
    attempt = WebhookDispatcher._try
    sending: set[asyncio.Task[Outcome]] = set()

    async def hasty(self: WebhookDispatcher, account_id: str, claimed: Claimed, delivery: WebhookDelivery) -> Outcome:
        task = asyncio.create_task(attempt(self, account_id, claimed, delivery))
        sending.add(task)
        task.add_done_callback(sending.discard)
        tried = WebhookTried(id=delivery.id, attempts=delivery.attempts, response_status=200)
        return Outcome(tried=tried, answered_well=True)

    setattr(WebhookDispatcher, "_try", hasty)  # noqa: B010  # the plant


def early_letter() -> None:
    """A message is taken to be sent before its letter is handed over."""
    attempt = Mail._try
    sending: set[asyncio.Task[Tried]] = set()

    async def hasty(self: Mail, message: Message) -> Tried:
        task = asyncio.create_task(attempt(self, message))
        sending.add(task)
        task.add_done_callback(sending.discard)
        return Tried(id=message.id, attempts=message.attempts)

    setattr(Mail, "_try", hasty)  # noqa: B010  # the plant


def early_position() -> None:
    """A durable consumer's position moves when events are delivered, before they are acknowledged."""
    admit = Hand.admit

    def hasty(self: Hand, reading: Reading, events: Any, scanned_to: int, now: float) -> Any:
        given = admit(self, reading, events, scanned_to, now)
        self.acknowledge([event.position for event in given])
        return given

    setattr(Hand, "admit", hasty)  # noqa: B010  # the plant


def disorder() -> None:
    """A durable consumer is given the events of a batch last one first."""
    admit = Hand.admit

    def backwards(self: Hand, reading: Reading, events: Any, scanned_to: int, now: float) -> Any:
        return admit(self, reading, events, scanned_to, now)[::-1]

    setattr(Hand, "admit", backwards)  # noqa: B010  # the plant


PLANTS: Final[dict[str, Callable[[], None]]] = {
    "charge-twice": charge_twice,
    "forget-event": forget_event,
    "early-ack": early_ack,
    "silence-is-failure": silence_is_failure,
    "forget-key": forget_key,
    "skip-event": skip_event,
    "early-webhook": early_webhook,
    "early-letter": early_letter,
    "early-position": early_position,
    "disorder": disorder,
}


def main(arguments: Sequence[str]) -> int:
    """Plant the bugs, and serve."""
    for name in arguments:
        PLANTS[name]()
    return serve([])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
