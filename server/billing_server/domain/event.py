"""Events: what happened, in the order in which it happened (semantics 9)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from operator import is_not
from typing import Any, Literal

import msgspec

from billing_server.domain.customer import Customer
from billing_server.domain.invoice import Invoice
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription, SubscriptionItem

CauseKind = Literal["rpc", "timer", "gateway", "automation", "receiver"]

Attributes = Mapping[str, Any]


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What made an event happen: an RPC (with its idempotency key), time, the gateway, an automation's run, or the
    receiver of a webhook."""

    kind: CauseKind
    method: str | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    automation_run: str | None = None


class Event(msgspec.Struct, frozen=True):
    """A fact about one object: its type, the object as it then was, and what it was before.

    `created` is engine or test-clock time. `previous_attributes` is None but for `*.updated`.
    """

    type: str
    created: int
    customer: str | None
    object: msgspec.Struct
    previous_attributes: Attributes | None
    cause: Cause

    @property
    def quiet(self) -> bool:
        """Whether only the log tells it: it is about an invoice born while collection is paused (decision 17)."""
        return isinstance(self.object, Invoice) and self.object.collection_paused


def is_of_type(event_type: str, name: str) -> bool:
    """Whether a type is the named one, or begins as a prefix such as "invoice.*" says."""
    return event_type.startswith(name[:-1]) if name.endswith("*") else event_type == name


INTERNAL: Mapping[type[msgspec.Struct], frozenset[str]] = {
    Customer: frozenset({"version", "next_invoice_sequence"}),
    Subscription: frozenset(
        {
            "version",
            "first_invoice",
            "status_invoice",
            "resumption_invoice",
            "trial_will_end_at",
            "trial_reminder_at",
            "upcoming_at",
            "free_stub",
            "trial_over_untold",
        }
    ),
    SubscriptionSchedule: frozenset({"version", "expiring_at"}),
    Invoice: frozenset(
        {
            "version",
            "payment_intent",
            "attempts_started",
            "retries_done",
            "first_failure_at",
            "last_attempt_due_at",
            "hard_declined_method",
            "charging",
            "due_date_passed",
            "overdue_deadline_at",
            "collection_paused",
            "trial_over",
        }
    ),
    SubscriptionItem: frozenset({"usage_from"}),
}
"""Fields whose change alone is no event: the engine's own notes, and what other events tell already."""

_VERSION_ONLY = frozenset({"version"})


def previous_attributes(old: msgspec.Struct, new: msgspec.Struct) -> dict[str, Any]:
    """The attributes that differ, with their old values: arrays whole, nested objects only changed keys."""
    changed: dict[str, Any] = {}
    internal = INTERNAL.get(type(old), _VERSION_ONLY)
    olds, news = msgspec.structs.astuple(old), msgspec.structs.astuple(new)
    # What is the same object is left out before anything else is asked: that is nearly all of it.
    other = compress(zip(old.__struct_fields__, olds, news, strict=True), map(is_not, olds, news))
    for name, before, after in other:
        if name in internal or before == after:
            continue
        if isinstance(before, msgspec.Struct) and type(before) is type(after):
            changed[name] = previous_attributes(before, after)
        elif isinstance(before, dict) and isinstance(after, dict):
            changed[name] = {key: before.get(key) for key in (*before, *after) if before.get(key) != after.get(key)}
        elif _look_alike(before, after):
            continue
        else:
            changed[name] = before
    return changed


def _look_alike(before: Any, after: Any) -> bool:
    """Whether two lists of objects differ in internal fields only."""
    if not (isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after)):
        return False
    return all(
        type(one) is type(other) and type(one) in INTERNAL and not previous_attributes(one, other)
        for one, other in zip(before, after, strict=True)
    )
