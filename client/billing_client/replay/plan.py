"""What happens when: from rows to the stops of a test clock. Pure, so that it can be reasoned about and tested.

A subscription of `tenure` months starts so many months before the end. It is billed at its start and at each
month's turn, the last time one month before the end: the renewal at the end itself would be one too many, so the
clock stops one second before. By then the last invoice, a draft for an hour, has long been finalized and paid.

The clock stops at each month's turn, where those who begin are created, and ten days later, where the checks
come in: after the draft hour and before the due date, 30 days after the invoice, which in a month of 31 days
lies before the next turn.

Who has no month yet begins at the last stop, with the first period at the end: billed for nothing so far.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from billing_client.instants import add_months
from billing_client.replay.rows import Row

DAYS_UNTIL_DUE = 30
PAYMENT_DAYS = 10
"""Days after the turn of the month at which checks are paid: after the draft hour, before the due date."""

LAST_DAY_OF_MONTH_MAX = 28
"""A later day is missing in some months, and the turns would no longer lie `tenure` months apart."""

_DAY_SECONDS = 86_400

StopKind = Literal["turn", "payment", "close"]


class PlanError(ValueError):
    """The replay cannot be planned; the message names the rule and a way out."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A time at which the clock stands still, in Unix seconds, and what is done there.

    turn: those of `starting` are created. payment: open invoices that were sent are paid. close: those of
    `starting` who have no month yet are created, and those of `leaving` are canceled.
    """

    at: int
    kind: StopKind
    starting: tuple[Row, ...] = ()
    leaving: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole replay. `end` is the common end date in Unix seconds; `name` tells runs apart."""

    name: str
    end: int
    rows: tuple[Row, ...]
    stops: tuple[Stop, ...]

    @property
    def start(self) -> int:
        """What time the clock shows at first."""
        return self.stops[0].at

    @property
    def invoices_expected(self) -> int:
        """How many invoices there will be at the end."""
        return sum(row.tenure_months for row in self.rows)

    @property
    def prices_cents(self) -> list[int]:
        """The different monthly prices, lowest first."""
        return sorted({row.monthly_cents for row in self.rows})


def make_plan(rows: Sequence[Row], end: int, name: str = "") -> Plan:
    """Plan the replay of these rows up to `end`. Raises PlanError."""
    moment = datetime.fromtimestamp(end, UTC)
    if moment.day > LAST_DAY_OF_MONTH_MAX:
        raise PlanError(
            f"the end date is day {moment.day} of its month, which some months lack; choose a day up to "
            f"{LAST_DAY_OF_MONTH_MAX}, so that all months before it have it"
        )
    longest = max(row.tenure_months for row in rows)
    if moment.year * 12 + moment.month - longest <= 1970 * 12 + 1:
        raise PlanError(f"{longest} months before the end lie before 1970; choose a later end date")
    return Plan(name=name or run_name(rows, end), end=end, rows=tuple(rows), stops=tuple(_stops(rows, end, longest)))


def run_name(rows: Sequence[Row], end: int) -> str:
    """A name that is the same for the same rows and end, so that the same command finds its run again."""
    digest = hashlib.sha256(str(end).encode())
    for row in rows:
        digest.update(repr((row.customer_id, row.tenure_months, row.monthly_cents, row.churned)).encode())
        digest.update(repr((row.contract, row.payment_method)).encode())
    return f"telco-{digest.hexdigest()[:12]}"


def _stops(rows: Sequence[Row], end: int, longest: int) -> list[Stop]:
    starting: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        starting[row.tenure_months].append(row)
    longest_by_check = max((row.tenure_months for row in rows if not row.automatic), default=0)
    stops = []
    for months in range(longest, 0, -1):
        turn = add_months(end, -months)
        stops.append(Stop(turn, "turn", starting=tuple(starting[months])))
        if months <= longest_by_check:
            stops.append(Stop(turn + PAYMENT_DAYS * _DAY_SECONDS, "payment"))
    leaving = tuple(row for row in rows if row.churned)
    stops.append(Stop(end - 1, "close", starting=tuple(starting[0]), leaving=leaving))
    return stops
