"""The words that rows are made of: what is done in a story, and what is then seen.

A row is a name and steps. A step does something (`subscribe`, `to`, `pay`, …) or looks (`sub`, `invoice`, `events`, …);
`given`, `when` and `then` only mark which is which. Instants are written as text: "2025-02-01 01:00".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.account import Settings
from billing_server.domain.event import Event
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    PauseBehavior,
    PauseCollection,
    PendingInvoiceItemInterval,
)
from tests.domain.rules.shop import OK, at
from tests.domain.rules.story import Story

Step = Callable[[Story], None]
Fields = dict[str, Any]
"""Fields of a command, by name."""

START = "2025-01-01"


def row(
    name: str,
    *steps: Step | Sequence[Step],
    card: str | None = OK,
    start: str = START,
    settings: Settings | None = None,
    **customer: Any,
) -> Any:
    """One row of a table: a customer with a default card (None: without one) and what happens to them."""
    flat: list[Step] = []
    for step in steps:
        flat += [step] if callable(step) else list(step)
    return pytest.param(Row(flat, card, at(start), settings, customer), id=name)


class Row:
    """The steps of one row, and how its story begins."""

    def __init__(
        self, steps: list[Step], card: str | None, start: int, settings: Settings | None, customer: dict[str, Any]
    ) -> None:
        self._steps = steps
        self._card = card
        self._start = start
        self._settings = settings
        self._customer = customer

    def play(self) -> None:
        """Tell the story from its beginning to its end."""
        story = Story(self._start, settings=self._settings, **self._customer)
        if self._card is not None:
            attach(self._card)(story)
        story.told()
        for step in self._steps:
            step(story)


# --- doing: subscriptions


def _items(*prices: str | tuple[str, int]) -> tuple[c.ItemParams, ...]:
    return tuple(
        c.ItemParams(price=price) if isinstance(price, str) else c.ItemParams(price=price[0], quantity=price[1])
        for price in prices
    )


_TIMES = frozenset(
    {
        "trial_end",
        "billing_cycle_anchor",
        "cancel_at",
        "backdate_start_date",
        "proration_date",
        "due_date",
        "period_start",
        "period_end",
    }
)


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a command: texts of instants become instants, short forms become structs."""
    said = {}
    for name, value in fields.items():
        if name in _TIMES and isinstance(value, str):
            value = at(value)
        elif name == "add_invoice_items":
            pairs = [(item, 1) if isinstance(item, str) else item for item in value]
            value = tuple(AddedInvoiceItem(price=price, quantity=quantity) for price, quantity in pairs)
        elif name == "billing_cycle_anchor_config":
            value = AnchorConfig(**value)
        elif name == "pending_invoice_item_interval" and value is not None:
            value = PendingInvoiceItemInterval(interval=value[0], interval_count=value[1])
        said[name] = value
    return said


def subscribe(*prices: str | tuple[str, int], answers: Sequence[str] = (), **fields: Any) -> Step:
    """Create a subscription of prices, or of (price, quantity); the gateway answers as said, else by the card."""

    def step(story: Story) -> None:
        said = _said(fields)
        if "default_payment_method" in said:
            said["default_payment_method"] = story.method(said["default_payment_method"]).id
        story.gateway.script += answers
        _try(story, c.CreateSubscription(customer=story.book.customer.id, items=_items(*prices), **said))

    return step


def update(*, index: int = -1, answers: Sequence[str] = (), **fields: Any) -> Step:
    """Update a subscription. `price` and `quantity` change its first item; `add` and `drop` add and delete items."""

    def step(story: Story) -> None:
        subscription = story.subscription(index)
        said = _said(fields)
        changes: list[c.ItemChange] = []
        changed = {name: said.pop(name) for name in ("price", "quantity") if name in said}
        if changed:
            changes.append(c.ItemChange(id=subscription.items[0].id, **changed))
        if "add" in said:
            price, quantity = said.pop("add")
            changes.append(c.ItemChange(price=price, quantity=quantity))
        if "drop" in said:
            changes.append(c.ItemChange(id=subscription.items[said.pop("drop")].id, deleted=True))
        if changes:
            said["items"] = tuple(changes)
        if isinstance(said.get("default_payment_method"), str):
            said["default_payment_method"] = story.method(said["default_payment_method"]).id
        story.gateway.script += answers
        _try(story, c.UpdateSubscription(id=subscription.id, **said))

    return step


def cancel(index: int = -1, **fields: Any) -> Step:
    """Cancel a subscription now."""
    return lambda story: _try(story, c.CancelSubscription(id=story.subscription(index).id, **fields))


def resume(**fields: Any) -> Step:
    """Resume a paused subscription."""
    return lambda story: _try(story, c.ResumeSubscription(id=story.subscription().id, **_said(fields)))


def pause(behavior: PauseBehavior, resumes_at: str | None = None) -> Step:
    """Pause the collection of a subscription."""
    until = None if resumes_at is None else at(resumes_at)
    return update(pause_collection=PauseCollection(behavior=behavior, resumes_at=until))


def unpause() -> Step:
    """Unset the pause of collection."""
    return update(pause_collection=None)


# --- doing: customers and cards


def attach(token: str, *, default: bool = True, type: str = "card") -> Step:  # noqa: A002  # the field's name
    """Attach a payment method, as the customer's default unless said otherwise."""
    return lambda story: _try(
        story,
        c.AttachPaymentMethod(customer=story.book.customer.id, token=token, set_default=default, type=type),  # type: ignore[arg-type]  # one of the types
    )


def detach(token: str) -> Step:
    """Detach a payment method."""
    return lambda story: _try(story, c.DetachPaymentMethod(id=story.method(token).id))


def change_customer(**fields: Any) -> Step:
    """Update the customer."""

    def step(story: Story) -> None:
        said = dict(fields)
        if isinstance(said.get("default_payment_method"), str):
            said["default_payment_method"] = story.method(said["default_payment_method"]).id
        _try(story, c.UpdateCustomer(id=story.book.customer.id, **said))

    return step


def delete_customer() -> Step:
    """Delete the customer."""
    return lambda story: _try(story, c.DeleteCustomer(id=story.book.customer.id))


def adjust_balance(amount: int, **fields: Any) -> Step:
    """Credit (below zero) or debit the customer."""
    return lambda story: _try(story, c.AdjustBalance(customer=story.book.customer.id, amount=amount, **fields))


def settings(**fields: Any) -> Step:
    """Change the account's settings from now on."""

    def step(story: Story) -> None:
        story.settings = msgspec.structs.replace(story.settings, **fields)

    return step


# --- doing: invoices, items, payments


def bill(**fields: Any) -> Step:
    """Create an invoice by hand; `of_subscription` makes it one of the newest subscription."""

    def step(story: Story) -> None:
        said = _said(fields)
        if said.pop("of_subscription", False):
            said["subscription"] = story.subscription().id
        _try(story, c.CreateInvoice(customer=story.book.customer.id, **said))

    return step


def item(amount: int | None = None, *, on: int | None = None, of_subscription: bool = False, **fields: Any) -> Step:
    """Create an invoice item: pending, or `on` an invoice by its place; bound to the newest subscription or not."""

    def step(story: Story) -> None:
        said = _said({"currency": "usd", **fields} if "price" not in fields else fields)
        if on is not None:
            said["invoice"] = story.invoice(on).id
        if of_subscription:
            said["subscription"] = story.subscription().id
        _try(story, c.CreateInvoiceItem(customer=story.book.customer.id, amount=amount, **said))

    return step


def change_item(index: int = -1, **fields: Any) -> Step:
    """Update an invoice item by its place."""
    return lambda story: _try(story, c.UpdateInvoiceItem(id=list(story.book.invoice_items)[index], **fields))


def delete_item(index: int = -1) -> Step:
    """Delete an invoice item by its place."""
    return lambda story: _try(story, c.DeleteInvoiceItem(id=list(story.book.invoice_items)[index]))


def change_invoice(index: int = -1, **fields: Any) -> Step:
    """Update an invoice by its place."""

    def step(story: Story) -> None:
        said = _said(fields)
        if isinstance(said.get("default_payment_method"), str):
            said["default_payment_method"] = story.method(said["default_payment_method"]).id
        _try(story, c.UpdateInvoice(id=story.invoice(index).id, **said))

    return step


def finalize(index: int = -1, **fields: Any) -> Step:
    """Finalize a draft."""
    return lambda story: _try(story, c.FinalizeInvoice(id=story.invoice(index).id, **fields))


def pay(index: int = -1, *, answers: Sequence[str] = (), **fields: Any) -> Step:
    """Pay an invoice by hand, with `payment_method` a token; or `paid_out_of_band`."""

    def step(story: Story) -> None:
        said = dict(fields)
        if isinstance(said.get("payment_method"), str):
            said["payment_method"] = story.method(said["payment_method"]).id
        story.gateway.script += answers
        _try(story, c.PayInvoice(id=story.invoice(index).id, **said))

    return step


def confirm(index: int = -1, *, answers: Sequence[str] = (), **fields: Any) -> Step:
    """Confirm the payment intent of an invoice."""

    def step(story: Story) -> None:
        said = dict(fields)
        if isinstance(said.get("payment_method"), str):
            said["payment_method"] = story.method(said["payment_method"]).id
        story.gateway.script += answers
        _try(story, c.ConfirmPaymentIntent(id=f"pi_{story.invoice(index).id[3:]}", **said))

    return step


def send(index: int = -1) -> Step:
    """Send an invoice."""
    return lambda story: _try(story, c.SendInvoice(id=story.invoice(index).id))


def void(index: int = -1) -> Step:
    """Void an invoice."""
    return lambda story: _try(story, c.VoidInvoice(id=story.invoice(index).id))


def give_up(index: int = -1) -> Step:
    """Mark an invoice uncollectible."""
    return lambda story: _try(story, c.MarkInvoiceUncollectible(id=story.invoice(index).id))


def delete_invoice(index: int = -1) -> Step:
    """Delete a draft."""
    return lambda story: _try(story, c.DeleteInvoice(id=story.invoice(index).id))


def credit(amount: int, index: int = -1, **fields: Any) -> Step:
    """Issue a credit note for an invoice."""
    return lambda story: _try(story, c.CreateCreditNote(invoice=story.invoice(index).id, amount=amount, **fields))


def void_credit(index: int = -1) -> Step:
    """Void a credit note."""
    return lambda story: _try(story, c.VoidCreditNote(id=list(story.book.credit_notes)[index]))


def refund(index: int = -1, *, fails: bool = False, **fields: Any) -> Step:
    """Refund the payment of an invoice."""

    def step(story: Story) -> None:
        story.gateway.refunds += ["failed"] if fails else []
        _try(story, c.CreateRefund(payment_intent=f"pi_{story.invoice(index).id[3:]}", **fields))

    return step


def _try(story: Story, command: c.Command) -> None:
    """Carry out a command; whether it should have been refused is for `refused` to say."""
    assert story.refusal is None, f"the command before was refused: {story.refusal}"
    story.attempt(command)


# --- time and the gateway


def to(moment: str) -> Step:
    """Let time pass up to and including a moment."""
    return lambda story: _accepted(story).to(at(moment))


def gateway(*answers: str) -> Step:
    """What the gateway says to the next charges, whatever the card."""
    return lambda story: story.gateway.script.extend(answers)


def resolve(answer: str) -> Step:
    """The gateway tells what became of the charge whose outcome was unknown."""
    return lambda story: _accepted(story).resolve(answer)


def mark() -> Step:
    """Forget the events so far: the next `events` begins here."""

    def step(story: Story) -> None:
        _accepted(story).told()

    return step


# --- seeing


def _accepted(story: Story) -> Story:
    assert story.refusal is None, f"refused: {story.refusal}"
    return story


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
    return lambda story: _check(_accepted(story).subscription(index), wanted)


def period(start: str, end: str, index: int = -1) -> Step:
    """The current period of a subscription."""
    return sub(index, current_period_start=start, current_period_end=end)


def invoice(index: int = -1, **wanted: Any) -> Step:
    """An invoice looks like this. `lines` is a list of amounts, or of (amount, start, end)."""

    def step(story: Story) -> None:
        fields = dict(wanted)
        found = _accepted(story).invoice(index)
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


def invoices(*statuses: str) -> Step:
    """The statuses of all invoices, in the order of their creation."""

    def step(story: Story) -> None:
        assert [item.status for item in _accepted(story).book.invoices.values()] == list(statuses)

    return step


def totals(*amounts: int) -> Step:
    """The totals of all invoices, in the order of their creation."""

    def step(story: Story) -> None:
        assert [item.total for item in _accepted(story).book.invoices.values()] == list(amounts)

    return step


def pending(*amounts: int) -> Step:
    """The amounts of the invoice items that wait for an invoice, oldest first."""

    def step(story: Story) -> None:
        waiting = [item.amount for item in _accepted(story).book.invoice_items.values() if item.invoice is None]
        assert waiting == list(amounts)

    return step


def customer(**wanted: Any) -> Step:
    """The customer looks like this."""
    return lambda story: _check(_accepted(story).book.customer, wanted)


def balance(amount: int, *types: str) -> Step:
    """The customer's balance, and the types of the transactions that made it when they are given."""

    def step(story: Story) -> None:
        assert _accepted(story).book.customer.balance == amount
        if types:
            assert [item.type for item in story.book.balance_transactions.values()] == list(types)

    return step


def charges(count: int) -> Step:
    """How often the gateway was asked to charge, in all."""

    def step(story: Story) -> None:
        assert len(_accepted(story).gateway.asked) == count

    return step


def refunds(*amounts: int) -> Step:
    """The refunds made, oldest first."""

    def step(story: Story) -> None:
        assert [item.amount for item in _accepted(story).book.refunds.values() if item.status == "succeeded"] == list(
            amounts
        )

    return step


def credit_note(**wanted: Any) -> Step:
    """The newest credit note looks like this."""
    return lambda story: _check(list(_accepted(story).book.credit_notes.values())[-1], wanted)


def result(**wanted: Any) -> Step:
    """What the last command gave back, after its charge was settled, looks like this."""
    return lambda story: _check(_accepted(story).result, wanted)


def events(text: str) -> Step:
    """Exactly these events since the last look, in this order, one a line: a type, then facts about its object.

    `status=open` is an attribute of the object as told, `was.status=draft` one of `previous_attributes`,
    `was=status,items` all keys of `previous_attributes`, and `@2025-02-01T01:00` when it happened.
    """
    wanted = [line.split() for line in text.strip().splitlines() if line.strip()]

    def step(story: Story) -> None:
        told = _accepted(story).told()
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
        told = [event.type for event in _accepted(story).told() if event.type.startswith(prefix)]
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
