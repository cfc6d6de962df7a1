"""What callers do with invoices by hand: create, change, finalize, pay, send, void, give up (semantics 3)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from billing_server.domain import automation_runs, correspondence, standing
from billing_server.domain.calendar import DAY, written
from billing_server.domain.collection import (
    awaits_confirmation,
    chargeable_method,
    collect,
    end_invoice,
    pay,
    refuse_unresolved,
    start,
)
from billing_server.domain.commands import (
    CreateInvoice,
    DeleteInvoice,
    FinalizeInvoice,
    MarkInvoiceUncollectible,
    PayInvoice,
    SendInvoice,
    UpdateInvoice,
    VoidInvoice,
)
from billing_server.domain.dunning import next_retry_at
from billing_server.domain.errors import WrongState, invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.invoice import Invoice
from billing_server.domain.invoicing import (
    create_invoice,
    finalize,
    mark_uncollectible,
    pending_items,
    stop_collection,
    tell_created,
    void,
)
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.method_lookup import find_method
from billing_server.domain.signup import fix_currency, refuse_deleted
from billing_server.domain.turn import Turn


def new_invoice(turn: Turn, command: CreateInvoice) -> Invoice:
    """A draft without a period: for the customer, or for the pending items of one subscription."""
    refuse_deleted(turn.customer)
    subscription = None
    if command.subscription is not None:
        subscription = turn.subscription(command.subscription, "subscription")
        if subscription.terminal:
            raise WrongState(
                "subscription_terminal",
                "the subscription has ended and makes no more invoices; leave it out to bill the customer",
                subject=subscription.id,
                field="subscription",
            )
    currency = command.currency or (subscription.currency if subscription is not None else turn.customer.currency)
    if currency is None:
        raise invalid("currency", "parameter_missing", "the customer has no currency yet; name one")
    fix_currency(turn, currency, "currency")
    if command.default_payment_method is not None:
        chargeable_method(turn, command.default_payment_method, "default_payment_method")
    sweep = []
    if command.pending_invoice_items_behavior == "include":
        sweep = pending_items(turn, subscription=command.subscription, currency=currency)
    invoice = create_invoice(
        turn,
        reason="manual",
        currency=currency,
        lines=(),
        period=(turn.now, turn.now),
        subscription=subscription,
        sweep=sweep,
        collection_method=command.collection_method,
        days_until_due=command.days_until_due,
        auto_advance=command.auto_advance,
        finalizes_at=turn.now + turn.settings.finalization_delay_seconds,
    )
    invoice = turn.put(
        msgspec.structs.replace(
            invoice,
            due_date=_due_date(turn, invoice, command.due_date),
            default_payment_method=command.default_payment_method,
            statement_descriptor=command.statement_descriptor,
            description=command.description,
            footer=command.footer,
            metadata=initial_metadata(command.metadata),
        )
    )
    tell_created(turn, invoice)
    return invoice


def _due_date(turn: Turn, invoice: Invoice, wished: int | None) -> int | None:
    if wished is None:
        return invoice.due_date
    if wished <= turn.now:
        raise invalid("due_date", "time_out_of_range", f"must be after now, {written(turn.now)}")
    return wished


def update_invoice(turn: Turn, command: UpdateInvoice) -> Invoice:
    """Change an invoice: nearly everything while it is a draft, little afterwards."""
    invoice = turn.invoice(command.id)
    check_etag(command.etag, invoice.version)
    changes: dict[str, Any] = {}
    for name in ("default_payment_method", "statement_descriptor", "footer"):
        value = getattr(command, name)
        if value is not UNSET:
            _draft_only(invoice, name)
            changes[name] = value
    if changes.get("default_payment_method") is not None:
        chargeable_method(turn, changes["default_payment_method"], "default_payment_method")
    if command.description is not UNSET:
        changes["description"] = command.description
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(invoice.metadata, command.metadata)
    changes |= _collection_changes(turn, invoice, command)
    if command.auto_advance is not UNSET and command.auto_advance != invoice.auto_advance:
        changes |= _auto_advance(turn, msgspec.structs.replace(invoice, **changes), command.auto_advance)
    return turn.revise(invoice, changes)


def _draft_only(invoice: Invoice, field: str) -> None:
    if invoice.status != "draft":
        raise WrongState(
            "invoice_not_editable",
            f"{field} can be changed only while the invoice is a draft; it is {invoice.status}",
            subject=invoice.id,
            field=field,
        )


def _collection_changes(turn: Turn, invoice: Invoice, command: UpdateInvoice) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if command.collection_method is not UNSET:
        _draft_only(invoice, "collection_method")
        changes["collection_method"] = command.collection_method
        automatic = command.collection_method == "charge_automatically"
        changes["next_payment_attempt"] = invoice.automatically_finalizes_at if automatic else None
    method = changes.get("collection_method", invoice.collection_method)
    if command.days_until_due is not UNSET and command.days_until_due is not None:
        _draft_only(invoice, "days_until_due")
        changes |= {
            "days_until_due": command.days_until_due,
            "due_date": invoice.created + command.days_until_due * DAY,
        }
    if command.due_date is not UNSET:
        if invoice.status not in ("draft", "open"):
            _draft_only(invoice, "due_date")
        changes |= {
            "due_date": _due_date(turn, invoice, command.due_date),
            "due_date_passed": False,
            "overdue_deadline_at": None,
        }
    if method == "charge_automatically":
        if changes.get("due_date") is not None:
            raise invalid("due_date", "parameters_exclusive", "charge_automatically takes no due date")
        if "collection_method" in changes:
            changes |= {"due_date": None, "days_until_due": None}
    elif changes.get("due_date", invoice.due_date) is None:
        raise invalid("days_until_due", "parameter_missing", "send_invoice needs days_until_due or due_date")
    return changes


def _auto_advance(turn: Turn, invoice: Invoice, wanted: bool) -> dict[str, Any]:
    """Switch automatic collection on or off; switched on, an old draft finalizes an hour later (semantics 3)."""
    if invoice.status not in ("draft", "open"):
        raise WrongState(
            "invoice_not_editable",
            f"auto_advance can be changed on draft and open invoices; this one is {invoice.status}",
            subject=invoice.id,
            field="auto_advance",
        )
    if not wanted:
        return {"auto_advance": False, "automatically_finalizes_at": None, "next_payment_attempt": None}
    soon = turn.now + turn.settings.finalization_delay_seconds
    automatic = invoice.collection_method == "charge_automatically"
    if invoice.status == "draft":
        return {
            "auto_advance": True,
            "automatically_finalizes_at": soon,
            "next_payment_attempt": soon if automatic else None,
            "collection_paused": False,
        }
    return {
        "auto_advance": True,
        "next_payment_attempt": _next_attempt(turn, invoice, soon) if automatic else None,
        # Switching it off has ended the automation's run; from here on the settings apply.
        "automation_run": None,
    }


def _next_attempt(turn: Turn, invoice: Invoice, soon: int) -> int | None:
    """Go on with the retry schedule where it stands; what is already past is made up for soon."""
    if awaits_confirmation(turn, invoice):
        return None
    if invoice.first_failure_at is None or invoice.last_attempt_due_at is None:
        return soon
    policy = turn.settings.one_off_retry_policy if invoice.subscription is None else turn.settings.retry_policy
    planned = next_retry_at(policy, invoice.first_failure_at, invoice.last_attempt_due_at, invoice.retries_done)
    return None if planned is None else max(planned, soon)


def delete_invoice(turn: Turn, command: DeleteInvoice) -> Invoice:
    """Remove a one-off draft; its items become pending again."""
    invoice = turn.invoice(command.id)
    if invoice.status != "draft" or invoice.subscription is not None:
        raise WrongState(
            "invoice_not_deletable",
            f"only one-off drafts can be deleted; {_instead_of_deletion(invoice)}",
            subject=invoice.id,
        )
    for item in list(turn.invoice_items.values()):
        if item.invoice == invoice.id:
            turn.alter(item, invoice=None)
    turn.emit("invoice.deleted", invoice)
    turn.remove(invoice)
    return invoice


def _instead_of_deletion(invoice: Invoice) -> str:
    """Why an invoice stays, and what takes its weight away."""
    if invoice.status == "draft":
        return "this one belongs to a subscription: finalize it, then void it"
    if invoice.collectible:
        return f"it is {invoice.status}: void it instead"
    return "it is paid: give the money back by a credit note" if invoice.status == "paid" else "it is void already"


def finalize_invoice(turn: Turn, command: FinalizeInvoice) -> Invoice:
    """Finalize a draft by hand; with auto_advance it is then charged or sent at once."""
    invoice = turn.invoice(command.id)
    if invoice.status != "draft":
        raise WrongState(
            "invoice_state_invalid", f"only drafts are finalized; it is {invoice.status}", subject=invoice.id
        )
    if command.auto_advance is not None and command.auto_advance != invoice.auto_advance:
        invoice = turn.alter(invoice, auto_advance=command.auto_advance)
    return advance_draft(turn, invoice)


def advance_draft(turn: Turn, invoice: Invoice) -> Invoice:
    """Finalize a draft and, with auto_advance, go on with its collection."""
    invoice = finalize(turn, invoice)
    if invoice.status == "paid":
        standing.invoice_paid(turn, invoice)
    elif invoice.auto_advance and invoice.collection_method == "charge_automatically":
        invoice = collect(turn, invoice)
    elif invoice.auto_advance:
        correspondence.send_invoice(turn, invoice)
    return invoice


def pay_invoice(turn: Turn, command: PayInvoice) -> Invoice:
    """Charge now, or record that the money came in another way. Works for open and uncollectible invoices."""
    invoice = turn.invoice(command.id)
    if invoice.status == "draft":
        invoice = finalize(turn, invoice)
        if invoice.status == "paid":
            standing.invoice_paid(turn, invoice)
            return invoice
    if not invoice.collectible:
        raise WrongState("invoice_state_invalid", f"the invoice is already {invoice.status}", subject=invoice.id)
    refuse_unresolved(turn, invoice)
    if command.paid_out_of_band:
        return pay(turn, invoice, out_of_band=True)
    method = (
        chargeable_method(turn, command.payment_method, "payment_method")
        if command.payment_method is not None
        else find_method(turn, invoice, turn.subscription_of(invoice))
    )
    if method is None:
        raise WrongState(
            "invoice_no_payment_method",
            "there is no payment method to charge; attach one, or name one in payment_method",
            subject=invoice.id,
        )
    return start(turn, invoice, "manual", method=method, off_session=command.off_session)


def send_invoice(turn: Turn, command: SendInvoice) -> Invoice:
    """Send an open invoice to the customer (again); a draft is finalized first."""
    invoice = turn.invoice(command.id)
    if invoice.collection_method != "send_invoice":
        raise WrongState(
            "invoice_state_invalid",
            "only invoices with collection_method=send_invoice are sent; PayInvoice charges this one",
            subject=invoice.id,
        )
    if invoice.status == "draft":
        invoice = finalize(turn, invoice)
        if invoice.status == "paid":
            standing.invoice_paid(turn, invoice)
            return invoice
    if invoice.status != "open":
        raise WrongState(
            "invoice_state_invalid",
            f"only open invoices are sent; it is {invoice.status}",
            subject=invoice.id,
        )
    correspondence.send_invoice(turn, invoice)
    return invoice


def _unfinished(invoice: Invoice) -> str:
    return f"it is {invoice.status}{': finalize it first' if invoice.status == 'draft' else ''}"


def void_invoice(turn: Turn, command: VoidInvoice) -> Invoice:
    """Declare that an open or uncollectible invoice was never owed (semantics 2.5 and 3)."""
    invoice = turn.invoice(command.id)
    if not invoice.collectible:
        raise WrongState(
            "invoice_state_invalid",
            f"only open and uncollectible invoices can be voided; {_unfinished(invoice)}",
            subject=invoice.id,
        )
    refuse_unresolved(turn, invoice)
    invoice = void(turn, invoice, tell_update=True)
    standing.invoice_voided(turn, invoice)
    return turn.invoices[invoice.id]


def mark_invoice_uncollectible(turn: Turn, command: MarkInvoiceUncollectible) -> Invoice:
    """Give an open invoice up; a past due subscription is active again (decision)."""
    invoice = turn.invoice(command.id)
    if invoice.status != "open":
        raise WrongState(
            "invoice_state_invalid",
            f"only open invoices can be marked uncollectible; {_unfinished(invoice)}",
            subject=invoice.id,
        )
    refuse_unresolved(turn, invoice)
    invoice = mark_uncollectible(turn, invoice, tell_update=True)
    standing.marked_uncollectible(turn, invoice)
    return turn.invoices[invoice.id]


def wake(turn: Turn, invoice: Invoice) -> None:
    """Do what is due at `turn.now`: finalize, retry, notice the due date, end what is long overdue."""
    if turn.customer.deleted:
        stop_collection(turn, [turn.note(invoice, due_date_passed=True, overdue_deadline_at=None)])
    elif invoice.status == "draft":
        _wake_draft(turn, invoice)
    elif invoice.due_date is not None and not invoice.due_date_passed and invoice.due_date <= turn.now:
        _pass_due_date(turn, invoice)
    elif invoice.overdue_deadline_at is not None and invoice.overdue_deadline_at <= turn.now:
        _end_overdue(turn, invoice)
    elif automation_runs.broken_off(turn, invoice):
        return
    elif invoice.next_payment_attempt is not None and invoice.next_payment_attempt <= turn.now:
        collect(turn, invoice, "retry" if invoice.attempt_count else "initial")


def _wake_draft(turn: Turn, invoice: Invoice) -> None:
    if invoice.lines:
        advance_draft(turn, invoice)
    else:
        invoice = turn.alter(invoice, auto_advance=False, automatically_finalizes_at=None, next_payment_attempt=None)
        turn.emit("invoice.finalization_failed", invoice)


def _pass_due_date(turn: Turn, invoice: Invoice) -> None:
    invoice = turn.note(invoice, due_date_passed=True, overdue_deadline_at=None)
    standing.due_date_passed(turn, invoice)
    if not invoice.auto_advance or automation_runs.invoice_overdue(turn, invoice):
        return
    days = turn.settings.overdue_policy.days_after_due
    if days is not None:
        turn.note(turn.invoices[invoice.id], overdue_deadline_at=turn.now + days * DAY)


def _end_overdue(turn: Turn, invoice: Invoice) -> None:
    """Nobody paid within the extra time after the due date: the overdue policy (semantics 6)."""
    policy = turn.settings.overdue_policy
    invoice = turn.note(invoice, overdue_deadline_at=None)
    subscription = turn.subscription_of(invoice)
    if not invoice.auto_advance:
        return
    if subscription is not None and subscription.status == "past_due":
        standing.final_action(turn, subscription, policy.subscription_action)
    end_invoice(turn, turn.invoices[invoice.id], policy.invoice_action)
