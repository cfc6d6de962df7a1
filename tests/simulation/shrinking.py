"""Making a failing life smaller: fewer years, fewer deeds, fewer outages, fewer faults, as long as it still fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tests.simulation.life import Life
from tests.simulation.plan import START, YEAR, Plan

T = TypeVar("T")


class Failure:
    """A life that broke a promise: which, and when."""

    def __init__(self, plan: Plan, error: Exception, moment: int) -> None:
        self.plan = plan
        self.error = error
        self.moment = moment

    def __str__(self) -> str:
        """The failure with all that is needed to see it again."""
        plan = self.plan
        lines = [
            f"the life {plan.seed} breaks a promise at {self.moment}: {self.error!r}",
            f"  {plan.subscriptions} subscriptions at first, {plan.years} years, faults: {sorted(plan.faults)}",
            *(f"  {deed}" for deed in plan.deeds),
            *(f"  {outage}" for outage in plan.outages),
        ]
        return "\n".join(lines)


def live(plan: Plan) -> tuple[Life, Failure | None]:
    """Live a plan; how it failed, if it did. Whatever the core raises breaks a promise, too."""
    life = Life(plan)
    try:
        life.run()
    except Exception as error:  # noqa: BLE001  # any failure of a life is a finding
        return life, Failure(plan, error, life.now)
    return life, None


def shrink(failure: Failure, tries_max: int = 400) -> Failure:
    """The smallest failing life that is found by leaving things out, one kind after the other."""
    smallest, tries = failure, 0
    progress = True
    while progress and tries < tries_max:
        progress = False
        for plan in _smaller(smallest):
            tries += 1
            _, found = live(plan)
            if found is not None:
                smallest, progress = found, True
                break
            if tries >= tries_max:
                break
    return smallest


def _smaller(failure: Failure) -> Iterator[Plan]:
    plan = failure.plan
    years = (failure.moment - START) // YEAR + 1
    if years < plan.years:
        yield plan.without(years=years)
    over = failure.moment
    now = tuple(deed for deed in plan.deeds if deed.at <= over)
    if len(now) < len(plan.deeds):
        yield plan.without(deeds=now)
    for number in range(1, plan.subscriptions):
        yield plan.without(subscriptions=number)
    for outages in _parts(plan.outages):
        yield plan.without(outages=outages)
    for deeds in _parts(plan.deeds):
        yield plan.without(deeds=deeds)
    for fault in sorted(plan.faults):
        yield plan.without(faults=plan.faults - {fault})


def _parts(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """The items without a half of them, then without a quarter, and so on down to one."""
    size = len(items) // 2 or len(items)
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2
