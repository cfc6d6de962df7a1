"""`billing subscriptions import`: many subscriptions from a file, as often as it takes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from billing.v1.errors_pb2 import ErrorReason
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRefusal,
    CreateSubscriptionRequest,
    CreateSubscriptionResult,
    SubscriptionToCreate,
)
from billing_client.command_line import rendering
from billing_client.command_line.output import Output
from billing_client.command_line.session import FAILED, Session, run

_KEY = "idempotency_key"
_REFUSALS_SHOWN_MAX = 20


class LineError(ValueError):
    """A line of the file is no request; the message names the line."""


def import_subscriptions(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(help="A request of CreateSubscription as JSON in each line.", exists=True, dir_okay=False),
    ],
) -> None:
    """Create the subscriptions of a file: a line of JSON each, with the fields of CreateSubscriptionRequest.

    A line may bring an "idempotency_key" of its own, else one is made of what it says. So an import that broke off,
    or whose refused lines were mended, is run again as a whole: nothing is created twice, for 24 hours at least. To
    bring over what is paid elsewhere, set billing_cycle_anchor to the next renewal and proration_behavior to
    PRORATION_BEHAVIOR_NONE. Exit status 1 when lines were refused.
    """
    try:
        wanted = list(read_lines(file))
    except (LineError, OSError) as error:
        raise typer.BadParameter(f"{error}.", param_hint="FILE") from None
    run(context, lambda session: _import(session, wanted), patient=True)


def read_lines(file: Path) -> Iterator[tuple[int, SubscriptionToCreate]]:
    """The requests of a file with the numbers of their lines; empty lines are passed over. Raises LineError."""
    seen: Counter[str] = Counter()
    with file.open(encoding="utf-8-sig") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _wanted(number, line, seen)
        except UnicodeDecodeError:
            raise LineError(f"{file} is not text in UTF-8") from None


def _wanted(number: int, line: str, seen: Counter[str]) -> SubscriptionToCreate:
    try:
        fields: Any = json.loads(line)
        if not isinstance(fields, dict):
            raise LineError(f"line {number} is no JSON object")
        key = fields.pop(_KEY, "")
        request = json_format.ParseDict(fields, CreateSubscriptionRequest())
        return SubscriptionToCreate(idempotency_key=key or _made_key(request, seen), request=request)
    except (json.JSONDecodeError, json_format.ParseError, TypeError) as error:
        raise LineError(f"line {number}: {error}") from None


def _made_key(request: CreateSubscriptionRequest, seen: Counter[str]) -> str:
    """A key made of what is asked for, and of how often it was asked for before in this file."""
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()[:40]
    seen[digest] += 1
    return f"import-{digest}-{seen[digest]}"


async def _import(session: Session, wanted: list[tuple[int, SubscriptionToCreate]]) -> None:
    output = session.output
    created, refused = 0, []
    with output.progress() as bar:
        task = bar.add_task("subscriptions", total=len(wanted))
        numbers = iter(wanted)
        async for one, result in session.client.create_subscriptions(entry for _, entry in wanted):
            number, _ = next(numbers)
            if result.HasField("refusal"):
                refused.append((number, result.refusal))
            else:
                created += 1
            if output.as_json:
                output.line_of_json(_as_json(number, one, result))
            bar.advance(task)
    if not output.as_json:
        _show(output, created, refused)
    if refused:
        raise typer.Exit(FAILED)


def _as_json(number: int, one: SubscriptionToCreate, result: CreateSubscriptionResult) -> dict[str, Any]:
    return {"line": number, _KEY: one.idempotency_key, **rendering.as_json(result)}


def _show(output: Output, created: int, refused: list[tuple[int, CreateSubscriptionRefusal]]) -> None:
    for number, refusal in refused[:_REFUSALS_SHOWN_MAX]:
        output.note(f"Line {number}: {_described(refusal)}")
    if len(refused) > _REFUSALS_SHOWN_MAX:
        output.note(f"… and {len(refused) - _REFUSALS_SHOWN_MAX} more; --json tells all.")
    output.line(f"Subscriptions there: {created:,}. Lines refused: {len(refused):,}.")


def _described(refusal: CreateSubscriptionRefusal) -> str:
    facts = [f"{violation.field}: {violation.description}" for violation in refusal.violations if violation.field]
    reason = ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_").lower()
    return f"{'; '.join(facts) or refusal.message} ({reason})"
