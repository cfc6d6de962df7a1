"""The plan of the replay: everybody is billed `tenure` times before the end, by the rules of billing alone."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_client.command_line.replays import SAMPLE
from billing_client.instants import add_months, parse_instant
from billing_client.replay.plan import DAYS_UNTIL_DUE, Plan, PlanError, make_plan, run_name
from billing_client.replay.rows import Row, read_rows

DAY = 86_400
DRAFT_SECONDS = 3600
END = parse_instant("2025-01-01", 0)


def row(tenure: int, *, automatic: bool = True, churned: bool = False, cents: int = 1000, name: str = "") -> Row:
    method = "Credit card (automatic)" if automatic else "Mailed check"
    return Row(
        customer_id=name or f"row-{tenure}-{automatic}-{churned}-{cents}",
        tenure_months=tenure,
        monthly_cents=cents,
        contract="One year",
        payment_method=method,
        churned=churned,
        attributes={},
    )


def turns_seen(plan: Plan, wanted: Row) -> list[int]:
    """The turns at which a row is billed: from its start, month by month from the anchor, while the clock runs."""
    start = next(stop.at for stop in plan.stops if stop.kind == "turn" and wanted in stop.starting)
    last = plan.stops[-1].at
    turns: list[int] = []
    while add_months(start, len(turns)) <= last:
        turns.append(add_months(start, len(turns)))
    return turns


@given(
    st.lists(st.tuples(st.integers(0, 90), st.booleans(), st.booleans()), min_size=1, max_size=20, unique=True),
    st.dates(min_value=date(1985, 1, 1), max_value=date(2099, 12, 28)),
)
def test_each_row_is_billed_for_each_month_and_in_time(shapes: list[tuple[int, bool, bool]], last: date) -> None:
    end = parse_instant(last.isoformat(), 0)
    rows = [row(tenure, automatic=automatic, churned=churned) for tenure, automatic, churned in shapes]
    if last.day > 28:
        with pytest.raises(PlanError, match="day"):
            make_plan(rows, end)
        return
    plan = make_plan(rows, end)
    times = [stop.at for stop in plan.stops]
    payments = [stop.at for stop in plan.stops if stop.kind == "payment"]
    assert times == sorted(set(times))
    assert times[-1] == end - 1
    for item in rows:
        if item.tenure_months == 0:
            assert item in plan.stops[-1].starting
            continue
        turns = turns_seen(plan, item)
        assert len(turns) == item.tenure_months
        assert turns[-1] + DRAFT_SECONDS < plan.stops[-1].at
        if not item.automatic:
            for turn in turns:
                due = turn + DAYS_UNTIL_DUE * DAY
                assert any(turn + DRAFT_SECONDS < payment < due for payment in payments)
    assert sum(len(stop.starting) for stop in plan.stops) == len(rows)
    assert {item.customer_id for item in plan.stops[-1].leaving} == {item.customer_id for item in rows if item.churned}


def test_the_stops_of_two_rows() -> None:
    check, card = row(1, automatic=False), row(2)
    plan = make_plan([check, card], END)
    assert [(stop.kind, stop.at - END) for stop in plan.stops] == [
        ("turn", -61 * DAY),
        ("turn", -31 * DAY),
        ("payment", -21 * DAY),
        ("close", -1),
    ]
    assert [stop.starting for stop in plan.stops] == [(card,), (check,), (), ()]
    assert plan.invoices_expected == 3


def test_rows_without_a_month_need_only_the_last_stop() -> None:
    plan = make_plan([row(0), row(0, automatic=False, churned=True)], END)
    assert [(stop.kind, stop.at, len(stop.starting), len(stop.leaving)) for stop in plan.stops] == [
        ("close", END - 1, 2, 1)
    ]
    assert plan.invoices_expected == 0


def test_without_checks_the_clock_never_stops_for_payments() -> None:
    assert {stop.kind for stop in make_plan([row(5), row(0, automatic=False)], END).stops} == {"turn", "close"}


def test_prices_are_shared() -> None:
    rows = [row(1, cents=2985), row(2, cents=2985), row(3, cents=1995)]
    assert make_plan(rows, END).prices_cents == [1995, 2985]


def test_a_start_before_the_clocks_begin_is_refused() -> None:
    with pytest.raises(PlanError, match="before 1970"):
        make_plan([row(72)], parse_instant("1975-06-01", 0))


def test_the_same_file_and_end_find_their_run_again() -> None:
    rows = [row(1), row(2)]
    assert run_name(rows, END) == run_name(list(rows), END)
    assert run_name(rows, END) != run_name(rows[:1], END)
    assert run_name(rows, END) != run_name(rows, END - DAY)
    assert run_name(rows, END) != run_name([row(1), row(3)], END)
    assert make_plan(rows, END, "mine").name == "mine"


def test_the_sample_can_be_planned() -> None:
    plan = make_plan(read_rows(SAMPLE), END)
    assert len(plan.rows) == 20
    assert {item.automatic for item in plan.rows} == {True, False}
    assert any(item.tenure_months == 0 and item.total_is_blank for item in plan.rows)
    assert any(item.churned for item in plan.rows)
