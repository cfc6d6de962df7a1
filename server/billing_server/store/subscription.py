"""How subscriptions are stored and listed."""

from __future__ import annotations

from billing_server.domain import subscription as subscriptions
from billing_server.domain.subscription import CollectionMethod, Subscription, SubscriptionStatus
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

SUBSCRIPTIONS = Rows(
    Subscription, "subscription", "subscriptions", "subscription_row_3", derived={"wake_at": subscriptions.wake_at}
)


class SubscriptionFilter(Filter[Subscription], frozen=True, kw_only=True):
    """Which subscriptions to list; without more, those that have not ended.

    `statuses` decides alone where it is given: ended ones are listed when it names them.
    """

    customer: str | None = None
    statuses: tuple[SubscriptionStatus, ...] | None = None
    ended: bool | None = None
    price: str | None = None
    collection_method: CollectionMethod | None = None
    test_clock: str | None = None
    created_from: int | None = None
    created_before: int | None = None
