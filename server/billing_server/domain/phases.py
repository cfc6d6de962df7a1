"""The phases of a schedule: made of what was asked for, and checked against catalog and book (semantics 1 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from billing_server.domain import calendar
from billing_server.domain.collection import chargeable_method
from billing_server.domain.commands import PhaseParams
from billing_server.domain.errors import InvalidArgument, ResourceMissing, Violation, WrongState
from billing_server.domain.invoicing import added_lines, item_amount
from billing_server.domain.items import new_items, recurring
from billing_server.domain.schedule import Phase, PhaseItem
from billing_server.domain.subscription import SubscriptionItem
from billing_server.domain.trial_limits import TRIAL_DAYS_MAX
from billing_server.domain.turn import Turn

HORIZON_SECONDS = 36_525 * calendar.DAY
"""No phase ends more than a hundred years ahead."""

T = TypeVar("T")


class Cycle(msgspec.Struct, frozen=True):
    """The billing cycle that lengths of phases are counted along."""

    anchor: int
    interval: calendar.Interval
    interval_count: int


def resolve(turn: Turn, wished: Sequence[PhaseParams], start: int, cycle: Cycle | None = None) -> tuple[Phase, ...]:
    """The phases from `start` on, one after the other. `cycle` is that of the subscription, if there is one.

    Raises:
        InvalidArgument: with the violations of all phases.
        ResourceMissing, WrongState: a price or payment method is not there, or no longer sold.
    """
    drawing = _Drawing(turn, start, cycle)
    for index, params in enumerate(wished):
        drawing.add(params, f"phases[{index}]")
        if drawing.end is None:
            break
    if drawing.violations:
        raise InvalidArgument(*drawing.violations)
    return tuple(drawing.phases)


class _Drawing:
    """Phases in the making. `end` is that of the last one, None when it could not be found."""

    def __init__(self, turn: Turn, start: int, cycle: Cycle | None) -> None:
        self._turn = turn
        self._cycle = cycle
        self._currency: str | None = None
        self.phases: list[Phase] = []
        self.violations: list[Violation] = []
        self.end: int | None = start

    def add(self, params: PhaseParams, path: str) -> None:
        """Put a phase behind the ones before."""
        start = self.end
        if start is None:
            raise AssertionError("a phase behind one without an end")
        turn = self._turn
        if params.start_date is not None and params.start_date != start:
            self._refuse(
                f"{path}.start_date", f"phases follow without a gap, so it is {calendar.written(start)}; leave it out"
            )
        items = self._within(path, lambda: new_items(turn, params.items))
        if items is None:
            self.end = None
            return
        self._check_items(items, params, path)
        cycle = self._cycle_of(items, params, start)
        self.end = end = self._end(params, start, cycle, path)
        if end is None:
            return
        trial_end = end if params.trial else params.trial_end
        if trial_end is not None:
            self._check_trial(start, trial_end, end, path)
        self._cycle = cycle if trial_end is None else msgspec.structs.replace(cycle, anchor=trial_end)
        self.phases.append(_phase(params, items, start, end, trial_end))

    def _check_items(self, items: tuple[SubscriptionItem, ...], params: PhaseParams, path: str) -> None:
        turn = self._turn
        currency = turn.catalog.price(items[0].price).currency
        self._currency = self._currency or currency
        if currency != self._currency:
            text = f"all phases bill one subscription, in {self._currency}; use prices in it"
            self.violations.append(Violation(f"{path}.items[0].price", "currency_mismatch", text))
        for index, item in enumerate(items):
            self._within(f"{path}.items[{index}]", lambda item=item: item_amount(turn, item))  # type: ignore[misc]
        self._within(path, lambda: added_lines(turn, params.add_invoice_items, currency=currency))
        method = params.default_payment_method
        if method is not None:
            self._within(path, lambda: chargeable_method(turn, method, "default_payment_method"))

    def _cycle_of(self, items: tuple[SubscriptionItem, ...], params: PhaseParams, start: int) -> Cycle:
        """The cycle goes on from the phase before, unless this one begins another."""
        terms = recurring(self._turn.catalog.price(items[0].price))
        known = self._cycle
        if known is not None and params.billing_cycle_anchor == "automatic":
            same = (known.interval, known.interval_count) == (terms.interval, terms.interval_count)
            if same:
                return known
        return Cycle(start, terms.interval, terms.interval_count)

    def _end(self, params: PhaseParams, start: int, cycle: Cycle, path: str) -> int | None:
        if params.end_date is not None:
            end, field = params.end_date, "end_date"
        else:
            length, count = (
                (Cycle(cycle.anchor, params.duration.interval, params.duration.interval_count), 1)
                if params.duration is not None
                else (cycle, params.iterations or 1)
            )
            end, field = _end_of(start, length, count), "iterations" if params.duration is None else "duration"
        if end > self._turn.now + HORIZON_SECONDS:
            self._refuse(f"{path}.{field}", "a phase ends at most a hundred years ahead")
            return None
        if end <= start:
            self._refuse(f"{path}.{field}", f"a phase ends after it begins, which is at {calendar.written(start)}")
            return None
        return end

    def _check_trial(self, start: int, trial_end: int, end: int, path: str) -> None:
        if not start < trial_end <= end:
            self._refuse(
                f"{path}.trial_end",
                f"a trial ends within its phase, after {calendar.written(start)} and until {calendar.written(end)}",
            )
        elif trial_end > start + TRIAL_DAYS_MAX * calendar.DAY:
            self._refuse(f"{path}.trial_end", f"a trial lasts at most {TRIAL_DAYS_MAX} days")

    def _refuse(self, field: str, description: str) -> None:
        self.violations.append(Violation(field, "time_out_of_range", description))

    def _within(self, path: str, judge: Callable[[], T]) -> T | None:
        """What a check gives; what it finds is told with the path of the phase."""
        try:
            return judge()
        except InvalidArgument as error:
            self.violations += [
                Violation(f"{path}.{found.field}", found.reason, found.description) for found in error.violations
            ]
            return None
        except ResourceMissing as error:
            raise ResourceMissing(error.resource_type, error.resource_id, field=f"{path}.{error.field}") from error
        except WrongState as error:
            raise WrongState(
                error.reason, error.message, subject=error.subject, field=f"{path}.{error.field}"
            ) from error


def _end_of(start: int, cycle: Cycle, count: int) -> int:
    """So many intervals after the start: along the cycle when the start lies on it, so that days do not drift.

    A time after the year 9999 is told as the first instant that is too late.
    """
    anchor, interval, every = cycle.anchor, cycle.interval, cycle.interval_count
    try:
        if calendar.next_boundary(anchor, interval, every, start - 1) != start:
            return calendar.boundary(start, interval, every, count)
        end = start
        for _ in range(count):
            end = calendar.next_boundary(anchor, interval, every, end)
    except ValueError:
        return calendar.LAST_INSTANT
    return end


def _phase(
    params: PhaseParams, items: tuple[SubscriptionItem, ...], start: int, end: int, trial_end: int | None
) -> Phase:
    return Phase(
        start_date=start,
        end_date=end,
        items=as_phase_items(items),
        trial_end=trial_end,
        proration_behavior=params.proration_behavior,
        billing_cycle_anchor=params.billing_cycle_anchor,
        collection_method=params.collection_method,
        days_until_due=params.days_until_due,
        default_payment_method=params.default_payment_method,
        add_invoice_items=params.add_invoice_items,
        description=params.description,
        metadata=params.metadata,
    )


def as_phase_items(items: Sequence[SubscriptionItem]) -> tuple[PhaseItem, ...]:
    """The items of a subscription as those of a phase."""
    return tuple(PhaseItem(price=item.price, quantity=item.quantity, metadata=item.metadata) for item in items)
