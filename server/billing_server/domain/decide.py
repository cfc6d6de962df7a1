"""The one entrance for commands: which book a command is about, how much of it it needs, and what it leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from billing_server.domain import (
    automation_runs,
    automation_steps,
    cancellation,
    change,
    confirmations,
    credit_notes,
    customers,
    invoice_commands,
    invoice_items,
    resumption,
    scheduling,
    settlement,
    signup,
)
from billing_server.domain import commands as c
from billing_server.domain.book import Book, Decision, Reach, Target
from billing_server.domain.customer import Customer
from billing_server.domain.errors import LimitReached, PaymentFailed
from billing_server.domain.event import Cause
from billing_server.domain.payment import PaymentAttempt
from billing_server.domain.turn import NewId, Pages, Turn

Handler = Callable[[Turn, Any], msgspec.Struct | None]

_HANDLERS: Mapping[type[c.Command], Handler] = {
    c.UpdateCustomer: customers.update_customer,
    c.DeleteCustomer: customers.delete_customer,
    c.AttachPaymentMethod: customers.attach_payment_method,
    c.UpdatePaymentMethod: customers.update_payment_method,
    c.DetachPaymentMethod: customers.detach_payment_method,
    c.AdjustBalance: customers.adjust_balance,
    c.CreateSubscription: signup.create_subscription,
    c.UpdateSubscription: change.update_subscription,
    c.CancelSubscription: cancellation.cancel_subscription,
    c.ResumeSubscription: resumption.resume_subscription,
    c.CreateSubscriptionSchedule: scheduling.create_schedule,
    c.UpdateSubscriptionSchedule: scheduling.update_schedule,
    c.CancelSubscriptionSchedule: scheduling.cancel_schedule,
    c.ReleaseSubscriptionSchedule: scheduling.release_schedule,
    c.CreateInvoice: invoice_commands.new_invoice,
    c.UpdateInvoice: invoice_commands.update_invoice,
    c.DeleteInvoice: invoice_commands.delete_invoice,
    c.FinalizeInvoice: invoice_commands.finalize_invoice,
    c.PayInvoice: invoice_commands.pay_invoice,
    c.SendInvoice: invoice_commands.send_invoice,
    c.VoidInvoice: invoice_commands.void_invoice,
    c.MarkInvoiceUncollectible: invoice_commands.mark_invoice_uncollectible,
    c.CreateInvoiceItem: invoice_items.create_invoice_item,
    c.UpdateInvoiceItem: invoice_items.update_invoice_item,
    c.DeleteInvoiceItem: invoice_items.delete_invoice_item,
    c.CreateCreditNote: credit_notes.create_credit_note,
    c.VoidCreditNote: credit_notes.void_credit_note,
    c.ConfirmPaymentIntent: confirmations.confirm_payment_intent,
    c.CreateRefund: credit_notes.create_refund,
    c.CancelAutomationRun: automation_runs.cancel_run,
    c.SettleAttempt: settlement.settle_attempt,
    c.SettleRefund: settlement.settle_refund,
}
"""What carries out each command about an existing customer's book."""

_CUSTOMER_IN_ID = (c.UpdateCustomer, c.DeleteCustomer)
_SUBSCRIPTION_IN_ID = (c.UpdateSubscription, c.CancelSubscription, c.ResumeSubscription)
_SCHEDULE_IN_ID = (
    c.UpdateSubscriptionSchedule,
    c.CancelSubscriptionSchedule,
    c.ReleaseSubscriptionSchedule,
)
_INVOICE_IN_ID = (
    c.UpdateInvoice,
    c.DeleteInvoice,
    c.FinalizeInvoice,
    c.PayInvoice,
    c.SendInvoice,
    c.VoidInvoice,
    c.MarkInvoiceUncollectible,
)
_ALL_OR_NOTHING = (c.CreateSubscription, c.UpdateSubscription)


def target(command: c.Command) -> Target:
    """The object whose customer's book the command is about."""
    if isinstance(command, _CUSTOMER_IN_ID):
        return Target("customer", command.id)
    if isinstance(command, _SUBSCRIPTION_IN_ID):
        return Target("subscription", command.id)
    if isinstance(command, _SCHEDULE_IN_ID):
        return Target("subscription_schedule", command.id)
    if isinstance(command, c.CreateSubscriptionSchedule) and command.from_subscription is not None:
        return Target("subscription", command.from_subscription)
    if isinstance(command, _INVOICE_IN_ID):
        return Target("invoice", command.id)
    if isinstance(command, c.CancelAutomationRun):
        return Target("automation_run", command.id)
    if isinstance(command, c.UpdatePaymentMethod | c.DetachPaymentMethod):
        return Target("payment_method", command.id)
    if isinstance(command, c.UpdateInvoiceItem | c.DeleteInvoiceItem):
        return Target("invoice_item", command.id)
    if isinstance(command, c.CreateCreditNote):
        return Target("invoice", command.invoice)
    if isinstance(command, c.VoidCreditNote):
        return Target("credit_note", command.id)
    if isinstance(command, c.ConfirmPaymentIntent):
        return Target("invoice", invoice_of_intent(command.id))
    if isinstance(command, c.CreateRefund):
        return Target("invoice", invoice_of_intent(command.payment_intent))
    customer: str = command.customer  # type: ignore[attr-defined]  # all other commands name their customer
    return Target("customer", customer)


def invoice_of_intent(intent_id: str) -> str:
    """The invoice that a payment intent collects: their ids share the suffix."""
    return f"in_{intent_id.removeprefix('pi_')}"


def reach(command: c.Command) -> Reach:
    """Which part of the book the command needs."""
    match command:
        case c.DeleteCustomer() | c.DetachPaymentMethod():
            return Reach(all_live=True)
        case c.CreateSubscription():
            return Reach(count_subscriptions=True)
        case c.UpdateSubscription() | c.CancelSubscription():
            return Reach(subscriptions=(command.id,), usage=True)
        case c.ResumeSubscription():
            return Reach(subscriptions=(command.id,))
        case c.FinalizeInvoice() | c.PayInvoice() | c.SendInvoice():
            return Reach(invoices=(command.id,), usage=True)
        case c.CreateSubscriptionSchedule(from_subscription=str(subscription)):
            return Reach(subscriptions=(subscription,), usage=True)
        case c.CreateSubscriptionSchedule():
            return Reach(count_subscriptions=True)
        case c.UpdateSubscriptionSchedule() | c.CancelSubscriptionSchedule() | c.ReleaseSubscriptionSchedule():
            return Reach(schedules=(command.id,), usage=True)
        case c.VoidInvoice():
            return Reach(invoices=(command.id,), history=True)
        case c.DeleteInvoice():
            return Reach(invoices=(command.id,), items_of_invoices=True)
        case c.CreateInvoice(subscription=str(subscription)):
            return Reach(subscriptions=(subscription,))
        case c.CreateInvoiceItem():
            return Reach(
                subscriptions=() if command.subscription is None else (command.subscription,),
                invoices=() if command.invoice is None else (command.invoice,),
            )
        case c.UpdateInvoiceItem() | c.DeleteInvoiceItem():
            return Reach(invoice_items=(command.id,))
        case c.CreateCreditNote():
            return Reach(invoices=(command.invoice,), attempts_of=(command.invoice,))
        case c.VoidCreditNote():
            return Reach(credit_notes=(command.id,))
        case c.ConfirmPaymentIntent():
            return Reach(invoices=(invoice_of_intent(command.id),))
        case c.CreateRefund():
            invoice = invoice_of_intent(command.payment_intent)
            return Reach(invoices=(invoice,), attempts_of=(invoice,))
        case c.SettleAttempt():
            return Reach(
                invoices=(command.invoice,),
                subscriptions=() if command.subscription is None else (command.subscription,),
                count_subscriptions=True,
            )
        case c.CancelAutomationRun():
            return Reach(runs=(command.id,))
        case c.SettleRefund():
            return Reach(invoices=(command.invoice,), attempts_of=(command.invoice,))
    if isinstance(command, _INVOICE_IN_ID):
        return Reach(invoices=(command.id,))
    return Reach()


def decide(
    book: Book, command: c.Command, *, now: int, wall_now: int, pages: Pages, new_id: NewId, cause: Cause
) -> Decision:
    """What a command about an existing customer leads to. A refusal is raised and leaves the book untouched."""
    settling = isinstance(command, c.SettleAttempt | c.SettleRefund)
    clock = book.test_clock
    if clock is not None and clock.status != "ready" and not settling:
        raise LimitReached(
            "test_clock_advancing",
            f"the test clock '{clock.id}' is {clock.status}; try again when it is ready",
            retry_after_seconds=1,
        )
    turn = Turn(book, now=now, wall_now=wall_now, pages=pages, new_id=new_id, cause=cause)
    handler = _HANDLERS.get(type(command))
    if handler is None:
        raise AssertionError(f"{type(command).__name__} is not about a customer's book")
    result = handler(turn, command)
    automation_steps.carry_on(turn)
    decision = turn.decision(_current(turn, result))
    if isinstance(command, _ALL_OR_NOTHING) and command.payment_behavior == "error_if_incomplete":
        return _propose(book, command, decision)
    return decision


def decide_new_customer(
    command: c.CreateCustomer, *, now: int, wall_now: int, pages: Pages, new_id: NewId, cause: Cause
) -> Decision:
    """What the creation of a customer leads to: a book that was not there before."""
    customer: Customer = customers.new_customer(command, now=now, new_id=new_id)
    turn = Turn(Book(customer=customer), now=now, wall_now=wall_now, pages=pages, new_id=new_id, cause=cause)
    customers.create_customer(turn, command)
    automation_steps.carry_on(turn)
    return turn.decision(turn.customer)


def _current(turn: Turn, result: msgspec.Struct | None) -> msgspec.Struct | None:
    """The result as it is at the end of the turn."""
    return result if result is None else turn.latest(result)


def _propose(book: Book, command: c.Command, decision: Decision) -> Decision:
    """All or nothing (semantics 2.3): keep only the attempt to charge, with the command as its proposal."""
    unexecuted = [
        attempt
        for attempt in decision.book.attempts.values()
        if attempt.state == "not_executed" and attempt.id not in book.attempts
    ]
    if unexecuted:
        raise PaymentFailed(
            "invoice_no_payment_method",
            "there is no payment method to charge, so nothing was created or changed; attach one first",
        )
    if not decision.charges:
        return decision
    attempt: PaymentAttempt = msgspec.structs.replace(decision.charges[0], proposal=settlement.encode_proposal(command))
    return Decision(
        book=msgspec.structs.replace(book, attempts={**book.attempts, attempt.id: attempt}),
        charges=(attempt,),
    )
