"""`billing audit`: whether everything in the account adds up."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, TaskID

from billing_client.audit.inspection import Report, inspect
from billing_client.command_line.output import Output
from billing_client.command_line.session import FAILED, Session, run

_COLUMNS = ("check", "customer", "object", "what is off")


def audit(
    context: typer.Context,
    events: Annotated[
        bool, typer.Option("--events", help="Fold the whole log of events as well, which takes longer.")
    ] = False,
) -> None:
    """Check every sum and link of the account, and print what is off. Exit status 1 if anything is."""
    run(context, lambda session: _audit(session, events), patient=True)


async def _audit(session: Session, events: bool) -> None:
    output = session.output
    with output.progress(MofNCompleteColumn()) as bar:
        report = await inspect(session.client, _Watcher(bar), events=events)
    if output.as_json:
        output.line_of_json(_as_json(report))
    else:
        _show(output, report)
    if report.findings:
        raise typer.Exit(FAILED)


class _Watcher:
    """One bar for each phase."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def phase(self, text: str, total: int | None) -> None:
        """Something begins that has so many steps, or nobody knows how many."""
        if self._task is not None:
            done = self._bar.tasks[self._task].completed
            self._bar.update(self._task, total=done)
        self._task = self._bar.add_task(text, total=total)

    def step(self, done: int = 1) -> None:
        """So many more steps are done."""
        if self._task is not None:
            self._bar.advance(self._task, done)


def _show(output: Output, report: Report) -> None:
    if report.findings:
        rows = [[item.check, item.customer, item.object_id, item.message] for item in report.findings]
        output.table(_COLUMNS, rows)
    counted = ", ".join(f"{count} {_words(kind, count)}" for kind, count in report.counts.items() if count)
    log = "" if report.events is None else f", {report.events} events"
    number = len(report.findings) + report.unlisted
    result = "nothing is off" if not number else f"{number} things are off" if number > 1 else "1 thing is off"
    output.line(f"{counted or 'an empty account'}{log}; {report.checks} checks in {report.seconds:.1f} s: {result}.")


def _words(kind: str, count: int) -> str:
    """The plain name of a kind of objects: "invoice items"."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind).strip()
    return words if count == 1 else f"{words}s"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "findings": [
            {"check": item.check, "customer": item.customer, "object": item.object_id, "message": item.message}
            for item in report.findings
        ],
        "findings_not_listed": report.unlisted,
        "counts": report.counts,
        "events": report.events,
        "checks": report.checks,
        "seconds": round(report.seconds, 1),
    }
