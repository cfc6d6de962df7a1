"""The words that rows are made of: what is done in a story, and what is then seen.

A row is a name and steps. A step does something (`subscribe`, `to`, `pay`, …) or looks (`sub`, `invoice`, `events`, …);
`given`, `when` and `then` only mark which is which. Instants are written as text: "2025-02-01 01:00".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.account import Settings
from billing_server.domain.automation import (
    Action,
    ActionType,
    Automation,
    Condition,
    ConditionType,
    Trigger,
)
from billing_server.domain.calendar import DAY
from billing_server.domain.schedule import PhaseItem
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    PauseBehavior,
    PauseCollection,
    PendingInvoiceItemInterval,
)
from tests.domain.rules.shop import CALLS, OK, at
from tests.domain.rules.story import Story

Step = Callable[[Story], None]
Steps: TypeAlias = "Step | Sequence[Steps]"
"""Steps, some of them together."""
Fields = dict[str, Any]
"""Fields of a command, by name."""

START = "2025-01-01"


def row(
    name: str,
    *steps: Steps,
    card: str | None = OK,
    start: str | int = START,
    settings: Settings | None = None,
    automations: Sequence[Automation] = (),
    **customer: Any,
) -> Any:
    """One row of a table: a customer with a default card (None: without one) and what happens to them."""
    begin = {"settings": settings, "automations": tuple(automations), **customer}
    return pytest.param(Row(list(_flat(steps)), card, at(start), begin), id=name)


def _flat(steps: Iterable[Steps]) -> Iterator[Step]:
    for step in steps:
        if callable(step):
            yield step
        else:
            yield from _flat(step)


class Row:
    """The steps of one row, and how its story begins."""

    def __init__(self, steps: list[Step], card: str | None, start: int, begin: dict[str, Any]) -> None:
        self._steps = steps
        self._card = card
        self._start = start
        self._begin = begin

    def play(self) -> None:
        """Tell the story from its beginning to its end."""
        story = Story(self._start, **self._begin)
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
        "start_date",
        "end_date",
        "period_start",
        "period_end",
    }
)


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a command: texts of instants become instants, short forms become structs."""
    said = {}
    for name, value in fields.items():
        if name in _TIMES and isinstance(value, str) and value[0].isdigit():
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


def one_off(amount: int, **fields: Any) -> tuple[Step, Step]:
    """Create an invoice by hand, in dollars, with one item."""
    return bill(currency="usd", **fields), item(amount, on=-1)


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


# --- doing: schedules


def phase(*prices: str | tuple[str, int], **fields: Any) -> c.PhaseParams:
    """A phase of prices, or of (price, quantity); a billing period long unless it says otherwise."""
    said = _said(fields)
    if not {"end_date", "iterations", "duration"} & said.keys():
        said["iterations"] = 1
    if "duration" in said:
        said["duration"] = c.PhaseDuration(interval=said["duration"][0], interval_count=said["duration"][1])
    items = tuple(PhaseItem(price=item.price, quantity=item.quantity) for item in _items(*prices))
    return c.PhaseParams(items=items, **said)


def schedule(*phases: c.PhaseParams, **fields: Any) -> Step:
    """Create a schedule of phases."""

    def step(story: Story) -> None:
        said = _said(fields)
        _try(story, c.CreateSubscriptionSchedule(customer=story.book.customer.id, phases=phases, **said))

    return step


def take_over(index: int = -1, **fields: Any) -> Step:
    """Create a schedule from a subscription."""
    return lambda story: _try(
        story, c.CreateSubscriptionSchedule(from_subscription=story.subscription(index).id, **fields)
    )


def change_schedule(*phases: c.PhaseParams, **fields: Any) -> Step:
    """Update the newest schedule; phases are only named when there are some."""
    said = fields | ({"phases": phases} if phases else {})
    return lambda story: _try(story, c.UpdateSubscriptionSchedule(id=story.schedule().id, **said))


def cancel_schedule(**fields: Any) -> Step:
    """Cancel the newest schedule, and its subscription with it."""
    return lambda story: _try(story, c.CancelSubscriptionSchedule(id=story.schedule().id, **fields))


def release(**fields: Any) -> Step:
    """Release the newest schedule."""
    return lambda story: _try(story, c.ReleaseSubscriptionSchedule(id=story.schedule().id, **fields))


# --- doing: automations


def automation(trigger: Trigger, *actions: Action, when: Sequence[Condition] = (), **fields: Any) -> Automation:
    """An automation; its id tells its trigger and priority."""
    priority = fields.pop("priority", 1)
    return Automation(
        id=fields.pop("id", f"bauto_{trigger}_{priority}"),
        created=0,
        name=trigger,
        trigger=trigger,
        priority=priority,
        conditions=tuple(when),
        actions=actions,
        **fields,
    )


def action(type_: ActionType, *, after: int = 0, **fields: Any) -> Action:
    """An action; `after` so many days, or `before` so many days ahead of the due date."""
    before = fields.pop("before", None)
    days = None if before is None else before * DAY
    return Action(type=type_, delay_seconds=after * DAY, before_due_seconds=days, **fields)


def condition(type_: ConditionType, **fields: Any) -> Condition:
    """A condition."""
    return Condition(type=type_, **fields)


def automate(*automations: Automation) -> Step:
    """Have these automations from now on, and no others."""

    def step(story: Story) -> None:
        story.automations = automations

    return step


def cancel_run(index: int = -1) -> Step:
    """Cancel an automation run by hand."""
    return lambda story: _try(story, c.CancelAutomationRun(id=story.run(index).id))


# --- time, usage and the gateway


def use(value: int = 1, when: str | None = None, *, meter: str = CALLS) -> Step:
    """Somebody reports usage that happens now, or happened at another time."""
    return lambda story: accepted(story).use(value, story.now if when is None else at(when), meter)


def to(moment: str) -> Step:
    """Let time pass up to and including a moment."""
    return lambda story: accepted(story).to(at(moment))


def gateway(*answers: str) -> Step:
    """What the gateway says to the next charges, whatever the card."""
    return lambda story: story.gateway.script.extend(answers)


def resolve(answer: str) -> Step:
    """The gateway tells what became of the charge whose outcome was unknown."""
    return lambda story: accepted(story).resolve(answer)


def repeat(answer: str) -> Step:
    """The gateway tells once more what became of the newest charge."""

    def step(story: Story) -> None:
        accepted(story).resolve(answer, list(story.book.attempts)[-1])

    return step


def mark() -> Step:
    """Forget the events so far: the next `events` begins here."""

    def step(story: Story) -> None:
        accepted(story).told()

    return step


def accepted(story: Story) -> Story:
    """The story, whose last command was not refused."""
    assert story.refusal is None, f"refused: {story.refusal}"
    return story
