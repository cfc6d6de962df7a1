"""The words of rows that look: what is then seen in a story, and which events have told of it."""

from __future__ import annotations

from typing import Any

from billing_server.domain.event import Event
from tests.domain.rules.shop import at
from tests.domain.rules.steps import Step, accepted
from tests.domain.rules.story import Story


def refused(reason: str, field: str | None = None) -> Step:
    """The command before was refused for this reason (and field)."""

    def step(story: Story) -> None:
        assert story.refusal is not None, "accepted, though it should have been refused"
        assert story.refusal.reason == reason, story.refusal
        if field is not None:
            assert story.refusal.field == field, story.refusal
        story.refusal = None

    return step


def _check(thing: Any, wanted: dict[str, Any]) -> None:
    for path, value in wanted.items():
        found: Any = thing
        for name in path.split("__"):
            found = found[int(name)] if name.isdigit() else getattr(found, name)
        if value == "set":
            assert found is not None, f"{path} of {thing}"
            continue
        if isinstance(value, str) and isinstance(found, int):
            value = at(value)
        assert found == value, f"{path} is {found!r}, not {value!r}, of {thing}"


def sub(index: int = -1, **wanted: Any) -> Step:
    """A subscription looks like this; `a__b` is the b of its a."""
    return lambda story: _check(accepted(story).subscription(index), wanted)


def plan(index: int = -1, **wanted: Any) -> Step:
    """A schedule looks like this; `a__b` is the b of its a."""
    return lambda story: _check(accepted(story).schedule(index), wanted)


def period(start: str, end: str, index: int = -1) -> Step:
    """The current period of a subscription."""
    return sub(index, current_period_start=start, current_period_end=end)


def invoice(index: int = -1, **wanted: Any) -> Step:
    """An invoice looks like this. `lines` is a list of amounts, or of (amount, start, end)."""

    def step(story: Story) -> None:
        fields = dict(wanted)
        found = accepted(story).invoice(index)
        if "lines" in fields:
            lines = fields.pop("lines")
            shown: list[Any] = [
                line.amount if isinstance(expected, int) else (line.amount, line.period_start, line.period_end)
                for line, expected in zip(found.lines, lines, strict=False)
            ]
            assert len(lines) == len(found.lines), found.lines
            assert shown == [
                expected if isinstance(expected, int) else (expected[0], at(expected[1]), at(expected[2]))
                for expected in lines
            ], found.lines
        if "overdue" in fields:
            assert found.overdue(story.now) == fields.pop("overdue")
        _check(found, fields)

    return step


def run(index: int = -1, **wanted: Any) -> Step:
    """An automation run looks like this; `a__b` is the b of its a."""
    return lambda story: _check(accepted(story).run(index), wanted)


def runs(*statuses: str) -> Step:
    """The statuses of all automation runs, in the order of their beginning."""

    def step(story: Story) -> None:
        assert [item.status for item in accepted(story).book.runs.values()] == list(statuses)

    return step


def ran(*results: str, index: int = -1) -> Step:
    """The steps of an automation run: an action, its result and when it ended, each as "cancel_subscription done"."""

    def step(story: Story) -> None:
        assert [f"{one.type} {one.result}" for one in accepted(story).run(index).steps] == list(results)

    return step


def mails(*wanted: str) -> Step:
    """The e-mails staged so far, in order: each as "kind to@whom"."""

    def step(story: Story) -> None:
        assert [f"{one.kind} {one.recipient}" for one in accepted(story).messages] == list(wanted)

    return step


def usage(*quantities: int | None, index: int = -1) -> Step:
    """The quantities of the lines of an invoice."""

    def step(story: Story) -> None:
        assert [line.quantity for line in accepted(story).invoice(index).lines] == list(quantities)

    return step


def invoices(*statuses: str) -> Step:
    """The statuses of all invoices, in the order of their creation."""

    def step(story: Story) -> None:
        assert [item.status for item in accepted(story).book.invoices.values()] == list(statuses)

    return step


def totals(*amounts: int) -> Step:
    """The totals of all invoices, in the order of their creation."""

    def step(story: Story) -> None:
        assert [item.total for item in accepted(story).book.invoices.values()] == list(amounts)

    return step


def pending(*amounts: int) -> Step:
    """The amounts of the invoice items that wait for an invoice, oldest first."""

    def step(story: Story) -> None:
        waiting = [item.amount for item in accepted(story).book.invoice_items.values() if item.invoice is None]
        assert waiting == list(amounts)

    return step


def customer(**wanted: Any) -> Step:
    """The customer looks like this."""
    return lambda story: _check(accepted(story).book.customer, wanted)


def balance(amount: int, *types: str) -> Step:
    """The customer's balance, and the types of the transactions that made it when they are given."""

    def step(story: Story) -> None:
        assert accepted(story).book.customer.balance == amount
        if types:
            assert [item.type for item in story.book.balance_transactions.values()] == list(types)

    return step


def charges(count: int) -> Step:
    """How often the gateway was asked to charge, in all."""

    def step(story: Story) -> None:
        assert len(accepted(story).gateway.asked) == count

    return step


def refunds(*amounts: int) -> Step:
    """The refunds made, oldest first."""

    def step(story: Story) -> None:
        assert [item.amount for item in accepted(story).book.refunds.values() if item.status == "succeeded"] == list(
            amounts
        )

    return step


def upcoming(index: int = -1, **wanted: Any) -> Step:
    """The preview of a subscription's next invoice looks like this; `lines` are amounts."""

    def step(story: Story) -> None:
        fields = dict(wanted)
        found = accepted(story).upcoming(index)
        if "lines" in fields:
            assert [line.amount for line in found.lines] == fields.pop("lines")
        _check(found, fields)

    return step


def credit_note(**wanted: Any) -> Step:
    """The newest credit note looks like this."""
    return lambda story: _check(list(accepted(story).book.credit_notes.values())[-1], wanted)


def result(**wanted: Any) -> Step:
    """What the last command gave back, after its charge was settled, looks like this."""
    return lambda story: _check(accepted(story).result, wanted)


def events(text: str) -> Step:
    """Exactly these events since the last look, in this order, one a line: a type, then facts about its object.

    `status=open` is an attribute of the object as told, `was.status=draft` one of `previous_attributes`,
    `was=status,items` all keys of `previous_attributes`, and `@2025-02-01T01:00` when it happened.
    """
    wanted = [line.split() for line in text.strip().splitlines() if line.strip()]

    def step(story: Story) -> None:
        told = accepted(story).told()
        shown = "\n".join(f"{event.type} {sorted(event.previous_attributes or ())}" for event in told)
        assert [event.type for event in told] == [words[0] for words in wanted], shown
        for event, words in zip(told, wanted, strict=True):
            for fact in words[1:]:
                _fact(event, fact)

    return step


def no_events() -> Step:
    """Nothing has happened since the last look."""
    return events("")


def events_of(prefix: str, text: str) -> Step:
    """As `events`, of the types that begin so; all others are passed over."""
    wanted = text.split()

    def step(story: Story) -> None:
        told = [event.type for event in accepted(story).told() if event.type.startswith(prefix)]
        assert told == wanted

    return step


def _fact(event: Event, fact: str) -> None:
    if fact.startswith("@"):
        assert event.created == at(fact[1:]), f"{event.type} at {event.created}, not {fact}"
        return
    path, _, value = fact.partition("=")
    previous = event.previous_attributes or {}
    if path == "was":
        assert sorted(previous) == sorted(value.split(",")), f"{event.type} was {sorted(previous)}"
        return
    found: Any = previous if path.startswith("was.") else event.object
    for name in path.removeprefix("was.").split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    if isinstance(found, int) and not isinstance(found, bool) and "-" in value[1:]:
        value = str(at(value))
    assert str(found) == value, f"{path} of {event.type} is {found!r}, not {value}"
