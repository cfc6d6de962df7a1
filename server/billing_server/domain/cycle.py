"""The billing cycle of one subscription: its next period, its notices, and what a period costs (semantics 4)."""

from __future__ import annotations

import msgspec

from billing_server.domain import calendar
from billing_server.domain.account import Settings
from billing_server.domain.subscription import Subscription


class Period(msgspec.Struct, frozen=True):
    """A billing period [start, end). `full` is the length of the whole period it is or is cut out of.

    `stub` tells that it begins between two boundaries of the cycle: it is the way to the anchor.
    """

    start: int
    end: int
    full: int
    stub: bool = False

    @property
    def partial(self) -> bool:
        """Whether it is shorter than a whole period, and therefore prorated."""
        return self.end - self.start != self.full


def period_from(subscription: Subscription, start: int) -> Period:
    """The period that begins at `start`: up to the next boundary of the anchor, or to an earlier `cancel_at`."""
    anchor, interval, count = (
        subscription.billing_cycle_anchor,
        subscription.interval,
        subscription.interval_count,
    )
    boundary, end = calendar.period_around(anchor, interval, count, start)
    full = end - boundary
    stub = boundary != start
    if subscription.cancel_at is not None and start < subscription.cancel_at < end:
        end = subscription.cancel_at
    return Period(start, end, full, stub)


def shown_anchor(subscription: Subscription) -> int:
    """The anchor as callers see it: in the first period it follows an earlier `cancel_at` (semantics 4).

    The anchor itself is kept, so that it is back when `cancel_at` is taken back.
    """
    start, cancel_at = subscription.current_period_start, subscription.cancel_at
    anchor = subscription.billing_cycle_anchor
    if cancel_at is None or start != subscription.created or subscription.status == "trialing":
        return anchor
    natural_end = calendar.next_boundary(anchor, subscription.interval, subscription.interval_count, start)
    return cancel_at if start < cancel_at < natural_end else anchor


def upcoming_at(subscription: Subscription, settings: Settings, now: int) -> int | None:
    """When the next renewal is announced by `invoice.upcoming`, or None when it will not be (semantics 9).

    A period that is not longer than the notice is announced as it begins.
    """
    if (
        subscription.collection_method != "charge_automatically"
        or subscription.status not in ("active", "past_due")
        or settings.upcoming_renewal_days == 0
        or ends_with_period(subscription)
    ):
        return None
    start = subscription.current_period_start
    moment = max(start, subscription.current_period_end - settings.upcoming_renewal_days * calendar.DAY)
    return moment if moment > now or moment == start == now else None


def ends_with_period(subscription: Subscription) -> bool:
    """Whether the subscription is canceled at or before the end of its current period."""
    if subscription.cancel_at_period_end:
        return True
    return subscription.cancel_at is not None and subscription.cancel_at <= subscription.current_period_end
