"""The wire's interface: objects to messages, requests to commands, events to bytes."""

from __future__ import annotations

from typing import overload

import msgspec
from google.protobuf.message import Message

from billing.v1.account_model_pb2 import Account as AccountMessage
from billing.v1.account_model_pb2 import ApiKey as ApiKeyMessage
from billing.v1.automation_model_pb2 import Automation as AutomationMessage
from billing.v1.automation_model_pb2 import AutomationCondition as ConditionMessage
from billing.v1.automation_model_pb2 import AutomationRun as AutomationRunMessage
from billing.v1.catalog_model_pb2 import Price as PriceMessage
from billing.v1.catalog_model_pb2 import Product as ProductMessage
from billing.v1.customer_model_pb2 import BalanceTransaction as BalanceTransactionMessage
from billing.v1.customer_model_pb2 import Customer as CustomerMessage
from billing.v1.customer_model_pb2 import PaymentMethod as PaymentMethodMessage
from billing.v1.invoice_model_pb2 import CreditNote as CreditNoteMessage
from billing.v1.invoice_model_pb2 import Invoice as InvoiceMessage
from billing.v1.invoice_model_pb2 import InvoiceItem as InvoiceItemMessage
from billing.v1.meter_model_pb2 import Meter as MeterMessage
from billing.v1.payment_model_pb2 import PaymentAttempt as PaymentAttemptMessage
from billing.v1.payment_model_pb2 import PaymentIntent as PaymentIntentMessage
from billing.v1.payment_model_pb2 import Refund as RefundMessage
from billing.v1.schedule_model_pb2 import SubscriptionSchedule as SubscriptionScheduleMessage
from billing.v1.subscription_model_pb2 import Subscription as SubscriptionMessage
from billing.v1.test_clock_model_pb2 import TestClock as TestClockMessage
from billing.v1.webhook_model_pb2 import WebhookDelivery as WebhookDeliveryMessage
from billing.v1.webhook_model_pb2 import WebhookEndpoint as WebhookEndpointMessage
from billing_server.domain.account import Account, ApiKey
from billing_server.domain.automation import Automation, AutomationRun, Condition
from billing_server.domain.catalog import Price, Product
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem
from billing_server.domain.meter import Meter
from billing_server.domain.payment import PaymentAttempt, PaymentIntent, Refund
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint
from billing_server.wire.decoding import decode
from billing_server.wire.encoding import ENCODERS
from billing_server.wire.events import (
    Known,
    batch_bytes,
    encode_event,
    event_batch_bytes,
    event_id,
    event_json,
    framed,
    framed_one,
    position_of,
    redelivery_bytes,
    with_position,
)
from billing_server.wire.parsing import parse
from billing_server.wire.values import check

__all__ = [
    "Known",
    "batch_bytes",
    "check",
    "decode",
    "encode",
    "encode_event",
    "event_batch_bytes",
    "event_id",
    "event_json",
    "framed",
    "framed_one",
    "parse",
    "position_of",
    "redelivery_bytes",
    "serialize",
    "with_position",
]


@overload
def encode(obj: Account, now: int | None = None) -> AccountMessage: ...
@overload
def encode(obj: ApiKey, now: int | None = None) -> ApiKeyMessage: ...
@overload
def encode(obj: Product, now: int | None = None) -> ProductMessage: ...
@overload
def encode(obj: Price, now: int | None = None) -> PriceMessage: ...
@overload
def encode(obj: Meter, now: int | None = None) -> MeterMessage: ...
@overload
def encode(obj: Automation, now: int | None = None) -> AutomationMessage: ...
@overload
def encode(obj: Condition, now: int | None = None) -> ConditionMessage: ...
@overload
def encode(obj: AutomationRun, now: int | None = None) -> AutomationRunMessage: ...
@overload
def encode(obj: Customer, now: int | None = None) -> CustomerMessage: ...
@overload
def encode(obj: PaymentMethod, now: int | None = None) -> PaymentMethodMessage: ...
@overload
def encode(obj: BalanceTransaction, now: int | None = None) -> BalanceTransactionMessage: ...
@overload
def encode(obj: Subscription, now: int | None = None) -> SubscriptionMessage: ...
@overload
def encode(obj: SubscriptionSchedule, now: int | None = None) -> SubscriptionScheduleMessage: ...
@overload
def encode(obj: Invoice, now: int | None = None) -> InvoiceMessage: ...
@overload
def encode(obj: InvoiceItem, now: int | None = None) -> InvoiceItemMessage: ...
@overload
def encode(obj: CreditNote, now: int | None = None) -> CreditNoteMessage: ...
@overload
def encode(obj: PaymentIntent, now: int | None = None) -> PaymentIntentMessage: ...
@overload
def encode(obj: PaymentAttempt, now: int | None = None) -> PaymentAttemptMessage: ...
@overload
def encode(obj: Refund, now: int | None = None) -> RefundMessage: ...
@overload
def encode(obj: TestClock, now: int | None = None) -> TestClockMessage: ...
@overload
def encode(obj: WebhookEndpoint, now: int | None = None) -> WebhookEndpointMessage: ...
@overload
def encode(obj: WebhookDelivery, now: int | None = None) -> WebhookDeliveryMessage: ...
@overload
def encode(obj: msgspec.Struct, now: int | None = None) -> Message: ...
def encode(obj: msgspec.Struct, now: int | None = None) -> Message:
    """The message of an object, as it is seen at `now` (UTC seconds of the engine or the test clock).

    Without `now` an invoice is never shown as overdue.
    """
    return ENCODERS[type(obj)].message(obj, now)


def serialize(obj: msgspec.Struct, now: int | None = None) -> bytes:
    """The same message, serialized: for answers and events, which need nothing but its bytes."""
    return ENCODERS[type(obj)].serialize(obj, now)
