"""Creating a subscription: its items, trial, anchor and first period, and its first invoice (semantics 2.2, 4)."""

from __future__ import annotations

import msgspec

from billing_server.domain import calendar, correspondence, cycle, standing, trial_notices
from billing_server.domain.collection import chargeable_method, collect
from billing_server.domain.commands import CreateSubscription
from billing_server.domain.customer import Customer
from billing_server.domain.errors import LimitReached, WrongState, invalid
from billing_server.domain.invoice import Invoice, InvoiceLine
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
)
from billing_server.domain.items import new_items, recurring
from billing_server.domain.metadata import initial_metadata
from billing_server.domain.method_lookup import awaited
from billing_server.domain.subscription import INCOMPLETE_LIFETIME_SECONDS, CancellationDetails, Subscription
from billing_server.domain.trial_limits import check_trial_end
from billing_server.domain.turn import Turn

SUBSCRIPTIONS_MAX = 500
"""Active or scheduled subscriptions per customer (semantics 1, SubscriptionItem)."""


def create_subscription(turn: Turn, command: CreateSubscription) -> Subscription:
    """Make the subscription and its first invoice; a charge that is needed is started, not awaited."""
    _check(turn, command)
    return begin(turn, command)


def begin(
    turn: Turn, command: CreateSubscription, *, identity: str | None = None, schedule: str | None = None
) -> Subscription:
    """Begin a subscription that nothing speaks against.

    What a schedule begins is never incomplete: its first invoice, unless nothing is due, is a draft for the draft
    hour and collected like a renewal (semantics 4, Schedules).
    """
    if command.currency is not None:
        fix_currency(turn, command.currency, "currency")
    subscription = _open(turn, command)
    subscription = msgspec.structs.replace(subscription, id=identity or subscription.id, schedule=schedule)
    _fix_currency(turn, subscription.currency)
    lines = _first_lines(turn, subscription, command)
    if lines is None:
        turn.put(subscription)
        turn.emit("customer.subscription.created", subscription)
        return _notices(turn, subscription)
    return _first_invoice(turn, subscription, command, lines)


def _check(turn: Turn, command: CreateSubscription) -> None:
    refuse_deleted(turn.customer)
    check_number(turn)
    if command.default_payment_method is not None:
        chargeable_method(turn, command.default_payment_method, "default_payment_method")


def check_number(turn: Turn) -> None:
    """No more subscriptions than a customer may have; schedules that have not started count as one each."""
    scheduled = sum(schedule.status == "not_started" for schedule in turn.schedules.values())
    if turn.book.live_subscriptions + scheduled >= SUBSCRIPTIONS_MAX:
        raise LimitReached(
            "customer_max_subscriptions",
            f"a customer has at most {SUBSCRIPTIONS_MAX} active or scheduled subscriptions; cancel one first",
        )


def refuse_deleted(customer: Customer) -> None:
    """Nothing new for a customer who is deleted."""
    if customer.deleted:
        raise WrongState("customer_deleted", f"the customer '{customer.id}' is deleted", subject=customer.id)


def _open(turn: Turn, command: CreateSubscription) -> Subscription:
    """The subscription as it begins; its status is still to be decided by the first invoice."""
    items = new_items(turn, command.items)
    first_price = turn.catalog.price(items[0].price)
    interval, count = recurring(first_price).interval, recurring(first_price).interval_count
    trial_end = trial_end_of(turn, command, items[0].price)
    begins = trial_end or turn.now
    anchor = _anchor(turn, command, interval, count, begins)
    start = _start_date(turn, command)
    will_end = command.cancel_at_period_end or command.cancel_at is not None
    subscription = Subscription(
        id=turn.new_id("sub"),
        created=turn.now,
        customer=turn.customer.id,
        status="trialing" if trial_end is not None else "active",
        currency=first_price.currency,
        items=items,
        interval=interval,
        interval_count=count,
        collection_method=command.collection_method,
        days_until_due=command.days_until_due,
        start_date=start,
        billing_cycle_anchor=anchor,
        billing_cycle_anchor_config=command.billing_cycle_anchor_config,
        billing_mode=command.billing_mode,
        current_period_start=turn.now,
        current_period_end=trial_end or calendar.next_boundary(anchor, interval, count, turn.now),
        cancel_at=_cancel_at(turn, command),
        cancel_at_period_end=command.cancel_at_period_end,
        canceled_at=turn.now if will_end else None,
        cancellation_details=CancellationDetails(reason="cancellation_requested" if will_end else None),
        trial_start=turn.now if trial_end is not None else None,
        trial_end=trial_end,
        missing_payment_method=command.missing_payment_method,
        default_payment_method=command.default_payment_method,
        save_default_payment_method=command.save_default_payment_method,
        off_session=command.off_session,
        description=command.description,
        pending_invoice_item_interval=command.pending_invoice_item_interval,
        metadata=initial_metadata(command.metadata),
        test_clock=turn.customer.test_clock,
        free_stub=command.proration_behavior == "none",
    )
    return _first_period(turn, subscription)


def _first_period(turn: Turn, subscription: Subscription) -> Subscription:
    """Cut the first period at `cancel_at`, tell whether its days are free, and plan the invoices of pending items."""
    changes: dict[str, object] = {}
    if subscription.trial_end is None:
        stub = cycle.period_from(subscription, subscription.current_period_start).stub
        changes["free_stub"] = subscription.free_stub and stub
    cancel_at = subscription.cancel_at
    if cancel_at is not None and cancel_at < subscription.current_period_end:
        changes["current_period_end"] = cancel_at
    every = subscription.pending_invoice_item_interval
    if every is not None:
        changes["next_pending_invoice_item_invoice"] = calendar.boundary(
            turn.now, every.interval, every.interval_count, 1
        )
    return msgspec.structs.replace(subscription, **changes)


def trial_end_of(turn: Turn, command: CreateSubscription, first_price: str) -> int | None:
    """When the trial ends: as given, after so many days, or as the price says when asked for."""
    end = command.trial_end
    if command.trial_period_days:
        end = turn.now + command.trial_period_days * calendar.DAY
    elif command.trial_from_plan:
        days = recurring(turn.catalog.price(first_price)).trial_period_days
        end = turn.now + days * calendar.DAY if days else None
    if end is not None:
        check_trial_end(turn, end)
    return end


def _anchor(turn: Turn, command: CreateSubscription, interval: calendar.Interval, count: int, begins: int) -> int:
    """The anchor: as configured, as given (within one period of the beginning), else the beginning itself."""
    config = command.billing_cycle_anchor_config
    if config is not None:
        if interval not in ("month", "year"):
            raise invalid(
                "billing_cycle_anchor_config",
                "parameter_invalid",
                f"it needs prices per month or year, not per {interval}; use billing_cycle_anchor",
            )
        return calendar.resolve_anchor(
            begins,
            interval,
            count,
            config.day_of_month,
            config.month,
            config.hour,
            config.minute,
            config.second,
        )
    anchor = command.billing_cycle_anchor
    if anchor is None:
        return begins
    if anchor <= turn.now or anchor < begins:
        raise invalid(
            "billing_cycle_anchor",
            "time_out_of_range",
            f"must be after now, {calendar.written(turn.now)}, and not before the end of the trial",
        )
    natural = calendar.boundary(begins, interval, count, 1)
    if anchor > natural:
        raise invalid(
            "billing_cycle_anchor",
            "time_out_of_range",
            f"must not be after the next natural billing date, {calendar.written(natural)}",
        )
    return anchor


def _start_date(turn: Turn, command: CreateSubscription) -> int:
    start = command.backdate_start_date
    if start is None:
        return turn.now
    if start > turn.now:
        raise invalid(
            "backdate_start_date", "time_out_of_range", f"must not be after now, {calendar.written(turn.now)}"
        )
    return start


def _cancel_at(turn: Turn, command: CreateSubscription) -> int | None:
    if command.cancel_at is not None and command.cancel_at <= turn.now:
        raise invalid(
            "cancel_at",
            "time_out_of_range",
            f"must be after now, {calendar.written(turn.now)}; cancel now by CancelSubscription",
        )
    return command.cancel_at


def _fix_currency(turn: Turn, currency: str) -> None:
    """A customer's first subscription or invoice fixes the currency of them all."""
    fix_currency(turn, currency, "items[0].price")


def fix_currency(turn: Turn, currency: str, field: str) -> None:
    """Set the customer's currency, or refuse a second one."""
    known = turn.customer.currency
    if known is None:
        turn.updated(turn.alter(turn.customer, currency=currency))
        turn.catalog = turn.pages.catalog.in_currency(currency)
    elif known != currency:
        raise invalid(
            field,
            "currency_mismatch",
            f"this customer is billed in {known}; use {known}, or another customer for {currency}",
        )


# --- the first invoice


def _first_lines(turn: Turn, subscription: Subscription, command: CreateSubscription) -> list[InvoiceLine] | None:
    """The lines of the first invoice, or None when there is no invoice before the anchor."""
    added = added_lines(turn, command.add_invoice_items, currency=subscription.currency)
    start, end = subscription.current_period_start, subscription.current_period_end
    if subscription.status == "trialing":
        return [*trial_lines(turn, subscription, start, end), *added]
    period = cycle.period_from(subscription, start)
    free = subscription.free_stub and period.stub
    prorated = command.proration_behavior != "none"
    lines = [] if free else period_lines(turn, subscription, start, end, full=period.full if prorated else None)
    if not free:
        lines += metered_lines(turn, subscription, start, start)
    if prorated:
        lines += _backdated_lines(turn, subscription)
    lines += added
    return lines or None


def _backdated_lines(turn: Turn, subscription: Subscription) -> list[InvoiceLine]:
    """What the time from a backdated start until now costs, whole periods and the rest to the second."""
    lines: list[InvoiceLine] = []
    end = turn.now
    while end > subscription.start_date:
        whole = calendar.previous_boundary(turn.now, subscription.interval, subscription.interval_count, end)
        start = max(whole, subscription.start_date)
        lines += period_lines(turn, subscription, start, end, full=end - whole)
        end = start
    return _merged(lines, subscription.start_date, turn.now)


def _merged(lines: list[InvoiceLine], start: int, end: int) -> list[InvoiceLine]:
    """One line per item for the whole backdated time."""
    by_item: dict[str | None, InvoiceLine] = {}
    for line in lines:
        known = by_item.get(line.subscription_item)
        amount = line.amount + (known.amount if known is not None else 0)
        by_item[line.subscription_item] = msgspec.structs.replace(
            known or line, amount=amount, period_start=start, period_end=end, proration=True
        )
    return list(by_item.values())


def _first_invoice(
    turn: Turn, subscription: Subscription, command: CreateSubscription, lines: list[InvoiceLine]
) -> Subscription:
    automatic = subscription.collection_method == "charge_automatically"
    scheduled = subscription.schedule is not None
    trialing = subscription.status == "trialing"
    sweep = pending_items(turn, subscription=None, currency=subscription.currency)
    immediate = automatic or trialing
    if scheduled:
        immediate = trialing and not anything_due(turn, lines, sweep, subscription.currency)
    invoice_id = turn.new_id("in")
    invoice = create_invoice(
        turn,
        invoice_id=invoice_id,
        reason="subscription_create",
        currency=subscription.currency,
        lines=lines,
        period=(turn.now, turn.now),
        subscription=subscription,
        sweep=sweep,
        collection_method=subscription.collection_method,
        days_until_due=subscription.days_until_due,
        auto_advance=scheduled or not automatic,
        finalizes_at=None if immediate else turn.now + turn.settings.finalization_delay_seconds,
    )
    payable = automatic and immediate and _payable(turn, invoice)
    subscription = turn.put(
        msgspec.structs.replace(
            subscription,
            status="incomplete" if payable else subscription.status,
            latest_invoice=invoice_id,
            first_invoice=invoice_id,
            status_invoice=invoice_id,
            expires_at=turn.now + INCOMPLETE_LIFETIME_SECONDS if payable else None,
        )
    )
    turn.emit("customer.subscription.created", subscription)
    tell_created(turn, invoice)
    if immediate:
        _finalize_first(turn, subscription, invoice, command)
    return _notices(turn, turn.subscriptions[subscription.id])


def _payable(turn: Turn, invoice: Invoice) -> bool:
    return settled_amounts(invoice.total, turn.customer.balance, invoice.currency)[0] > 0


def _finalize_first(turn: Turn, subscription: Subscription, invoice: Invoice, command: CreateSubscription) -> None:
    """Finalize the first invoice within the request, and ask for its money as the caller wishes."""
    confirmed_later = command.payment_behavior == "default_incomplete"
    status = awaited(turn, invoice, subscription) if confirmed_later else "requires_payment_method"
    invoice = finalize(turn, invoice, intent_status=status)
    if invoice.status == "paid":
        standing.invoice_paid(turn, invoice)
    elif subscription.collection_method == "send_invoice":
        correspondence.send_invoice(turn, invoice)
    elif not confirmed_later:
        collect(turn, invoice, off_session=command.off_session)


def _notices(turn: Turn, subscription: Subscription) -> Subscription:
    """Plan what is announced ahead of the end of the trial or of the period."""
    subscription = trial_notices.announce(turn, subscription)
    return turn.note(subscription, upcoming_at=cycle.upcoming_at(subscription, turn.settings, turn.now))
