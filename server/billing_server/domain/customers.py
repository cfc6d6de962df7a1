"""What callers do with customers, their payment methods and their balance."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from billing_server.domain import automation_runs, schedule_status
from billing_server.domain.balance import change_balance
from billing_server.domain.collection import chargeable_method
from billing_server.domain.commands import (
    AdjustBalance,
    AttachPaymentMethod,
    CreateCustomer,
    DeleteCustomer,
    DetachPaymentMethod,
    UpdateCustomer,
    UpdatePaymentMethod,
)
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.errors import WrongState, invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.money import BALANCE_MAX
from billing_server.domain.signup import fix_currency, refuse_deleted
from billing_server.domain.termination import end, expire
from billing_server.domain.turn import NewId, Turn

_PLAIN = (
    "email",
    "name",
    "phone",
    "description",
    "address",
    "shipping",
    "preferred_locale",
    "tax_exempt",
    "invoice_prefix",
)


def new_customer(command: CreateCustomer, *, now: int, new_id: NewId) -> Customer:
    """The customer as first written; the turn that follows tells of it and sets the initial balance."""
    customer_id = new_id("cus")
    return Customer(
        id=customer_id,
        created=now,
        invoice_prefix=command.invoice_prefix or customer_id[-8:].upper(),
        email=command.email,
        name=command.name,
        phone=command.phone,
        description=command.description,
        address=command.address,
        shipping=command.shipping,
        preferred_locale=command.preferred_locale,
        currency=command.currency,
        next_invoice_sequence=command.next_invoice_sequence or 1,
        tax_exempt=command.tax_exempt,
        metadata=initial_metadata(command.metadata),
        test_clock=command.test_clock,
    )


def create_customer(turn: Turn, command: CreateCustomer) -> Customer:
    """Tell of a new customer; an initial balance is a transaction like any other."""
    if command.balance:
        if command.currency is None:
            raise invalid("currency", "parameter_missing", "a balance needs a currency")
        change_balance(turn, command.balance, "initial", currency=command.currency)
        turn.put(msgspec.structs.replace(turn.customer, version=1))
    turn.emit("customer.created", turn.customer)
    automation_runs.trigger(turn, "customer_created", "customer.created")
    return turn.customer


def update_customer(turn: Turn, command: UpdateCustomer) -> Customer:
    """Change what is known of a customer."""
    customer = turn.customer
    refuse_deleted(customer)
    check_etag(command.etag, customer.version)
    changes: dict[str, Any] = {name: getattr(command, name) for name in _PLAIN if getattr(command, name) is not UNSET}
    if command.default_payment_method is not UNSET:
        if command.default_payment_method is not None:
            chargeable_method(turn, command.default_payment_method, "default_payment_method")
        changes["default_payment_method"] = command.default_payment_method
    if command.next_invoice_sequence is not UNSET:
        if command.next_invoice_sequence < customer.next_invoice_sequence:
            raise invalid(
                "next_invoice_sequence",
                "parameter_invalid",
                f"invoice numbers are never used again; at least {customer.next_invoice_sequence}",
            )
        changes["next_invoice_sequence"] = command.next_invoice_sequence
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(customer.metadata, command.metadata)
    return turn.revise(customer, changes)


def delete_customer(turn: Turn, command: DeleteCustomer) -> Customer:
    """Delete for good: subscriptions are canceled at once, nothing is collected any more.

    Invoices without a live subscription are not loaded here; each is stopped when it would have been collected.
    """
    refuse_deleted(turn.customer)
    check_etag(command.etag, turn.customer.version)
    for subscription in list(turn.subscriptions.values()):
        if subscription.status == "incomplete":
            expire(turn, subscription)
        elif not subscription.terminal:
            end(turn, subscription, "cancellation_requested")
    for schedule in list(turn.schedules.values()):
        if not schedule.ended:
            schedule_status.cancel(turn, schedule)
    customer = turn.alter(turn.customer, deleted=True)
    turn.emit("customer.deleted", customer)
    return customer


def attach_payment_method(turn: Turn, command: AttachPaymentMethod) -> PaymentMethod:
    """Attach a way to pay, by the name that the payment gateway knows."""
    refuse_deleted(turn.customer)
    method = turn.put(
        PaymentMethod(
            id=turn.new_id("pm"),
            created=turn.now,
            customer=turn.customer.id,
            type=command.type,
            token=command.token,
            card=command.card,
            billing_name=command.billing_name,
            billing_email=command.billing_email,
            metadata=initial_metadata(command.metadata),
        )
    )
    turn.emit("payment_method.attached", method)
    if command.set_default:
        chargeable_method(turn, method.id, "set_default")
        turn.updated(turn.alter(turn.customer, default_payment_method=method.id))
    return method


def _attached(turn: Turn, method_id: str) -> PaymentMethod:
    method = turn.payment_methods.get(method_id)
    if method is None or method.detached_at is not None:
        raise WrongState(
            "payment_method_detached", "the payment method is detached; attach a new one", subject=method_id
        )
    return method


def update_payment_method(turn: Turn, command: UpdatePaymentMethod) -> PaymentMethod:
    """Change what is known of a payment method, such as a card's new expiry."""
    method = _attached(turn, command.id)
    check_etag(command.etag, method.version)
    changes: dict[str, Any] = {
        name: getattr(command, name)
        for name in ("billing_name", "billing_email")
        if getattr(command, name) is not UNSET
    }
    expiry = {name: getattr(command, name) for name in ("exp_month", "exp_year") if getattr(command, name) is not UNSET}
    if expiry:
        if method.card is None:
            raise invalid("exp_month", "payment_method_unsuitable", "only cards expire; this is not a card")
        changes["card"] = msgspec.structs.replace(method.card, **expiry)
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(method.metadata, command.metadata)
    return turn.revise(method, changes)


def detach_payment_method(turn: Turn, command: DetachPaymentMethod) -> PaymentMethod:
    """Detach for good; whoever had it as default has none."""
    method = turn.alter(_attached(turn, command.id), detached_at=turn.now)
    turn.emit("payment_method.detached", method)
    if turn.customer.default_payment_method == method.id:
        turn.updated(turn.alter(turn.customer, default_payment_method=None))
    for subscription in list(turn.subscriptions.values()):
        if subscription.default_payment_method == method.id and not subscription.terminal:
            turn.updated(turn.alter(subscription, default_payment_method=None))
    return method


def adjust_balance(turn: Turn, command: AdjustBalance) -> BalanceTransaction:
    """Credit (negative) or debit (positive) the customer; applied at the next finalization."""
    refuse_deleted(turn.customer)
    currency = command.currency or turn.customer.currency
    if currency is None:
        raise invalid("currency", "balance_currency_unknown", "the customer has no currency yet; name one")
    fix_currency(turn, currency, "currency")
    if abs(turn.customer.balance + command.amount) > BALANCE_MAX:
        raise invalid("amount", "amount_too_large", f"a balance is at most {BALANCE_MAX} minor units; use less")
    return change_balance(
        turn,
        command.amount,
        "adjustment",
        currency=currency,
        description=command.description,
        metadata=initial_metadata(command.metadata),
    )
