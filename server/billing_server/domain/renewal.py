"""What time does to a subscription: the next period, the end of a trial, its notices and its end (semantics 2, 4)."""

from __future__ import annotations

import msgspec

from billing_server.domain import calendar, correspondence, cycle, pending_update, trial_ending, trial_notices
from billing_server.domain.cancellation import final_invoice
from billing_server.domain.invoice import BillingReason, Invoice, InvoiceLine
from billing_server.domain.invoicing import (
    create_invoice,
    left_over_items,
    metered_lines,
    pending_items,
    period_lines,
    tell_created,
)
from billing_server.domain.pause import handle_born_paused, resume_collection
from billing_server.domain.preview import preview_renewal
from billing_server.domain.resumption import expire_resumption
from billing_server.domain.subscription import BILLED, Subscription
from billing_server.domain.termination import end, expire
from billing_server.domain.turn import Turn
from billing_server.domain.usage import CHARGED


def wake(turn: Turn, subscription: Subscription) -> None:
    """Do what is due at `turn.now`, one thing at a time; what stays due wakes the subscription again."""
    now = turn.now
    pause, pending = subscription.pause_collection, subscription.pending_update
    if _due(subscription.expires_at, now):
        (expire_resumption if subscription.status == "paused" else expire)(turn, subscription)
    elif _due(subscription.cancel_at, now):
        (expire if subscription.status == "incomplete" else _end_with_period)(turn, subscription)
    elif pause is not None and _due(pause.resumes_at, now):
        resume_collection(turn, subscription)
    elif pending is not None and pending.expires_at <= now:
        pending_update.drop(turn, subscription)
    elif subscription.status in BILLED:
        _wake_cycle(turn, subscription)


def _due(moment: int | None, now: int) -> bool:
    return moment is not None and moment <= now


def _wake_cycle(turn: Turn, subscription: Subscription) -> None:
    if subscription.current_period_end <= turn.now:
        _end_period(turn, subscription)
    elif _due(subscription.trial_reminder_at, turn.now):
        trial_notices.remind(turn, turn.note(subscription, trial_reminder_at=None))
    elif _due(subscription.trial_will_end_at, turn.now):
        turn.emit("customer.subscription.trial_will_end", turn.note(subscription, trial_will_end_at=None))
    elif _due(subscription.upcoming_at, turn.now):
        _announce_renewal(turn, subscription)
    else:
        _bill_pending_items(turn, subscription)


# --- the end of a period


def _end_period(turn: Turn, subscription: Subscription) -> None:
    if cycle.ends_with_period(subscription):
        _end_with_period(turn, subscription)
    elif subscription.status == "trialing":
        _end_trial(turn, subscription)
    else:
        renew(turn, subscription)


def _end_with_period(turn: Turn, subscription: Subscription) -> None:
    """Canceled at the end of its period: what is pending is billed, then nothing more."""
    left_over = left_over_items(turn, subscription)
    charged = subscription.status in CHARGED
    subscription = end(turn, subscription, "cancellation_requested", billed_last=left_over)
    final_invoice(turn, subscription, left_over, usage=charged)


def _end_trial(turn: Turn, subscription: Subscription) -> None:
    """Go on as active, unless there is nothing to pay with and the subscription says what then (semantics 2.2)."""
    if trial_ending.lacks_method(turn, subscription):
        trial_ending.without_method(turn, subscription)
    else:
        renew(turn, msgspec.structs.replace(subscription, status="active", trial_over_untold=True), trial_over=True)


def renew(turn: Turn, subscription: Subscription, *, trial_over: bool = False) -> Subscription:
    """Begin the next period with a draft invoice: licensed items ahead, usage of the old period behind."""
    previous_start = subscription.current_period_start
    period = cycle.period_from(subscription, subscription.current_period_end)
    if subscription.free_stub and period.stub and trial_over:
        subscription = _moved(turn, subscription, period, None)
        turn.updated(subscription)
        return subscription
    lines = renewal_lines(turn, subscription, period, previous_start, metered=not trial_over)
    paused = subscription.paused_at(turn.now)
    invoice_id = turn.new_id("in")
    subscription = _moved(turn, subscription, period, invoice_id, counts=not paused)
    turn.updated(subscription)
    invoice = draft_for_period(
        turn,
        subscription,
        lines,
        (previous_start, period.start),
        invoice_id=invoice_id,
    )
    if paused:
        handle_born_paused(turn, subscription, invoice)
    else:
        tell_created(turn, invoice)
    return subscription


def renewal_lines(
    turn: Turn, subscription: Subscription, period: cycle.Period, previous_start: int, *, metered: bool
) -> list[InvoiceLine]:
    """The lines of a period's invoice, apart from pending items."""
    lines = period_lines(turn, subscription, period.start, period.end, full=period.full)
    return lines + metered_lines(turn, subscription, previous_start if metered else period.start, period.start)


def _moved(
    turn: Turn,
    subscription: Subscription,
    period: cycle.Period,
    invoice_id: str | None,
    *,
    counts: bool = True,
) -> Subscription:
    """The subscription in its next period, with that period's notice planned."""
    subscription = msgspec.structs.replace(
        subscription, current_period_start=period.start, current_period_end=period.end
    )
    changes: dict[str, object] = {"upcoming_at": cycle.upcoming_at(subscription, turn.settings, turn.now)}
    if invoice_id is not None:
        changes["free_stub"] = False
        changes["latest_invoice"] = invoice_id
        if counts:
            changes["status_invoice"] = invoice_id
    return turn.alter(subscription, trial_will_end_at=None, trial_reminder_at=None, **changes)


def draft_for_period(
    turn: Turn,
    subscription: Subscription,
    lines: list[InvoiceLine],
    period: tuple[int, int],
    *,
    invoice_id: str | None = None,
    reason: BillingReason = "subscription_cycle",
) -> Invoice:
    """A draft that finalizes itself after the draft hour, unless the subscription is unpaid (decision 1)."""
    return create_invoice(
        turn,
        invoice_id=invoice_id,
        reason=reason,
        currency=subscription.currency,
        lines=lines,
        period=period,
        subscription=subscription,
        sweep=pending_items(turn, subscription=subscription.id, currency=subscription.currency),
        collection_method=subscription.collection_method,
        days_until_due=subscription.days_until_due,
        auto_advance=subscription.status != "unpaid",
        finalizes_at=turn.now + turn.settings.finalization_delay_seconds,
    )


# --- between the ends of periods


def _announce_renewal(turn: Turn, subscription: Subscription) -> None:
    """`invoice.upcoming`, with the invoice as it would be; not while collection is paused (decision 17)."""
    subscription = turn.note(subscription, upcoming_at=None)
    if not subscription.paused_at(subscription.current_period_end):
        coming = preview_renewal(turn, subscription)
        turn.emit("invoice.upcoming", coming)
        correspondence.upcoming_renewal(turn, subscription, coming)


def _bill_pending_items(turn: Turn, subscription: Subscription) -> None:
    """The invoice between renewals that `pending_invoice_item_interval` asks for; none without items."""
    every = subscription.pending_invoice_item_interval
    moment = subscription.next_pending_invoice_item_invoice
    if every is None or moment is None or moment > turn.now:
        return
    following = calendar.boundary(moment, every.interval, every.interval_count, 1)
    subscription = turn.alter(subscription, next_pending_invoice_item_invoice=following)
    items = pending_items(turn, subscription=subscription.id, currency=subscription.currency)
    if items:
        invoice_id = turn.new_id("in")
        subscription = turn.alter(subscription, latest_invoice=invoice_id, status_invoice=invoice_id)
        turn.updated(subscription)
        invoice = draft_for_period(
            turn,
            subscription,
            [],
            (turn.now, turn.now),
            invoice_id=invoice_id,
            reason="automatic_pending_invoice_item_invoice",
        )
        if subscription.paused_at(turn.now):
            handle_born_paused(turn, subscription, invoice)
        else:
            tell_created(turn, invoice)
