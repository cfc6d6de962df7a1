"""`billing replay`: real subscribers, billed month by month through the RPCs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from billing_client.command_line.options import instant
from billing_client.command_line.output import Output
from billing_client.command_line.session import FAILED, Session, run
from billing_client.instants import format_seconds
from billing_client.money import format_amount
from billing_client.replay.plan import Plan, PlanError, make_plan
from billing_client.replay.rows import CURRENCY, FileError, read_rows
from billing_client.replay.run import replay
from billing_client.replay.summary import Group, Summary, summarize
from billing_client.replay.world import WorldError

app = typer.Typer(help="Bill real data month by month.", no_args_is_help=True)

DEFAULT_END = "2025-01-01"
SAMPLE = Path(__file__).parents[1] / "replay" / "sample.csv"

_WRONG_SHOWN_MAX = 10
_COLUMNS = ("", "customers", "subscriptions", "canceled", "invoices", "revenue", "expected", "difference")


@app.callback()
def replays() -> None:
    """Bill real data month by month."""


@app.command()
def telco(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="The telco churn data; default: a small invented sample.", dir_okay=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many rows.", min=1)] = None,
    concurrency: Annotated[int, typer.Option(help="Calls at once, at most.", min=1, max=512)] = 256,
    end: Annotated[str, typer.Option(help="Common end date of all rows.")] = DEFAULT_END,
    name: Annotated[
        str, typer.Option("--run", help="Name of the run; the same file and end go on with their run.")
    ] = "",
) -> None:
    """Bill the subscribers of the telco churn data from their start to a common end, on a test clock.

    A run that was cut off goes on where it was. Exit status 1 when anything differs from tenure x MonthlyCharges.
    """
    try:
        plan = make_plan(read_rows(file or SAMPLE, limit), instant(end, "--end").seconds, name)
    except (FileError, PlanError, OSError) as error:
        raise typer.BadParameter(f"{error}.", param_hint="FILE") from None
    run(context, lambda session: _replay(session, plan, concurrency), patient=True)


async def _replay(session: Session, plan: Plan, concurrency: int) -> None:
    output = session.output
    output.note(
        f"Run {plan.name}: {len(plan.rows)} rows, {plan.invoices_expected} invoices to come, from "
        f"{format_seconds(plan.start)} to {format_seconds(plan.end)}."
    )
    started = time.monotonic()
    try:
        with output.progress() as bar:
            world = await replay(session.client, plan, concurrency, _Watcher(bar, len(plan.stops)))
    except WorldError as error:
        output.note(f"{error}.")
        raise typer.Exit(FAILED) from None
    summary = await summarize(session.client, plan, world)
    seconds = time.monotonic() - started
    if output.as_json:
        output.line_of_json(_as_json(summary, plan, seconds))
    else:
        _show(output, summary, seconds)
    if not summary.agrees:
        raise typer.Exit(FAILED)


class _Watcher:
    """Two bars: the stops of the whole run, and what is being done now."""

    def __init__(self, bar: Progress, stops: int) -> None:
        self._bar = bar
        self._stops: TaskID = bar.add_task("stops", total=stops)
        self._phase: TaskID = bar.add_task("", total=None, visible=False)

    def phase(self, text: str, total: int) -> None:
        """Something begins that has so many steps."""
        self._bar.reset(self._phase, total=total, description=text, visible=True)

    def step(self, done: int = 1) -> None:
        """So many more steps are done."""
        self._bar.advance(self._phase, done)

    def reached(self, at: int, stop: int, stops: int) -> None:
        """The clock stands at the stop of this number."""
        text = f"stop {stop} of {stops}, {format_seconds(at)[:10]}"
        self._bar.update(self._stops, completed=stop, description=text)


def _show(output: Output, summary: Summary, seconds: float) -> None:
    right = frozenset(_COLUMNS[1:])
    output.table(_COLUMNS, map(_cells, summary.by_contract), title="by contract", right=right)
    output.table(_COLUMNS, map(_cells, summary.by_payment_method), title="by payment method", right=right)
    output.table(_COLUMNS, [_cells(summary.total)], title="in all", right=right)
    for billed in summary.wrong[:_WRONG_SHOWN_MAX]:
        output.line(f"Row {billed.row.customer_id}: {billed.faults}.")
    if len(summary.wrong) > _WRONG_SHOWN_MAX:
        output.line(f"And {len(summary.wrong) - _WRONG_SHOWN_MAX} more rows.")
    output.line(
        f"{summary.without_month} rows without a month so far: their first period begins at the end date. "
        f"{summary.blank_totals} rows with a blank total."
    )
    output.line(
        f"Difference: {summary.total.difference_cents} cents; {len(summary.wrong)} rows differ; "
        f"{seconds:.1f} s in this run."
    )


def _cells(group: Group) -> list[str]:
    return [
        group.name,
        str(group.customers),
        str(group.subscriptions),
        str(group.canceled),
        str(group.invoices),
        format_amount(group.revenue_cents, CURRENCY),
        format_amount(group.expected_cents, CURRENCY),
        format_amount(group.difference_cents, CURRENCY),
    ]


def _as_json(summary: Summary, plan: Plan, seconds: float) -> dict[str, object]:
    def sums(group: Group) -> dict[str, object]:
        return {
            "name": group.name,
            "customers": group.customers,
            "subscriptions": group.subscriptions,
            "canceled": group.canceled,
            "invoices": group.invoices,
            "revenue_cents": str(group.revenue_cents),
            "expected_cents": str(group.expected_cents),
            "difference_cents": str(group.difference_cents),
        }

    return {
        "run": plan.name,
        "total": sums(summary.total),
        "by_contract": [sums(group) for group in summary.by_contract],
        "by_payment_method": [sums(group) for group in summary.by_payment_method],
        "rows_without_month": summary.without_month,
        "rows_with_blank_total": summary.blank_totals,
        "rows_that_differ": {billed.row.customer_id: billed.faults for billed in summary.wrong},
        "seconds": round(seconds, 1),
    }
