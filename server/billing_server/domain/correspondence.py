"""Which e-mails the customer receives, and what each of them tells (semantics 4, 7 and 13).

A message is staged where its cause happens. Nobody is written to without an address, against the account's
settings, or about an invoice that was born while collection is paused (decision 17).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from billing_server.domain.invoice import Invoice
from billing_server.domain.message import Facts, Message, MessageKind
from billing_server.domain.payment import PaymentAttempt
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn

_PLAN_LENGTH_MAX: Final = 200


def stage(turn: Turn, kind: MessageKind, **facts: Any) -> bool:
    """Stage a message to the customer; none, and False, without an address."""
    customer = turn.customer
    if customer.email is None or customer.deleted:
        return False
    _stage(turn, kind, customer.email, customer.preferred_locale, facts)
    return True


def _stage(turn: Turn, kind: MessageKind, recipient: str, locale: str | None, facts: dict[str, Any]) -> None:
    """Stage a message; the facts that all messages share are added."""
    customer = turn.customer
    told = {
        "company": company_name(turn),
        "customer_name": customer.name,
        "page_url": page_url(turn, facts.get("invoice")),
        "cancellation_policy_url": None,
    }
    turn.stage(
        Message(
            id=turn.new_id("msg"),
            created=turn.now,
            created_real=turn.wall_now,
            customer=customer.id,
            kind=kind,
            recipient=recipient,
            locale=locale,
            test_clock=customer.test_clock,
            facts=Facts(**{**told, **facts}),
            due_at=turn.wall_now,
        )
    )


def company_name(turn: Turn) -> str:
    """The name that the customer knows the company by."""
    return turn.settings.company_name or turn.pages.account.name


def page_url(turn: Turn, invoice_id: str | None) -> str | None:
    """The company's page for paying and for payment methods, told whom and what it is about; None without one."""
    page = turn.settings.emails.billing_page_url
    if page is None:
        return None
    query = {"customer": turn.customer.id}
    if invoice_id is not None:
        query["invoice"] = invoice_id
    address, hash_sign, fragment = page.partition("#")
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}{hash_sign}{fragment}"


def plan_name(turn: Turn, subscription: Subscription | None) -> str | None:
    """What the subscription is to, in a few words: the names of its products."""
    if subscription is None:
        return None
    products = dict.fromkeys(turn.catalog.price(item.price).product for item in subscription.items)
    names = ", ".join(turn.catalog.products[product].name for product in products)
    return names if len(names) <= _PLAN_LENGTH_MAX else f"{names[: _PLAN_LENGTH_MAX - 1]}…"


def _about(turn: Turn, invoice: Invoice) -> dict[str, Any]:
    """The facts of messages about an invoice."""
    return {
        "subscription": invoice.subscription,
        "plan": plan_name(turn, turn.subscription_of(invoice)),
        "invoice": invoice.id,
        "invoice_number": invoice.number,
        "currency": invoice.currency,
        "collection_method": invoice.collection_method,
    }


def _card(turn: Turn, method_id: str | None) -> dict[str, Any]:
    """What may be shown of the payment method, unless it is detached by now."""
    method = None if method_id is None else turn.payment_methods.get(method_id)
    if method is not None and method.detached_at is not None:
        method = None
    card = None if method is None else method.card
    shown = {"has_method": method is not None}
    return shown if card is None else {**shown, "card_brand": card.brand, "card_last4": card.last4}


def receipt(turn: Turn, invoice: Invoice, attempt: PaymentAttempt) -> None:
    """Confirm a payment; the first after a trial says so, and those by card how to cancel (card networks' rules)."""
    if not turn.settings.emails.receipt or invoice.collection_paused or attempt.amount == 0:
        return
    card = _card(turn, attempt.payment_method)
    by_card = "card_last4" in card and invoice.subscription is not None
    stage(
        turn,
        "receipt",
        **_about(turn, invoice),
        **card,
        amount=attempt.amount,
        moment=turn.now,
        trial_over=invoice.trial_over,
        cancellation_policy_url=turn.settings.emails.cancellation_policy_url if by_card else None,
        statement_descriptor=attempt.statement_descriptor,
    )


def send_invoice(turn: Turn, invoice: Invoice) -> None:
    """Send an open invoice to the customer: `invoice.sent`, and the e-mail."""
    turn.emit("invoice.sent", invoice)
    if turn.settings.emails.invoice and not invoice.collection_paused:
        stage(
            turn,
            "invoice_to_pay",
            **_about(turn, invoice),
            amount=invoice.amount_remaining,
            moment=invoice.due_date,
        )


def payment_failed(
    turn: Turn, invoice: Invoice, attempt: PaymentAttempt, *, needs_action: bool, next_attempt: int | None
) -> None:
    """Tell that an automatic payment did not succeed, and when it is tried again.

    Attempts by hand fail before somebody's eyes and need no e-mail.
    """
    if attempt.kind == "manual" or not turn.settings.emails.payment_failed or invoice.collection_paused:
        return
    stage(
        turn,
        "payment_failed",
        **_about(turn, invoice),
        **_card(turn, attempt.payment_method),
        amount=invoice.amount_remaining,
        moment=turn.now,
        next_attempt=next_attempt,
        needs_action=needs_action,
    )


def upcoming_renewal(turn: Turn, subscription: Subscription, coming: Invoice) -> None:
    """Announce the next renewal with the invoice as it would be. Trials are announced by their reminder instead."""
    emails = turn.settings.emails
    if not emails.upcoming_renewal or subscription.status == "trialing":
        return
    stage(
        turn,
        "upcoming_renewal",
        subscription=subscription.id,
        plan=plan_name(turn, subscription),
        amount=coming.amount_due,
        currency=coming.currency,
        moment=subscription.current_period_end,
        cancellation_policy_url=emails.cancellation_policy_url,
    )


def cancellation_confirmation(turn: Turn, subscription: Subscription, survey_url: str | None) -> bool:
    """Confirm a cancellation (semantics 8.3); False when the customer has no address."""
    return stage(
        turn,
        "cancellation_confirmation",
        subscription=subscription.id,
        plan=plan_name(turn, subscription),
        moment=subscription.ended_at,
        survey_url=survey_url,
    )


def team_memo(
    turn: Turn,
    recipients: tuple[str, ...],
    memo: str | None,
    *,
    invoice: Invoice | None,
    subscription: Subscription | None,
) -> None:
    """Tell people of the company what an automation was started by; nobody's language is known, so in English."""
    facts: dict[str, Any] = {} if invoice is None else _about(turn, invoice)
    if invoice is not None:
        facts |= {"amount": invoice.amount_remaining, "moment": invoice.due_date}
    elif subscription is not None:
        facts |= {"subscription": subscription.id, "plan": plan_name(turn, subscription)}
    for recipient in recipients:
        _stage(turn, "team_memo", recipient, None, {**facts, "memo": memo})
