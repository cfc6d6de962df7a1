"""What is announced ahead of the end of a trial: `trial_will_end`, and the reminder by e-mail (semantics 4)."""

from __future__ import annotations

from typing import Any, Final

from billing_server.domain import calendar, correspondence, cycle
from billing_server.domain.errors import DomainError
from billing_server.domain.method_lookup import find_method
from billing_server.domain.preview import preview_renewal
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn

TRIAL_WILL_END_SECONDS: Final = 3 * calendar.DAY
"""How long before its end a trial is announced."""

TRIAL_REMINDER_SECONDS: Final = 7 * calendar.DAY
"""How long before its end the customer is reminded of it."""


def announce(turn: Turn, subscription: Subscription) -> Subscription:
    """Plan both notices of a trial that begins or whose end moves; tell at once what would have been told already.

    A reminder goes out anew for each new end. A trial that is cut short ends with `trial_will_end`, but needs no
    reminder any more.
    """
    if subscription.trial_end is None or subscription.status == "incomplete":
        return subscription
    return _announce_end(turn, _plan_reminder(turn, subscription, subscription.trial_end), subscription.trial_end)


def _plan_reminder(turn: Turn, subscription: Subscription, end: int) -> Subscription:
    moment = end - TRIAL_REMINDER_SECONDS
    trialing = subscription.status == "trialing"
    planned = moment if trialing and moment > turn.now else None
    if planned != subscription.trial_reminder_at:
        subscription = turn.note(subscription, trial_reminder_at=planned)
    if trialing and planned is None:
        remind(turn, subscription)
    return subscription


def _announce_end(turn: Turn, subscription: Subscription, end: int) -> Subscription:
    moment = end - TRIAL_WILL_END_SECONDS
    if moment > turn.now:
        return turn.note(subscription, trial_will_end_at=moment)
    subscription = turn.note(subscription, trial_will_end_at=None)
    turn.emit("customer.subscription.trial_will_end", subscription)
    return subscription


def remind(turn: Turn, subscription: Subscription) -> None:
    """Remind the customer of the end of the trial, of what it will cost then, and of how to cancel."""
    emails = turn.settings.emails
    if not emails.trial_reminder or turn.customer.email is None:
        return
    method = find_method(turn, None, subscription)
    card = None if method is None else method.card
    correspondence.stage(
        turn,
        "trial_reminder",
        subscription=subscription.id,
        plan=correspondence.plan_name(turn, subscription),
        **_cost(turn, subscription),
        currency=subscription.currency,
        moment=subscription.trial_end,
        collection_method=subscription.collection_method,
        ends=cycle.ends_with_period(subscription),
        has_method=method is not None,
        card_brand=None if card is None else card.brand,
        card_last4=None if card is None else card.last4,
        cancellation_policy_url=emails.cancellation_policy_url,
    )


def _cost(turn: Turn, subscription: Subscription) -> dict[str, Any]:
    """What the first invoice after the trial will ask for, where that can be told already."""
    period = cycle.period_from(subscription, subscription.current_period_end)
    if cycle.ends_with_period(subscription) or subscription.paused_at(period.start):
        return {}
    if subscription.free_stub and period.partial:
        return {}
    try:
        return {"amount": preview_renewal(turn, subscription).amount_due}
    except DomainError:
        # A price that cannot be told must not keep a trial from beginning; its invoice will say what is wrong.
        return {}
