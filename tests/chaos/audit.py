"""The audit after the chaos: money, commands, events and readers, each against a witness of its own.

The ledger of the gateway is the witness of the money, what callers were told that of the commands, and the readers
that of the events. What adds up within the account is left to `billing audit --events`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import grpc

from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing_client import BillingClient
from billing_client.audit.inspection import inspect
from billing_client.errors import BillingError
from tests.chaos.calls import Calls, Change
from tests.chaos.database import Database
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.readers import Reader

Row: TypeAlias = Mapping[str, Any]
"""A row of the database, by its columns."""

_AT_ONCE: Final = 8
_SILENCE_SECONDS_MAX: Final = 60.0
_CREATED: Final = {
    "CreateCustomer": ("customer_object", "customer.created"),
    "CreateSubscription": ("subscription", "customer.subscription.created"),
    "CreateSubscriptionSchedule": ("subscription_schedule", "subscription_schedule.created"),
    "CreateInvoice": ("invoice", "invoice.created"),
    "CreateInvoiceItem": ("invoice_item", "invoiceitem.created"),
}
"""By method: the field of an event that carries what was made, and the event's type. All carry their request's key."""


class _Silent:
    """Watches an audit without a word."""

    def phase(self, text: str, total: int | None) -> None:
        """Nothing is shown."""

    def step(self, done: int = 1) -> None:
        """Nothing is shown."""


# --- money


async def money(database: Database, ledger: Ledger) -> list[str]:
    """The ledger against the attempts and refunds of the engine (promises 1, 2 and 4)."""
    entries = ledger.entries()
    attempts = await database.sql("SELECT id, invoice, number, state, amount FROM payment_attempts")
    refunds = await database.sql("SELECT id, attempt, status, amount FROM refunds")
    invoices = await database.sql("SELECT id, status, amount_due, paid_out_of_band FROM invoices")
    return [
        *ledger.oddities(),
        *charges(entries, attempts),
        *refunds_given(entries, refunds),
        *money_kept(entries, attempts, refunds, invoices),
    ]


def charges(entries: Sequence[Entry], attempts: Sequence[Row]) -> Iterator[str]:
    """Money moved once for an attempt, and exactly for those that succeeded."""
    known = {attempt["id"]: attempt for attempt in attempts}
    moved = [entry for entry in entries if entry.kind == "charge" and entry.moved]
    for (invoice, number), times in Counter((entry.invoice, entry.attempt) for entry in moved).items():
        if times > 1:
            yield f"attempt {number} of {invoice} was charged {times} times"
    for entry in moved:
        attempt = known.get(entry.key)
        if attempt is None:
            yield f"money moved under {entry.key}, which is no attempt"
        elif attempt["state"] != "succeeded":
            yield f"money moved for {entry.key}, which is {attempt['state']}"
        elif attempt["amount"] != entry.amount:
            yield f"{entry.key} moved {entry.amount} instead of {attempt['amount']}"
    keys = {entry.key for entry in moved}
    for attempt in attempts:
        if attempt["state"] == "succeeded" and attempt["id"] not in keys:
            yield f"{attempt['id']} succeeded, but no money moved"
        if attempt["state"] in ("started", "unknown"):
            yield f"{attempt['id']} is still {attempt['state']}"


def refunds_given(entries: Sequence[Entry], refunds: Sequence[Row]) -> Iterator[str]:
    """Money went back exactly for the refunds that succeeded."""
    given_back = {entry.key: entry for entry in entries if entry.kind == "refund" and entry.moved}
    for refund in refunds:
        entry = given_back.pop(refund["id"], None)
        if refund["status"] == "succeeded" and (entry is None or entry.amount != refund["amount"]):
            yield f"the refund {refund['id']} succeeded, but the gateway gave back nothing or another amount"
        if refund["status"] == "failed" and entry is not None:
            yield f"the refund {refund['id']} failed, but money went back"
        if refund["status"] not in ("succeeded", "failed"):
            yield f"the refund {refund['id']} is still {refund['status']}"
    for key in given_back:
        yield f"money went back under {key}, which is no refund"


def money_kept(
    entries: Sequence[Entry],
    attempts: Sequence[Row],
    refunds: Sequence[Row],
    invoices: Sequence[Row],
) -> Iterator[str]:
    """Every successful charge is the payment of its invoice, or was given back in full exactly once."""
    charged: Counter[str] = Counter()
    for entry in entries:
        if entry.kind == "charge" and entry.moved:
            charged[entry.key] += entry.amount
    late: Counter[str] = Counter()
    for refund in refunds:
        late[refund["attempt"]] += 1 if refund["amount"] == charged[refund["attempt"]] else 0
    kept: defaultdict[str, list[str]] = defaultdict(list)
    for attempt in attempts:
        if attempt["state"] == "succeeded" and not late[attempt["id"]]:
            kept[attempt["invoice"]].append(attempt["id"])
        if late[attempt["id"]] > 1:
            yield f"{attempt['id']} was given back {late[attempt['id']]} times"
    status = {invoice["id"]: invoice["status"] for invoice in invoices}
    for invoice, paying in kept.items():
        if len(paying) > 1 or status.get(invoice) != "paid":
            yield f"{invoice} is {status.get(invoice, 'unknown')}, and kept the money of {', '.join(paying)}"


# --- time


async def moments(database: Database) -> list[str]:
    """Each period was billed once, whichever of the processes did it (promise 12)."""
    twice = await database.sql(
        "SELECT subscription, period_start, count(*) AS times FROM invoices"
        " WHERE billing_reason = 'subscription_cycle' GROUP BY subscription, period_start HAVING count(*) > 1"
    )
    return [f"{row['subscription']} was billed {row['times']} times at {row['period_start']}" for row in twice]


# --- commands


async def commands(calls: Calls) -> list[str]:
    """What was acknowledged is there, and asking once more with the same key changes nothing (promises 7 and 9)."""
    found = list(calls.broken)
    waiting = iter([change for change in calls.changes if change.state == "acknowledged"])
    dice = random.Random(0)

    async def worker() -> None:
        for change in waiting:
            found.extend(await _again(dice.choice(calls.clients), calls, change))

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    return found


async def _again(client: BillingClient, calls: Calls, change: Change) -> list[str]:
    try:
        answer = await calls.send(client, change, _SILENCE_SECONDS_MAX)
    except BillingError as error:
        return [f"{change.method} {change.key} was acknowledged, and is now refused: {error.code.name} {error}"]
    first, now = getattr(change.answer, "id", ""), getattr(answer, "id", "")
    return [] if first == now else [f"{change.method} {change.key} was answered by {first}, and now by {now}"]


def effects(calls: Calls, log: Sequence[Event]) -> list[str]:
    """Each key made one object at most, and exactly the acknowledged one (promises 8 and 9)."""
    made: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for event in log:
        for method, (field, type_) in _CREATED.items():
            if event.type == type_:
                # To look with [] for a key that is not there would add it to the event.
                made[method, getattr(event, field).metadata.get("key", "")].add(event.object_id)
    found = []
    for change in calls.changes:
        if change.method not in _CREATED:
            continue
        objects = made[change.method, change.key]
        if len(objects) > 1:
            found.append(f"{change.method} {change.key} had {len(objects)} effects: {', '.join(sorted(objects))}")
        if change.state == "acknowledged" and objects != {change.answer.id}:
            found.append(f"{change.method} {change.key} was acknowledged as {change.answer.id}, and made {objects}")
    return found


# --- events


async def whole_log(client: BillingClient) -> tuple[Reader, list[Event]]:
    """The log from its beginning, read strictly and in peace."""
    reader, log = Reader([client], random.Random(0)), []
    call: Any = client.event_log.StreamEvents(StreamEventsRequest(batch_max=1000))
    try:
        while (batch := await asyncio.wait_for(call.read(), _SILENCE_SECONDS_MAX)) is not grpc.aio.EOF:
            for event in batch.events:
                reader.take(event)
                log.append(event)
            if batch.caught_up:
                break
    finally:
        call.cancel()
    return reader, log


def readers(followers: Sequence[Reader], fresh: Reader) -> list[str]:
    """All who read along saw the log as it is: each position once and in order (promise 18)."""
    found = [f"the log itself: {fault}" for fault in fresh.faults]
    for number, reader in enumerate(followers):
        found += [f"reader {number}: {fault}" for fault in reader.faults]
        if (reader.position, reader.digest) != (fresh.position, fresh.digest):
            found.append(f"reader {number} saw another log, up to {reader.position} of {fresh.position}")
        elif reader.objects != fresh.objects:
            found.append(f"reader {number} folded the log to other objects")
    return found


async def account(client: BillingClient) -> tuple[list[str], dict[str, Any]]:
    """`billing audit --events` (promises 6, 17, 18 and 19): what is off, and what was looked at."""
    report = await inspect(client, _Silent(), events=True)
    found = [f"{item.check} {item.object_id}: {item.message}" for item in report.findings]
    return found, {**report.counts, "Event": report.events or 0}
