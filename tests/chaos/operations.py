"""What the load does: a list of operations, each a short piece of some customer's life.

An operation takes the shop and its own dice, asks for what it needs, and need not care for failures: what is
refused, and what nobody answered, ends it. To add a room to the chaos, add its operations to `OPERATIONS`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.customer_service_pb2 import (
    AdjustBalanceRequest,
    AttachPaymentMethodRequest,
    CreateCustomerRequest,
    UpdateCustomerRequest,
)
from billing.v1.event_service_pb2 import ListEventsRequest
from billing.v1.invoice_model_pb2 import InvoiceStatus
from billing.v1.invoice_service_pb2 import (
    CreateCreditNoteRequest,
    CreateInvoiceItemRequest,
    CreateInvoiceRequest,
    FinalizeInvoiceRequest,
    ListInvoicesRequest,
    PayInvoiceRequest,
    VoidInvoiceRequest,
)
from billing.v1.payment_service_pb2 import ConfirmPaymentIntentRequest, CreateRefundRequest
from billing.v1.schedule_model_pb2 import PhaseItem
from billing.v1.schedule_service_pb2 import CreateSubscriptionScheduleRequest, PhaseParams
from billing.v1.subscription_model_pb2 import PaymentBehavior
from billing.v1.subscription_service_pb2 import (
    CancelSubscriptionRequest,
    CreateSubscriptionRequest,
    GetSubscriptionRequest,
    ItemChange,
    ItemParams,
    UpdateSubscriptionRequest,
)
from billing.v1.test_clock_service_pb2 import AdvanceTestClockRequest, GetTestClockRequest
from billing.v1.webhook_service_pb2 import RotateWebhookSecretRequest
from billing_client.errors import from_rpc_error
from tests.chaos.calls import GaveUp
from tests.chaos.shop import Buyer, Shop

DAY: Final = 86_400
TRIAL_SECONDS_MAX: Final = 20

TOKENS: Final = (
    "succeed",
    "succeed",
    "succeed",
    "decline,succeed",
    "succeed,decline,decline,succeed",
    "decline",
    "decline_for_good",
    "authenticate",
)
"""What becomes of charges, as the gateway of the chaos reads it."""

_BEHAVIORS: Final = (
    PaymentBehavior.PAYMENT_BEHAVIOR_ALLOW_INCOMPLETE,
    PaymentBehavior.PAYMENT_BEHAVIOR_ALLOW_INCOMPLETE,
    PaymentBehavior.PAYMENT_BEHAVIOR_DEFAULT_INCOMPLETE,
    PaymentBehavior.PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE,
)


class Operation(NamedTuple):
    """Something that somebody does, so many times as often as others."""

    weight: int
    run: Callable[[Shop, random.Random], Awaitable[None]]


async def sign_up(shop: Shop, dice: random.Random) -> None:
    """A new customer with a card and a subscription."""
    clock = shop.clock(dice)
    request = CreateCustomerRequest(name="Ada", email="ada@home.example", test_clock=clock)
    made = await shop.calls.change(dice, "customers", "CreateCustomer", request)
    buyer = Buyer(made.id, clock)
    shop.buyers.append(buyer)
    await _attach(shop, dice, buyer)
    await _subscribe(shop, dice, buyer)


async def pay_unheard(shop: Shop, dice: random.Random) -> None:
    """A new customer whose first payment succeeds without an answer: what every storm begins with."""
    request = CreateCustomerRequest(name="Ada", email="ada@home.example", test_clock=dice.choice(list(shop.times)))
    buyer = Buyer((await shop.calls.change(dice, "customers", "CreateCustomer", request)).id, request.test_clock)
    card = AttachPaymentMethodRequest(customer=buyer.id, token="silent", set_default=True)
    await shop.calls.change(dice, "customers", "AttachPaymentMethod", card)
    items = [ItemParams(price=dice.choice(shop.prices), quantity=1)]
    subscribing = CreateSubscriptionRequest(customer=buyer.id, items=items)
    made = await shop.calls.change(dice, "subscriptions", "CreateSubscription", subscribing)
    buyer.subscriptions.append(made.id)
    shop.buyers.append(buyer)


async def another_card(shop: Shop, dice: random.Random) -> None:
    """Somebody pays with another card from now on."""
    buyer = shop.buyer(dice)
    if buyer is not None:
        await _attach(shop, dice, buyer)


async def another_subscription(shop: Shop, dice: random.Random) -> None:
    """Somebody subscribes once more, perhaps with a trial."""
    buyer = shop.buyer(dice)
    if buyer is not None and len(buyer.subscriptions) < 4:
        await _subscribe(shop, dice, buyer)


async def _attach(shop: Shop, dice: random.Random, buyer: Buyer) -> None:
    request = AttachPaymentMethodRequest(customer=buyer.id, token=dice.choice(TOKENS), set_default=True)
    await shop.calls.change(dice, "customers", "AttachPaymentMethod", request)


async def _subscribe(shop: Shop, dice: random.Random, buyer: Buyer) -> None:
    request = CreateSubscriptionRequest(
        customer=buyer.id,
        items=[ItemParams(price=dice.choice(shop.prices), quantity=dice.randint(1, 3))],
        payment_behavior=dice.choice(_BEHAVIORS),
    )
    if not buyer.clock:
        # Real time does not wait for a month: a trial of seconds makes it wake up soon.
        request.trial_end.CopyFrom(Timestamp(seconds=int(time.time()) + dice.randint(2, TRIAL_SECONDS_MAX)))
    elif dice.random() < 0.2:
        request.trial_period_days = dice.choice((1, 7, 30))
    made = await shop.calls.change(dice, "subscriptions", "CreateSubscription", request)
    buyer.subscriptions.append(made.id)


def _subscription(shop: Shop, dice: random.Random) -> str | None:
    buyer = shop.buyer(dice)
    return dice.choice(buyer.subscriptions) if buyer is not None and buyer.subscriptions else None


async def change_quantity(shop: Shop, dice: random.Random) -> None:
    """Somebody takes more or less of it."""
    identity = _subscription(shop, dice)
    if identity is None:
        return
    read = GetSubscriptionRequest(id=identity)
    subscription = await shop.calls.read(dice, "subscriptions", "GetSubscription", read)
    if not subscription.items:
        return
    item = ItemChange(id=subscription.items[0].id, quantity=dice.randint(1, 5))
    request = UpdateSubscriptionRequest(id=identity, items=[item], payment_behavior=dice.choice(_BEHAVIORS[:2]))
    await shop.calls.change(dice, "subscriptions", "UpdateSubscription", request)


async def cancel(shop: Shop, dice: random.Random) -> None:
    """Somebody has had enough, at once or at the period's end."""
    identity = _subscription(shop, dice)
    if identity is None:
        return
    if dice.random() < 0.5:
        later = UpdateSubscriptionRequest(id=identity, cancel_at_period_end=True)
        await shop.calls.change(dice, "subscriptions", "UpdateSubscription", later)
    else:
        now = CancelSubscriptionRequest(id=identity, prorate=dice.random() < 0.5)
        await shop.calls.change(dice, "subscriptions", "CancelSubscription", now)


async def plan_phases(shop: Shop, dice: random.Random) -> None:
    """Somebody is to begin later, and to change the price after a while."""
    buyer = shop.buyer(dice)
    if buyer is None or not buyer.clock:
        return
    phases = [PhaseParams(items=[PhaseItem(price=price)], iterations=1) for price in dice.sample(shop.prices, 2)]
    start = Timestamp(seconds=shop.times[buyer.clock] + dice.randint(1, 20) * DAY)
    request = CreateSubscriptionScheduleRequest(customer=buyer.id, start_date=start, phases=phases)
    await shop.calls.change(dice, "schedules", "CreateSubscriptionSchedule", request)


async def one_off(shop: Shop, dice: random.Random) -> None:
    """Work is invoiced, finalized and paid by hand."""
    buyer = shop.buyer(dice)
    if buyer is None:
        return
    item = CreateInvoiceItemRequest(customer=buyer.id, amount=dice.randint(100, 9000), currency="usd")
    await shop.calls.change(dice, "invoices", "CreateInvoiceItem", item)
    draft = await shop.calls.change(dice, "invoices", "CreateInvoice", CreateInvoiceRequest(customer=buyer.id))
    await shop.calls.change(dice, "invoices", "FinalizeInvoice", FinalizeInvoiceRequest(id=draft.id))
    await shop.calls.change(dice, "invoices", "PayInvoice", PayInvoiceRequest(id=draft.id))


async def _invoice(shop: Shop, dice: random.Random, status: InvoiceStatus.ValueType) -> Any:
    buyer = shop.buyer(dice)
    if buyer is None:
        return None
    request = ListInvoicesRequest(customer=buyer.id, status=status, page_size=20)
    found = (await shop.calls.read(dice, "invoices", "ListInvoices", request)).invoices
    return dice.choice(found) if found else None


async def pay(shop: Shop, dice: random.Random) -> None:
    """Somebody pays an open invoice, perhaps after authenticating, perhaps in cash."""
    invoice = await _invoice(shop, dice, InvoiceStatus.INVOICE_STATUS_OPEN)
    if invoice is None:
        return
    if invoice.HasField("payment_intent") and dice.random() < 0.5:
        confirm = ConfirmPaymentIntentRequest(id=invoice.payment_intent.id)
        await shop.calls.change(dice, "payments", "ConfirmPaymentIntent", confirm)
    else:
        by_hand = PayInvoiceRequest(id=invoice.id, paid_out_of_band=dice.random() < 0.1)
        await shop.calls.change(dice, "invoices", "PayInvoice", by_hand)


async def void(shop: Shop, dice: random.Random) -> None:
    """An open invoice is given up."""
    invoice = await _invoice(shop, dice, InvoiceStatus.INVOICE_STATUS_OPEN)
    if invoice is not None:
        await shop.calls.change(dice, "invoices", "VoidInvoice", VoidInvoiceRequest(id=invoice.id))


async def refund(shop: Shop, dice: random.Random) -> None:
    """Somebody gets money back, or a credit note."""
    invoice = await _invoice(shop, dice, InvoiceStatus.INVOICE_STATUS_PAID)
    if invoice is None or invoice.amount_paid < 100:
        return
    if dice.random() < 0.5 and invoice.HasField("payment_intent"):
        request = CreateRefundRequest(payment_intent=invoice.payment_intent.id, amount=dice.randint(1, 100))
        await shop.calls.change(dice, "payments", "CreateRefund", request)
    else:
        note = CreateCreditNoteRequest(invoice=invoice.id, amount=50, credit_amount=50)
        await shop.calls.change(dice, "invoices", "CreateCreditNote", note)


async def adjust(shop: Shop, dice: random.Random) -> None:
    """Somebody is given credit, or renamed."""
    buyer = shop.buyer(dice)
    if buyer is None:
        return
    if dice.random() < 0.5:
        credit = AdjustBalanceRequest(customer=buyer.id, amount=-dice.randint(1, 500), currency="usd")
        await shop.calls.change(dice, "customers", "AdjustBalance", credit)
    else:
        renamed = UpdateCustomerRequest(id=buyer.id, name=f"Ada {dice.randint(1, 9)}")
        await shop.calls.change(dice, "customers", "UpdateCustomer", renamed)


async def look(shop: Shop, dice: random.Random) -> None:
    """Somebody reads what happened last."""
    await shop.calls.read(dice, "event_log", "ListEvents", ListEventsRequest(page_size=50))


async def be_a_neighbour(shop: Shop, dice: random.Random) -> None:
    """Something happens in another account."""
    await shop.neighbour.calls.change(dice, "customers", "CreateCustomer", CreateCustomerRequest(name="Eve"))


async def rotate_secret(shop: Shop, dice: random.Random) -> None:
    """An endpoint gets another secret; the old one is good for another hour."""
    receiver = dice.choice(shop.audience.receivers)
    request = RotateWebhookSecretRequest(id=receiver.endpoint, grace_seconds=3_600)
    made = await shop.calls.change(dice, "webhooks", "RotateWebhookSecret", request)
    receiver.secrets.append(made.secret)


async def move_clock(shop: Shop, dice: random.Random) -> None:
    """Time passes for a quarter of the customers: renewals, retries, expiries. Whoever asked may go away."""
    clock = dice.choice(list(shop.times))
    if clock in shop.moving:
        return
    shop.moving.add(clock)
    target = shop.times[clock] + dice.choice((1, 4, 9, 24)) * DAY + dice.choice((0, 3_600))
    shop.calls.counts["AdvanceTestClock"] += 1
    try:
        await _advance(shop, dice, clock, target)
        shop.times[clock] = target
    finally:
        shop.moving.discard(clock)


async def _advance(shop: Shop, dice: random.Random, clock: str, target: int) -> None:
    """Ask one server after the other until the clock has arrived."""
    request = AdvanceTestClockRequest(id=clock, frozen_time=Timestamp(seconds=target))
    while time.monotonic() < shop.calls.until:
        client = dice.choice(shop.calls.clients)
        try:
            async for progress in client.test_clocks.AdvanceTestClock(request, timeout=5.0):
                if progress.done:
                    return
                if dice.random() < 0.05:
                    break
        except grpc.aio.AioRpcError as error:
            # Once it has arrived, its target is not ahead of it any more.
            if from_rpc_error(error).reason == "TEST_CLOCK_BACKWARDS":
                return
        known = await shop.calls.read(dice, "test_clocks", "GetTestClock", GetTestClockRequest(id=clock))
        if known.frozen_time.seconds >= target:
            return
    raise GaveUp(clock)


OPERATIONS: Final = (
    Operation(10, sign_up),
    Operation(4, another_card),
    Operation(5, another_subscription),
    Operation(6, change_quantity),
    Operation(3, cancel),
    Operation(2, plan_phases),
    Operation(6, one_off),
    Operation(8, pay),
    Operation(2, void),
    Operation(4, refund),
    Operation(4, adjust),
    Operation(2, look),
    Operation(2, be_a_neighbour),
    Operation(1, rotate_secret),
    Operation(10, move_clock),
)
