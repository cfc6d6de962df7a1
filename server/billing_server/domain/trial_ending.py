"""The end of a trial that nobody can pay for: canceled or paused, as the subscription says (semantics 2.2).

Apart because a trial ends by time and by a caller's word, and both ask the same.
"""

from __future__ import annotations

from billing_server.domain.method_lookup import find_method
from billing_server.domain.subscription import Subscription
from billing_server.domain.termination import end
from billing_server.domain.turn import Turn


def lacks_method(turn: Turn, subscription: Subscription, moment: int | None = None) -> bool:
    """Whether a trial that ends at a moment, by default now, is not followed by an invoice: there is nothing to charge
    it to, as things stand.

    While collection is paused it is followed by one all the same (decision 18).
    """
    return (
        subscription.collection_method == "charge_automatically"
        and subscription.missing_payment_method != "create_invoice"
        and not subscription.paused_at(turn.now if moment is None else moment)
        and find_method(turn, None, subscription) is None
    )


def without_method(turn: Turn, subscription: Subscription) -> Subscription:
    """End the trial without an invoice: canceled for good, or paused until it is resumed."""
    if subscription.missing_payment_method == "cancel":
        return end(turn, subscription, "payment_failed")
    subscription = turn.alter(
        subscription, status="paused", upcoming_at=None, trial_will_end_at=None, trial_reminder_at=None
    )
    turn.updated(subscription)
    turn.emit("customer.subscription.paused", subscription)
    return subscription
