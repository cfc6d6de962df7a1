"""The next invoice of a subscription that has a schedule: time passes on paper until there is one.

Phases may change anything before it, so no formula tells it. Without a schedule `preview` does, and costs less.
"""

from __future__ import annotations

from typing import Final

import msgspec

from billing_server.domain.advance import advance
from billing_server.domain.book import Book
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import BILLED
from billing_server.domain.turn import NewId, Pages

_PERIODS_MAX: Final = 4
"""How many ends of periods may pass without an invoice: those of a trial and of free days before an anchor."""


def first_invoice(book: Book, subscription_id: str, *, wall_now: int, pages: Pages, new_id: NewId) -> Invoice | None:
    """The invoice as it will be made, a draft, if nobody changes anything until then; None when none is coming.

    The usage in it is what is known so far, and what else happens to the customer meanwhile is left out.
    """
    subscription = book.subscriptions[subscription_id]
    book = msgspec.structs.replace(
        book,
        subscriptions={subscription_id: subscription},
        schedules={id_: item for id_, item in book.schedules.items() if id_ == subscription.schedule},
        invoices={},
        attempts={},
        runs={},
        usage_complete=True,
    )
    for _ in range(_PERIODS_MAX):
        subscription = book.subscriptions[subscription_id]
        if subscription.status not in BILLED:
            return None
        decision = advance(book, subscription.current_period_end, wall_now=wall_now, pages=pages, new_id=new_id)
        for event in decision.events:
            if event.type == "invoice.created" and isinstance(event.object, Invoice):
                return event.object
        book = decision.book
    return None
