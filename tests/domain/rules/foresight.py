"""The property of forecasts, in a story: what a forecast tells of a subscription is what time then does to it.

Compared are events whole and e-mails whole; ids are replaced by the order in which they first appear, and what no
forecast can know (secrets, real time) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from billing_server.domain.book import Reach
from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.customer import Customer
from billing_server.domain.event import Event
from billing_server.domain.forecast import Assumption, Payments, forecast
from billing_server.domain.payment import PaymentAttempt
from tests.domain.rules.shop import at
from tests.domain.rules.steps import Step, accepted
from tests.domain.rules.story import Gateway, Story, part_of

_ID = re.compile(r"\b(in|il|ii|pi|si|cbtxn|sub|sub_sched|upcoming_sub|msg|bautorun)_(?:forecast)?[0-9]+\b")
_UNFORESEEN = frozenset({"client_secret", "message", "created_real", "due_at"})


def check_forecast(story: Story, index: int, until: int, payments: Payments, failures: int = 0) -> int:
    """Compare the forecast of a subscription with what happens until then. Returns how many events were compared.

    The story itself stays where it is. Charges of which the gateway has not told anything yet cannot be foreseen.
    """
    assert not story.book.in_flight
    subscription = story.subscription(index)
    assumption = Assumption(payments=payments, failures=failures)
    wanted = Reach(subscriptions=(subscription.id,), all_live=True, due_until=until)
    book = story.metered(part_of(story.book, wanted), story.now)
    told = forecast(book, subscription.id, until, assumption, now=story.now, wall_now=story.now, pages=story.pages)
    lived = story.fork()
    lived.in_small_steps = False
    lived.gateway = _Assumed(assumption)
    past, written = len(lived.events), len(lived.messages)
    lived.to(until)
    invoices = {item.id for item in lived.book.invoices.values() if item.subscription == subscription.id}
    happened = [event for event in lived.events[past:] if _concerns(event, {subscription.id, *invoices})]
    sent = [message for message in lived.messages[written:] if message.facts.subscription == subscription.id]
    _compare(told.events, happened)
    _compare(told.messages, sent)
    _compare([told.subscription], [lived.book.subscriptions[subscription.id]])
    return len(happened)


def foreseen(until: int | str, payments: Payments = "succeed", *, failures: int = 0, index: int = -1) -> Step:
    """A forecast made now tells exactly what happens until then."""

    def step(story: Story) -> None:
        assert check_forecast(accepted(story), index, at(until), payments, failures), "nothing happens until then"

    return step


class _Assumed(Gateway):
    """Charges turn out as the forecast assumes."""

    def __init__(self, assumption: Assumption) -> None:
        super().__init__()
        self._assumption = assumption

    def charge(self, attempt: PaymentAttempt) -> ChargeOutcome:
        self.asked.append(attempt.id)
        return self._assumption.outcome(len(self.asked) - 1)


def _concerns(event: Event, known: set[str]) -> bool:
    """Whether the event is about the customer, or names the subscription or one of its invoices."""
    return isinstance(event.object, Customer) or not known.isdisjoint(_names(msgspec.to_builtins(event)))


def _names(value: Any) -> set[str]:
    """All texts within a value, the keys of metadata aside."""
    if isinstance(value, dict):
        return set().union(*map(_names, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_names, value))
    return {value} if isinstance(value, str) else set()


def _compare(told: Sequence[msgspec.Struct], happened: Sequence[msgspec.Struct]) -> None:
    """Expect the same, whole and in the same order."""
    foretold, lived = _plain(told), _plain(happened)
    for index, (foreseen_one, seen) in enumerate(zip_longest(foretold, lived)):
        assert foreseen_one == seen, f"number {index}: told {told[index:][:1]}, happened {happened[index:][:1]}"


def _plain(items: Sequence[msgspec.Struct]) -> list[Any]:
    """Values without what cannot be foreseen; ids by the order in which they first appear."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"{found[1]}#{len(names)}")

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items() if key not in _UNFORESEEN}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        return _ID.sub(named, value) if isinstance(value, str) else value

    return [plain(msgspec.to_builtins(item)) for item in items]
