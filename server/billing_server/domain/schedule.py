"""The subscription schedule: phases that a subscription goes through, and the moments at which it moves on.

Rules: semantics 1 (SubscriptionSchedule), 2.4, 4 (Schedules) and 7. All instants are UTC seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from billing_server.domain.subscription import AddedInvoiceItem, CollectionMethod, ProrationBehavior

ScheduleStatus = Literal["not_started", "active", "completed", "released", "canceled"]
EndBehavior = Literal["release", "cancel"]
PhaseAnchor = Literal["automatic", "phase_start"]

FOLLOWING: Mapping[ScheduleStatus, frozenset[ScheduleStatus]] = {
    "not_started": frozenset({"active", "released", "canceled"}),
    "active": frozenset({"completed", "released", "canceled"}),
    "completed": frozenset(),
    "released": frozenset(),
    "canceled": frozenset(),
}
"""Which statuses may follow each. `completed`: the last phase was over and ended the subscription, as wished.
`released`: the subscription lives on by itself. `canceled`: it, or the schedule alone, ended before its time."""

ENDED: frozenset[ScheduleStatus] = frozenset(status for status, following in FOLLOWING.items() if not following)
"""Statuses that are never left."""

EXPIRING_SECONDS = 7 * 86_400
"""How long before the end of its last phase a schedule is announced to expire (semantics 9)."""


class PhaseItem(msgspec.Struct, frozen=True, kw_only=True):
    """One price of a phase. `quantity` is None for metered prices; in requests None means 1."""

    price: str
    quantity: int | None = None
    metadata: dict[str, str] = {}


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What the subscription is like in [start_date, end_date).

    `proration_behavior` says what entering the phase does about the rest of the running billing period. What is
    None is taken from the schedule's default settings. `metadata` is merged into the subscription's on entry.
    """

    start_date: int
    end_date: int
    items: tuple[PhaseItem, ...]
    trial_end: int | None = None
    proration_behavior: ProrationBehavior = "create_prorations"
    billing_cycle_anchor: PhaseAnchor = "automatic"
    collection_method: CollectionMethod | None = None
    days_until_due: int | None = None
    default_payment_method: str | None = None
    add_invoice_items: tuple[AddedInvoiceItem, ...] = ()
    description: str | None = None
    metadata: dict[str, str] = {}


class CurrentPhase(msgspec.Struct, frozen=True, kw_only=True):
    """Start and end of the phase that an active schedule is in."""

    start_date: int
    end_date: int


class ScheduleDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of phases that do not say otherwise.

    A payment method or description that neither they nor the phase name stays as the subscription has it.
    """

    collection_method: CollectionMethod = "charge_automatically"
    days_until_due: int | None = None
    default_payment_method: str | None = None
    description: str | None = None


class SubscriptionSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """Phases of one subscription, which each follow the one before without a gap.

    `subscription` is set while the schedule is active, and stays set when it was completed or canceled;
    `released_subscription` is the one that it was released from. `expiring_at` is when the end is announced,
    None once it was.
    """

    id: str
    created: int
    customer: str
    status: ScheduleStatus = "not_started"
    phases: tuple[Phase, ...]
    current_phase: CurrentPhase | None = None
    end_behavior: EndBehavior = "release"
    default_settings: ScheduleDefaults = ScheduleDefaults()
    subscription: str | None = None
    released_subscription: str | None = None
    canceled_at: int | None = None
    completed_at: int | None = None
    released_at: int | None = None
    metadata: dict[str, str] = {}
    test_clock: str | None = None
    expiring_at: int | None = None
    version: int = 1

    @property
    def ended(self) -> bool:
        """Whether nothing of it lies ahead any more."""
        return self.status in ENDED

    @property
    def end_date(self) -> int:
        """The end of its last phase."""
        return self.phases[-1].end_date

    @property
    def position(self) -> int:
        """The place of the current phase among all; -1 before the first."""
        if self.current_phase is None:
            return -1
        start = self.current_phase.start_date
        return next(index for index, phase in enumerate(self.phases) if phase.start_date == start)

    @property
    def following(self) -> Phase | None:
        """The phase that comes next, if one does."""
        place = self.position + 1
        return self.phases[place] if place < len(self.phases) else None

    @property
    def ends_subscription_at(self) -> int | None:
        """When the subscription has to end, once the last phase has begun and if it shall end with it."""
        if self.end_behavior == "cancel" and self.following is None:
            return self.end_date
        return None


def wake_at(schedule: SubscriptionSchedule) -> int | None:
    """The next moment at which time alone changes the schedule, or None when there is none.

    A last phase that ends the subscription is not woken: the subscription's own `cancel_at` ends both.
    """
    moments = [schedule.expiring_at]
    if schedule.status == "not_started":
        moments.append(schedule.phases[0].start_date)
    elif schedule.status == "active":
        if schedule.current_phase is not None and schedule.ends_subscription_at is None:
            moments.append(schedule.current_phase.end_date)
    else:
        return None
    return min((moment for moment in moments if moment is not None), default=None)
