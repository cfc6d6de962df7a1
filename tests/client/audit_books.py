"""A customer's book in which everything adds up, for tests that break one thing in it."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import payment_model_pb2 as pay
from billing.v1 import test_clock_model_pb2 as clocks
from billing.v1.catalog_model_pb2 import Interval, Price, Recurring
from billing.v1.customer_model_pb2 import BalanceTransaction, BalanceTransactionType, Customer, PaymentMethod
from billing.v1.invoice_model_pb2 import (
    BillingReason,
    CreditNote,
    CreditNoteStatus,
    CreditNoteType,
    Invoice,
    InvoiceItem,
    InvoiceLine,
    InvoiceStatus,
    LineType,
)
from billing.v1.subscription_model_pb2 import (
    CollectionMethod,
    Subscription,
    SubscriptionItem,
    SubscriptionStatus,
)
from billing_client.audit.book import Book, Shared
from billing_client.instants import add_months

START = 1735689600
"""2025-01-01T00:00:00Z."""

NOW = add_months(START, 3) - 86_400
HOUR = 3600
PRICE = 1000

CHARGED = CollectionMethod.COLLECTION_METHOD_CHARGE_AUTOMATICALLY
SENT = CollectionMethod.COLLECTION_METHOD_SEND_INVOICE
CREATE = BillingReason.BILLING_REASON_SUBSCRIPTION_CREATE
CYCLE = BillingReason.BILLING_REASON_SUBSCRIPTION_CYCLE
MANUAL = BillingReason.BILLING_REASON_MANUAL


def at(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def shared() -> Shared:
    """One monthly price, and a clock that stands in the third month."""
    price = Price(
        id="price_1",
        currency="usd",
        active=True,
        unit_amount=str(PRICE),
        recurring=Recurring(interval=Interval.INTERVAL_MONTH),
    )
    once = Price(id="price_2", currency="usd", active=True, unit_amount="700")
    clock = clocks.TestClock(id="clock_1", frozen_time=at(NOW), status=clocks.TEST_CLOCK_STATUS_READY)
    return Shared(now=NOW, prices={price.id: price, once.id: once}, clocks={clock.id: clock})


def book() -> Book:
    """Two subscriptions, charged and sent, with three months each; a void invoice whose payment came too late;
    and an invoice of an item, open after a decline."""
    found = Book(
        Customer(
            id="cus_1",
            invoice_prefix="ABC",
            currency="usd",
            balance=-250,
            next_invoice_sequence=9,
            default_payment_method="pm_1",
            test_clock="clock_1",
        ),
        payment_methods={"pm_1": PaymentMethod(id="pm_1", customer="cus_1")},
    )
    found.subscriptions = [_subscription(1, CHARGED), _subscription(2, SENT)]
    for month in range(3):
        _add_charged(found, month)
        _add_sent(found, month)
    _add_void(found)
    _add_open(found)
    found.invoices.sort(key=lambda invoice: (invoice.created.seconds, invoice.id))
    found.balance_transactions = _history()
    return found


def _subscription(number: int, method: CollectionMethod.ValueType) -> Subscription:
    begin, end = add_months(START, 2), add_months(START, 3)
    return Subscription(
        id=f"sub_{number}",
        created=at(START),
        customer="cus_1",
        status=SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE,
        currency="usd",
        interval=Interval.INTERVAL_MONTH,
        interval_count=1,
        collection_method=method,
        current_period_start=at(begin),
        current_period_end=at(end),
        latest_invoice=f"in_{number}2",
        test_clock="clock_1",
        items=[
            SubscriptionItem(
                id=f"si_{number}",
                price="price_1",
                quantity=1,
                current_period_start=at(begin),
                current_period_end=at(end),
            )
        ],
    )


def _invoice(
    identity: str, created: int, sequence: int, amount: int, method: CollectionMethod.ValueType = CHARGED
) -> Invoice:
    invoice = Invoice(
        id=identity,
        created=at(created),
        customer="cus_1",
        currency="usd",
        status=InvoiceStatus.INVOICE_STATUS_PAID,
        collection_method=method,
        number=f"ABC-{sequence:04d}",
        subtotal=amount,
        total=amount,
        ending_balance=0,
        amount_due=amount,
        amount_paid=amount,
        finalized_at=at(created + HOUR),
        paid_at=at(created + HOUR),
        test_clock="clock_1",
    )
    if method == SENT:
        invoice.due_date.seconds = created + 30 * 86_400
    return invoice


def _bill(invoice: Invoice, number: int, month: int) -> None:
    invoice.subscription = f"sub_{number}"
    invoice.billing_reason = CYCLE if month else CREATE
    invoice.lines.append(
        InvoiceLine(
            id=f"il_{invoice.id}",
            type=LineType.LINE_TYPE_SUBSCRIPTION_ITEM,
            amount=PRICE,
            price="price_1",
            subscription_item=f"si_{number}",
            period_start=at(add_months(START, month)),
            period_end=at(add_months(START, month + 1)),
        )
    )


def _attempt(invoice: Invoice, state: pay.AttemptState.ValueType, amount: int = PRICE) -> pay.PaymentAttempt:
    moment = at(invoice.created.seconds + HOUR)
    return pay.PaymentAttempt(
        id=f"pa_{invoice.id}",
        created=moment,
        customer="cus_1",
        invoice=invoice.id,
        number=1,
        kind=pay.ATTEMPT_KIND_INITIAL,
        due_at=moment,
        settled_at=moment,
        amount=amount,
        currency="usd",
        payment_method="pm_1",
        state=state,
    )


def _intent(invoice: Invoice, status: pay.PaymentIntentStatus.ValueType, amount: int, received: int) -> None:
    invoice.payment_intent.CopyFrom(
        pay.PaymentIntent(
            id=f"pi_{invoice.id.removeprefix('in_')}",
            invoice=invoice.id,
            customer="cus_1",
            amount=amount,
            amount_received=received,
            currency="usd",
            status=status,
        )
    )


def _add_charged(found: Book, month: int) -> None:
    invoice = _invoice(f"in_1{month}", add_months(START, month), 1 + 2 * month, PRICE)
    _bill(invoice, 1, month)
    invoice.attempted = True
    invoice.attempt_count = 1
    _intent(invoice, pay.PAYMENT_INTENT_STATUS_SUCCEEDED, PRICE, PRICE)
    found.invoices.append(invoice)
    found.attempts.append(_attempt(invoice, pay.ATTEMPT_STATE_SUCCEEDED))


def _add_sent(found: Book, month: int) -> None:
    """Paid by check. The first one consumed credit of 500, and a credit note lowered it by 100."""
    invoice = _invoice(f"in_2{month}", add_months(START, month), 2 + 2 * month, PRICE, SENT)
    _bill(invoice, 2, month)
    invoice.paid_out_of_band = True
    _intent(invoice, pay.PAYMENT_INTENT_STATUS_REQUIRES_PAYMENT_METHOD, PRICE, 0)
    if month == 0:
        invoice.starting_balance = -500
        invoice.pre_payment_credit_notes_amount = 100
        invoice.amount_due = invoice.amount_paid = PRICE - 500 - 100
        found.credit_notes.append(
            CreditNote(
                id="cn_1",
                customer="cus_1",
                invoice=invoice.id,
                currency="usd",
                amount=100,
                pre_payment_amount=100,
                type=CreditNoteType.CREDIT_NOTE_TYPE_PRE_PAYMENT,
                status=CreditNoteStatus.CREDIT_NOTE_STATUS_ISSUED,
            )
        )
    found.invoices.append(invoice)


def _add_void(found: Book) -> None:
    """Void, having consumed credit of 250, when the charge came through all the same; it was given back."""
    invoice = _invoice("in_30", START + 5 * 86_400, 7, 750)
    invoice.ClearField("paid_at")
    invoice.status = InvoiceStatus.INVOICE_STATUS_VOID
    invoice.billing_reason = MANUAL
    invoice.starting_balance = -250
    invoice.amount_due = invoice.amount_remaining = 500
    invoice.amount_paid = 0
    invoice.attempt_count = 1
    invoice.voided_at.seconds = START + 6 * 86_400
    invoice.lines.append(
        InvoiceLine(id="il_30", type=LineType.LINE_TYPE_INVOICE_ITEM, amount=750, invoice_item="ii_30")
    )
    _intent(invoice, pay.PAYMENT_INTENT_STATUS_CANCELED, 500, 0)
    attempt = _attempt(invoice, pay.ATTEMPT_STATE_SUCCEEDED, 500)
    attempt.amount_refunded = 500
    found.invoice_items.append(InvoiceItem(id="ii_30", customer="cus_1", currency="usd", amount=750, invoice="in_30"))
    found.invoices.append(invoice)
    found.attempts.append(attempt)
    found.refunds.append(
        pay.Refund(
            id="re_1",
            customer="cus_1",
            invoice="in_30",
            attempt=attempt.id,
            amount=500,
            currency="usd",
            reason=pay.REFUND_REASON_LATE_PAYMENT,
            status=pay.REFUND_STATUS_SUCCEEDED,
        )
    )


def _add_open(found: Book) -> None:
    """Declined once, retried once without a charge."""
    invoice = _invoice("in_40", START + 7 * 86_400, 8, 700)
    invoice.ClearField("paid_at")
    invoice.status = InvoiceStatus.INVOICE_STATUS_OPEN
    invoice.billing_reason = MANUAL
    invoice.amount_paid = 0
    invoice.amount_remaining = 700
    invoice.attempt_count = 2
    invoice.lines.append(
        InvoiceLine(id="il_40", type=LineType.LINE_TYPE_INVOICE_ITEM, amount=700, price="price_2", invoice_item="ii_40")
    )
    _intent(invoice, pay.PAYMENT_INTENT_STATUS_REQUIRES_PAYMENT_METHOD, 700, 0)
    declined = _attempt(invoice, pay.ATTEMPT_STATE_FAILED, 700)
    declined.error.code = "card_declined"
    retried = _attempt(invoice, pay.ATTEMPT_STATE_NOT_EXECUTED, 700)
    retried.id = "pa_in_40_2"
    retried.number = 2
    retried.kind = pay.ATTEMPT_KIND_RETRY
    retried.error.code = "card_declined"
    waiting = InvoiceItem(id="ii_41", customer="cus_1", currency="usd", amount=50)
    found.invoice_items += [
        InvoiceItem(id="ii_40", customer="cus_1", currency="usd", amount=700, price="price_2", invoice="in_40"),
        waiting,
    ]
    found.invoices.append(invoice)
    found.attempts += [declined, retried]


def _history() -> list[BalanceTransaction]:
    kinds = BalanceTransactionType
    changes = [
        (-750, kinds.BALANCE_TRANSACTION_TYPE_INITIAL, ""),
        (250, kinds.BALANCE_TRANSACTION_TYPE_ADJUSTMENT, ""),
        (500, kinds.BALANCE_TRANSACTION_TYPE_APPLIED_TO_INVOICE, "in_20"),
        (-250, kinds.BALANCE_TRANSACTION_TYPE_ADJUSTMENT, ""),
        (250, kinds.BALANCE_TRANSACTION_TYPE_APPLIED_TO_INVOICE, "in_30"),
        (-250, kinds.BALANCE_TRANSACTION_TYPE_UNAPPLIED_FROM_INVOICE, "in_30"),
    ]
    history = []
    balance = 0
    for number, (amount, kind, invoice) in enumerate(changes):
        balance += amount
        history.append(
            BalanceTransaction(
                id=f"cbtxn_{number}",
                customer="cus_1",
                currency="usd",
                amount=amount,
                ending_balance=balance,
                type=kind,
                invoice=invoice,
            )
        )
    return history
