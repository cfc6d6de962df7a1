"""The next invoice of a subscription, as callers preview it: what time alone will make, or that nothing is coming."""

from __future__ import annotations

from typing import Final

import msgspec

from billing_server.domain import cycle
from billing_server.domain.advance import advance
from billing_server.domain.invoice import Invoice
from billing_server.domain.preview import as_preview, nothing_comes, preview_renewal
from billing_server.domain.schedule_status import schedule_of
from billing_server.domain.subscription import BILLED, Subscription
from billing_server.domain.trial_ending import lacks_method
from billing_server.domain.turn import Turn

_PERIODS_MAX: Final = 4
"""How many ends of periods may pass without an invoice: those of a trial and of free days before an anchor."""


def next_invoice(turn: Turn, subscription: Subscription) -> Invoice:
    """The invoice as it would be if nobody changes anything until then; with the usage so far. Raises WrongState."""
    if schedule_of(turn, subscription) is None:
        converts = subscription.status == "trialing" and not cycle.ends_with_period(subscription)
        if converts and lacks_method(turn, subscription, subscription.current_period_end):
            raise nothing_comes(subscription, "nothing can be charged when its trial ends; attach a payment method")
        return preview_renewal(turn, subscription)
    coming = _by_schedule(turn, subscription)
    if coming is None:
        raise nothing_comes(subscription)
    return as_preview(turn, coming)


def _by_schedule(turn: Turn, subscription: Subscription) -> Invoice | None:
    """The next invoice of a subscription with a schedule, a draft; None when none is coming.

    Phases may change anything before it, so no formula tells it: time passes on paper until there is one. What else
    happens to the customer meanwhile is left out.
    """
    book = msgspec.structs.replace(
        turn.book,
        subscriptions={subscription.id: subscription},
        schedules={id_: item for id_, item in turn.book.schedules.items() if id_ == subscription.schedule},
        invoices={},
        attempts={},
        runs={},
        usage_complete=True,
    )
    for _ in range(_PERIODS_MAX):
        subscription = book.subscriptions[subscription.id]
        if subscription.status not in BILLED:
            return None
        until = subscription.current_period_end
        decision = advance(book, until, wall_now=turn.wall_now, pages=turn.pages, new_id=turn.new_id)
        for event in decision.events:
            if event.type == "invoice.created" and isinstance(event.object, Invoice):
                return event.object
        book = decision.book
    return None
