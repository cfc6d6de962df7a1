"""Changing a subscription: items, anchor, trial and cancellation, and the invoice that follows (semantics 2-5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from billing_server.domain import (
    adjustments,
    calendar,
    correspondence,
    cycle,
    pending_update,
    standing,
    trial_ending,
    trial_notices,
    usage,
)
from billing_server.domain.adjustments import Adjustment
from billing_server.domain.attributes import plain_changes, refuse_unchangeable
from billing_server.domain.catalog import Price
from billing_server.domain.collection import collect
from billing_server.domain.commands import UpdateSubscription
from billing_server.domain.errors import invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.invoice import Invoice, InvoiceItem, InvoiceLine
from billing_server.domain.invoicing import (
    added_lines,
    anything_due,
    create_invoice,
    finalize,
    metered_lines,
    pending_items,
    period_lines,
    settled_amounts,
    tell_created,
    trial_lines,
    usage_line,
)
from billing_server.domain.items import changed_items, is_free, recurring
from billing_server.domain.method_lookup import awaited
from billing_server.domain.pause import handle_born_paused
from billing_server.domain.subscription import INCOMPLETE_LIFETIME_SECONDS, PendingUpdate, Subscription
from billing_server.domain.trial_limits import check_trial_end
from billing_server.domain.turn import Turn


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an update does to billing: the subscription after it, the prorations, and the lines due at once.

    `lines` is None when the change itself makes no invoice.
    """

    after: Subscription
    adjustments: list[Adjustment]
    lines: list[InvoiceLine] | None


def update_subscription(turn: Turn, command: UpdateSubscription) -> Subscription:
    """Apply a change; a charge that is needed is started, not awaited."""
    subscription = turn.subscription(command.id)
    check_etag(command.etag, subscription.version)
    refuse_unchangeable(subscription, command)
    if subscription.pending_update is not None and _changes_billing(command):
        subscription = pending_update.drop(turn, subscription)
    plain = plain_changes(turn, subscription, command)
    if subscription.status == "incomplete" or subscription.terminal:
        return turn.revise(subscription, plain)
    if command.trial_end_now and trial_ending.lacks_method(turn, msgspec.structs.replace(subscription, **plain)):
        return _end_trial_unpaid(turn, subscription, command, plain)
    change = _plan(turn, subscription, command, plain)
    # While collection is paused nobody is asked for money, so there is nothing to wait for.
    waits = command.payment_behavior == "pending_if_incomplete" and not change.after.paused_at(turn.now)
    if waits and _owes(turn, change):
        return _wait_for_payment(turn, subscription, change, trial_over=command.trial_end_now)
    return _apply(turn, subscription, change, command)


def _end_trial_unpaid(
    turn: Turn, subscription: Subscription, command: UpdateSubscription, plain: dict[str, Any]
) -> Subscription:
    """End the trial at the caller's word as time would end it without a payment method: with no invoice."""
    after = msgspec.structs.replace(
        _with_items(turn, subscription, command, plain),
        trial_end=turn.now,
        trial_will_end_at=None,
        billing_cycle_anchor=turn.now,
        billing_cycle_anchor_config=None,
        current_period_end=turn.now,
        free_stub=False,
    )
    after = _alter(turn, subscription, _without_invoice(turn, after, command, []).after)
    turn.updated(after)
    turn.emit("customer.subscription.trial_will_end", after)
    return trial_ending.without_method(turn, after)


def change_by_schedule(turn: Turn, subscription: Subscription, command: UpdateSubscription) -> Subscription:
    """Apply what a phase of a schedule says, whatever the status; no request waits for it.

    An invoice that it calls for is therefore a draft for the draft hour, unless nothing is due.
    """
    change = _plan(turn, subscription, command, plain_changes(turn, subscription, command))
    return _apply(turn, subscription, change, command, draft_hour=True)


def _changes_billing(command: UpdateSubscription) -> bool:
    return (
        command.items is not UNSET
        or command.billing_cycle_anchor_now
        or command.trial_end is not UNSET
        or command.trial_end_now
        or command.trial_from_plan
    )


# --- planning


def _plan(turn: Turn, before: Subscription, command: UpdateSubscription, plain: dict[str, Any]) -> Change:
    """Work out the subscription after the change, and what the change costs."""
    after = _with_items(turn, before, command, plain)
    at = adjustments.proration_moment(turn, before, command.proration_date)
    if before.status == "paused":
        return _without_invoice(turn, after, command, [])
    trial_end = _wished_trial_end(turn, turn.catalog.price(after.items[0].price), command)
    if trial_end is not None:
        return _plan_trial(turn, before, after, command, at, trial_end)
    if _resets_cycle(turn, before, after, command):
        return _plan_reset(turn, before, after, command, at)
    return _plan_within_period(turn, before, after, command, at)


def _with_items(turn: Turn, before: Subscription, command: UpdateSubscription, plain: dict[str, Any]) -> Subscription:
    """The subscription with the attributes and the items that are asked for, in the items' cycle."""
    items = before.items
    if command.items is not UNSET:
        items = usage.begun(turn, before.items, changed_items(turn, before.items, command.items))
    price = turn.catalog.price(items[0].price)
    if price.currency != before.currency:
        raise invalid(
            "items",
            "currency_mismatch",
            f"this subscription is billed in {before.currency}; create another for {price.currency}",
        )
    cycle_of = recurring(price)
    return msgspec.structs.replace(
        before, items=items, interval=cycle_of.interval, interval_count=cycle_of.interval_count, **plain
    )


def _resets_cycle(turn: Turn, before: Subscription, after: Subscription, command: UpdateSubscription) -> bool:
    """Whether a new cycle begins now: asked for, by a different interval, or from free to paid (semantics 4).

    Where a period ends now anyway, its renewal bills what is not free any more.
    """
    if command.trial_end_now:
        return True
    if before.status == "trialing":
        return False
    if command.billing_cycle_anchor_now:
        return True
    if (after.interval, after.interval_count) != (before.interval, before.interval_count):
        return True
    if before.current_period_end <= turn.now:
        return False
    return is_free(turn, before.items) and not is_free(turn, after.items)


def _plan_reset(turn: Turn, before: Subscription, after: Subscription, command: UpdateSubscription, at: int) -> Change:
    """A whole new period from now, charged at once; what is unused of the old one is given back."""
    given_back = [] if command.proration_behavior == "none" else adjustments.credits_for(turn, before, before.items, at)
    after = msgspec.structs.replace(
        after,
        status="active" if before.status == "trialing" else before.status,
        billing_cycle_anchor=turn.now,
        billing_cycle_anchor_config=None,
        trial_end=turn.now if command.trial_end_now else after.trial_end,
        trial_will_end_at=None if command.trial_end_now else after.trial_will_end_at,
        trial_over_untold=command.trial_end_now or after.trial_over_untold,
        free_stub=False,
    )
    period = cycle.period_from(after, turn.now)
    after = msgspec.structs.replace(after, current_period_start=period.start, current_period_end=period.end)
    lines = period_lines(turn, after, period.start, period.end, full=period.full)
    if before.status == "trialing":
        lines += metered_lines(turn, after, turn.now, turn.now)
    else:
        lines += _usage_so_far(turn, before)
    lines += added_lines(turn, command.add_invoice_items, currency=before.currency)
    return Change(after=after, adjustments=given_back, lines=lines)


def _usage_so_far(turn: Turn, before: Subscription) -> list[InvoiceLine]:
    """What was used in a period that ends now; nothing of a trial."""
    if before.status not in usage.CHARGED:
        return []
    return metered_lines(turn, before, before.current_period_start, turn.now)


def _wished_trial_end(turn: Turn, price: Price, command: UpdateSubscription) -> int | None:
    """When the trial ends that the change asks for: at a moment, or after the days that the price says."""
    if command.trial_end is not UNSET:
        return command.trial_end
    days = recurring(price).trial_period_days if command.trial_from_plan else None
    return None if days is None else turn.now + days * calendar.DAY


def _plan_trial(
    turn: Turn, before: Subscription, after: Subscription, command: UpdateSubscription, at: int, end: int
) -> Change:
    """A trial moves the anchor to its end (semantics 4, Trial updates)."""
    check_trial_end(turn, end)
    fresh = before.status != "trialing"
    given_back: list[Adjustment] = []
    if fresh and command.proration_behavior != "none":
        given_back = adjustments.credits_for(turn, before, before.items, at)
    restarts = before.trial_start is None or (fresh and before.billing_mode == "flexible")
    after = msgspec.structs.replace(
        after,
        status="trialing",
        trial_start=turn.now if restarts else before.trial_start,
        trial_end=end,
        billing_cycle_anchor=end,
        billing_cycle_anchor_config=None,
        free_stub=False,
        current_period_start=turn.now if fresh else before.current_period_start,
        current_period_end=end if after.cancel_at is None else min(end, after.cancel_at),
    )
    if not fresh:
        return _without_invoice(turn, after, command, [])
    lines = trial_lines(turn, after, turn.now, end)
    lines += [line for line in _usage_so_far(turn, before) if line.amount]
    lines += added_lines(turn, command.add_invoice_items, currency=before.currency)
    return Change(after=after, adjustments=given_back, lines=lines)


def _plan_within_period(
    turn: Turn, before: Subscription, after: Subscription, command: UpdateSubscription, at: int
) -> Change:
    """Dates stay; changed items and a moved end are prorated, usage that nobody would bill any more is billed."""
    end = _end_of_period(after)
    prorated: list[Adjustment] = []
    if command.proration_behavior != "none":
        prorated = adjustments.of_changed_items(turn, before, after.items, at)
        if end != before.current_period_end:
            prorated += adjustments.of_moved_end(turn, msgspec.structs.replace(before, items=after.items), end)
    used = [
        usage_line(turn, item, before.current_period_start, turn.now)
        for item in usage.left_behind(turn, before, after.items)
    ]
    used = [line for line in used if line.amount]
    after = msgspec.structs.replace(after, current_period_end=end)
    if command.proration_behavior == "always_invoice" and (prorated or used):
        lines = [*used, *added_lines(turn, command.add_invoice_items, currency=before.currency)]
        return Change(after=after, adjustments=prorated, lines=lines)
    return _without_invoice(turn, after, command, prorated, used)


def _end_of_period(subscription: Subscription) -> int:
    """Where the current period ends, with `cancel_at` set, moved or gone."""
    natural = subscription.trial_end if subscription.status == "trialing" else None
    if natural is None:
        natural = calendar.next_boundary(
            subscription.billing_cycle_anchor,
            subscription.interval,
            subscription.interval_count,
            subscription.current_period_start,
        )
    return natural if subscription.cancel_at is None else min(natural, subscription.cancel_at)


def _without_invoice(
    turn: Turn,
    after: Subscription,
    command: UpdateSubscription,
    prorated: list[Adjustment],
    used: Sequence[InvoiceLine] = (),
) -> Change:
    """The change waits for the next invoice, and so do usage and the one-off prices that came with it."""
    for line in (*used, *added_lines(turn, command.add_invoice_items, currency=after.currency)):
        item = turn.put(
            InvoiceItem(
                id=turn.new_id("ii"),
                created=turn.now,
                customer=after.customer,
                currency=after.currency,
                amount=line.amount,
                description=line.description,
                quantity=line.quantity or 0,
                price=line.price,
                subscription=after.id,
                subscription_item=line.subscription_item,
                period_start=line.period_start,
                period_end=line.period_end,
            )
        )
        turn.emit("invoiceitem.created", item)
    return Change(after=after, adjustments=prorated, lines=None)


# --- applying


def _apply(
    turn: Turn, before: Subscription, change: Change, command: UpdateSubscription, *, draft_hour: bool = False
) -> Subscription:
    adjustments.as_pending_items(turn, before, change.adjustments)
    sweep = [] if change.lines is None else pending_items(turn, subscription=before.id, currency=before.currency)
    # A new cycle of metered items alone has nothing to bill yet.
    if not change.lines and not sweep:
        after = _alter(turn, before, change.after)
        turn.updated(after)
        return _announce(turn, before, after)
    lines = change.lines or []
    invoice_id = turn.new_id("in")
    counts = not change.after.paused_at(turn.now)
    told = {"latest_invoice": invoice_id} | ({"status_invoice": invoice_id} if counts else {})
    after = _alter(turn, before, msgspec.structs.replace(change.after, **told))
    turn.updated(after)
    trial_over = command.trial_end_now
    if trial_over:
        # Told before the invoice that ends the trial is made, and not amid its payment.
        after = _announce(turn, before, after)
    if draft_hour and after.status == "trialing":
        draft_hour = anything_due(turn, lines, sweep, after.currency)
    invoice = _draft(turn, after, invoice_id, lines, sweep, draft_hour=draft_hour)
    _process(turn, after, invoice, command, draft_hour=draft_hour)
    after = turn.subscriptions[after.id]
    return after if trial_over else _announce(turn, before, after)


def _alter(turn: Turn, before: Subscription, after: Subscription) -> Subscription:
    """Make the one in the book what it is to be; itself when nothing differs."""
    fields = {
        name: getattr(after, name)
        for name in after.__struct_fields__
        if name != "version" and getattr(after, name) != getattr(before, name)
    }
    return turn.alter(before, **fields) if fields else before


def _draft(
    turn: Turn,
    subscription: Subscription,
    invoice_id: str,
    lines: list[InvoiceLine],
    sweep: list[InvoiceItem],
    *,
    draft_hour: bool,
) -> Invoice:
    automatic = subscription.collection_method == "charge_automatically"
    return create_invoice(
        turn,
        invoice_id=invoice_id,
        reason="subscription_update",
        currency=subscription.currency,
        lines=lines,
        period=(turn.now, turn.now),
        subscription=subscription,
        sweep=sweep,
        collection_method=subscription.collection_method,
        days_until_due=subscription.days_until_due,
        auto_advance=subscription.status != "unpaid",
        finalizes_at=None if automatic and not draft_hour else turn.now + turn.settings.finalization_delay_seconds,
    )


def _process(
    turn: Turn, subscription: Subscription, invoice: Invoice, command: UpdateSubscription, *, draft_hour: bool
) -> None:
    """Carry the invoice of a change as far as it goes within the request (decision 6)."""
    if subscription.paused_at(turn.now):
        handle_born_paused(turn, subscription, invoice)
        return
    tell_created(turn, invoice)
    automatic = subscription.collection_method == "charge_automatically"
    if draft_hour or subscription.status == "unpaid" or not (automatic or subscription.status == "trialing"):
        return
    confirmed_later = command.payment_behavior == "default_incomplete"
    status = awaited(turn, invoice, subscription) if confirmed_later else "requires_payment_method"
    invoice = finalize(turn, invoice, intent_status=status)
    if invoice.status == "paid":
        standing.invoice_paid(turn, invoice)
    elif not automatic:
        correspondence.send_invoice(turn, invoice)
    elif not confirmed_later:
        collect(turn, invoice, off_session=subscription.off_session)
    elif subscription.status == "active":
        turn.updated(turn.alter(turn.subscriptions[subscription.id], status="past_due"))


def _announce(turn: Turn, before: Subscription, after: Subscription) -> Subscription:
    """Plan the notices anew where the end of the trial or of the period has moved."""
    if after.trial_end != before.trial_end:
        after = trial_notices.announce(turn, after)
    moment = cycle.upcoming_at(after, turn.settings, turn.now)
    # What the change leaves as it was is planned already, or told: at the first second of a short period.
    if moment in (after.upcoming_at, cycle.upcoming_at(before, turn.settings, turn.now)):
        return after
    return turn.note(after, upcoming_at=moment)


# --- pending_if_incomplete


def _owes(turn: Turn, change: Change) -> bool:
    if change.lines is None or change.after.collection_method != "charge_automatically":
        return False
    total = sum(line.amount for line in change.lines) + sum(entry.amount for entry in change.adjustments)
    return settled_amounts(total, turn.customer.balance, change.after.currency)[0] > 0


def _wait_for_payment(turn: Turn, before: Subscription, change: Change, *, trial_over: bool) -> Subscription:
    """Invoice the change, and let it take effect when that is paid (semantics 2.4)."""
    invoice_id = turn.new_id("in")
    after = change.after
    moments = (turn.now + INCOMPLETE_LIFETIME_SECONDS, before.trial_end, after.trial_end, before.current_period_end)
    moved = (
        after.current_period_end != before.current_period_end
        or after.current_period_start != before.current_period_start
    )
    pending = PendingUpdate(
        expires_at=min(moment for moment in moments if moment is not None and moment > turn.now),
        invoice=invoice_id,
        subscription_items=after.items if after.items != before.items else (),
        billing_cycle_anchor=_if_changed(before, after, "billing_cycle_anchor"),
        trial_end=_if_changed(before, after, "trial_end"),
        current_period_start=after.current_period_start if moved else None,
        current_period_end=after.current_period_end if moved else None,
        interval=after.interval,
        interval_count=after.interval_count,
    )
    subscription = turn.alter(before, pending_update=pending, latest_invoice=invoice_id)
    turn.updated(subscription)
    lines = [*adjustments.as_lines(turn, change.adjustments), *(change.lines or [])]
    invoice = create_invoice(
        turn,
        invoice_id=invoice_id,
        reason="subscription_update",
        currency=before.currency,
        lines=lines,
        period=(turn.now, turn.now),
        subscription=before,
        collection_method="charge_automatically",
        auto_advance=False,
        trial_over=trial_over,
    )
    tell_created(turn, invoice)
    invoice = finalize(turn, invoice)
    collect(turn, invoice, off_session=before.off_session)
    return turn.subscriptions[before.id]


def _if_changed(before: Subscription, after: Subscription, name: str) -> int | None:
    value: int | None = getattr(after, name)
    return value if value != getattr(before, name) else None
