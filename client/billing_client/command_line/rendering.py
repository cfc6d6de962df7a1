"""Messages of the contract as text for people: one rule per kind of field, none per message.

Amounts become money, instants UTC, enum values their short names. What belongs to a message (its columns in
lists, fields that are not for the eye) is data in this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from billing_client.instants import format_timestamp
from billing_client.money import format_money, format_unit_amount

_MONEY: Final = frozenset(
    {
        "amount", "subtotal", "total", "starting_balance", "ending_balance", "balance", "amount_due", "amount_paid",
        "amount_remaining", "amount_received", "amount_refunded", "unit_amount", "flat_amount", "refund_amount",
        "credit_amount", "out_of_band_amount", "pre_payment_amount", "post_payment_amount",
        "pre_payment_credit_notes_amount", "post_payment_credit_notes_amount",
    }
)  # fmt: skip

_ALWAYS_SHOWN: Final = frozenset(
    {"amount", "total", "balance", "amount_due", "amount_paid", "amount_remaining", "ending_balance"}
)
_HIDDEN: Final = frozenset({"etag", "client_secret"})

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "ApiKey": ("id", "created", "name", "scopes", "last_four", "revoked_at"),
    "Product": ("id", "created", "name", "active", "default_price"),
    "Price": ("id", "product", "unit_amount", "recurring.interval", "billing_scheme", "lookup_key", "active"),
    "Customer": ("id", "created", "email", "name", "balance", "delinquent", "test_clock"),
    "PaymentMethod": ("id", "created", "type", "token", "card.brand", "card.last4", "customer"),
    "BalanceTransaction": ("id", "created", "type", "amount", "ending_balance", "invoice", "description"),
    "Subscription": ("id", "customer", "status", "collection_method", "current_period_end", "latest_invoice"),
    "SubscriptionSchedule": ("id", "customer", "status", "current_phase.end_date", "end_behavior", "subscription"),
    "SchedulePhase": ("start_date", "end_date", "trial_end", "proration_behavior", "collection_method"),
    "SubscriptionItem": ("id", "price", "quantity", "current_period_start", "current_period_end"),
    "Invoice": ("id", "number", "customer", "status", "billing_reason", "amount_due", "amount_remaining", "created"),
    "InvoiceLine": ("description", "amount", "quantity", "period_start", "period_end", "proration"),
    "InvoiceItem": ("id", "created", "customer", "amount", "description", "invoice", "subscription"),
    "CreditNote": ("id", "number", "invoice", "amount", "type", "status", "created"),
    "PaymentIntent": ("id", "invoice", "customer", "status", "amount", "amount_received", "created"),
    "PaymentAttempt": ("id", "number", "kind", "state", "amount", "error.code", "error.decline_code", "due_at"),
    "Refund": ("id", "invoice", "amount", "reason", "status", "created"),
    "Event": ("position", "created", "type", "object_id", "customer"),
    "Consumer": (
        "name",
        "types",
        "customer",
        "progress.lag",
        "progress.unacknowledged",
        "progress.parked",
        "progress.connections",
    ),
    "ParkedEvent": ("position", "event.type", "event.object_id", "event.customer", "tries", "parked_at", "reason"),
    "WebhookEndpoint": ("id", "created", "url", "event_types", "status", "disabled_reason"),
    "WebhookDelivery": ("id", "created", "event_type", "event", "state", "attempts", "due_at", "error"),
    "TestClock": ("id", "name", "frozen_time", "status"),
    "Automation": ("id", "name", "trigger", "priority", "enabled", "recipe"),
    "AutomationCondition": (
        *("type", "key", "value", "more_than", "less_than", "interval", "products", "prices", "segments"),
    ),
    "AutomationAction": (
        *("type", "delay_seconds", "before_due_seconds", "retry_policy.kind", "retry_policy.retry_days"),
        *("retry_policy.max_retries", "retry_policy.window", "recipients", "memo", "survey_url", "price", "amount"),
    ),
    "AutomationRun": (
        *("id", "created", "name", "trigger", "customer", "invoice", "status", "end_reason", "next_action_at"),
    ),
    "AutomationRunStep": ("type", "scheduled_at", "executed_at", "ended_at", "result", "explanation"),
    "Recipe": ("name", "title", "trigger"),
    "RecipeParameter": ("name", "required", "default_value", "description"),
    "CurrencyOption": ("currency", "unit_amount"),
    "Tier": ("up_to", "unit_amount", "flat_amount"),
}


def columns_of(kind: str) -> tuple[str, ...]:
    """The columns that a list of messages of this kind shows."""
    return _COLUMNS.get(kind, ("id",))


def cell(message: Message, path: str, currency: str = "") -> str:
    """The text of one field, given by its path; "" when it is not set."""
    currency = _currency(message) or currency
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    return _text(message, next(field for field in _fields(message) if field.name == name), currency)


def details(message: Message, currency: str = "", prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of what is set in a message, nested ones by their paths; lists of messages are left out."""
    currency = _currency(message) or currency
    for field in _fields(message):
        if field.name in _HIDDEN or is_table(field):
            continue
        if _is_plain_message(field):
            if message.HasField(field.name):
                yield from details(getattr(message, field.name), currency, f"{prefix}{field.name}.")
            continue
        text = _text(message, field, currency)
        if text:
            yield f"{prefix}{field.name}", text


def tables(message: Message) -> Iterator[tuple[str, Iterable[Message]]]:
    """The lists of messages inside a message, with their names."""
    for field in _fields(message):
        if is_table(field):
            rows = getattr(message, field.name)
            if rows:
                yield field.name, rows


def is_table(field: FieldDescriptor) -> bool:
    """Whether a field is a list of messages, no map."""
    return field.is_repeated and field.message_type is not None and not _is_map(field)


def as_json(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON, with the names of the protos."""
    return MessageToDict(message, preserving_proto_field_name=True)


def enum_words(enum: EnumDescriptor) -> dict[str, int]:
    """The values of an enum by the words that people use: "past_due" for SUBSCRIPTION_STATUS_PAST_DUE."""
    return {word: number for number, word in _words(enum).items() if number}


@lru_cache
def _words(enum: EnumDescriptor) -> dict[int, str]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    return {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}


def _fields(message: Message) -> Sequence[FieldDescriptor]:
    """The fields of a message's kind; its descriptors may come from either implementation of protobuf."""
    return cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields)


def _currency(message: Message) -> str:
    return str(getattr(message, "currency", ""))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_plain_message(field: FieldDescriptor) -> bool:
    """Whether a field is a single message that is not shown as one text."""
    return (
        field.message_type is not None
        and not field.is_repeated
        and field.message_type.full_name not in ("google.protobuf.Timestamp", "google.protobuf.Struct")
    )


def _text(message: Message, field: FieldDescriptor, currency: str) -> str:
    value = getattr(message, field.name)
    if _is_map(field):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    if field.is_repeated:
        return ", ".join(str(item) for item in value)
    if field.has_presence and not message.HasField(field.name):
        return ""
    if isinstance(value, Timestamp):
        return format_timestamp(value)
    if isinstance(value, Struct):
        return json.dumps(MessageToDict(value), sort_keys=True)
    if field.enum_type is not None:
        return _words(field.enum_type).get(value, str(value)) if value else ""
    return _scalar(field, value, currency)


def _scalar(field: FieldDescriptor, value: Any, currency: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if field.name in _MONEY and isinstance(value, int):
        return format_money(value, currency) if value or field.name in _ALWAYS_SHOWN else ""
    if field.name == "unit_amount" and value and currency:
        return format_unit_amount(value, currency)
    if isinstance(value, int):
        return str(value) if value or field.has_presence else ""
    return str(value)
