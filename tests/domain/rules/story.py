"""A story: one customer's book, a catalog, a scripted gateway and a clock, with nothing else around.

A story holds the whole book and hands `decide` and `advance` only the part that their reach asks for, as the
store does, and the whole of it as well: both must come to the same. Time passes as on a test clock: up to each
charge, which is settled at its own time. It also passes a second time in the smallest steps, which must again
come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import is_
from typing import Any

import msgspec

from billing_server.domain import automation as automations
from billing_server.domain import commands as c
from billing_server.domain import invoice as invoices
from billing_server.domain import schedule as schedules
from billing_server.domain import subscription as subscriptions
from billing_server.domain import tally, usage
from billing_server.domain.account import Account, Settings
from billing_server.domain.advance import advance
from billing_server.domain.automation import Automation, AutomationRun
from billing_server.domain.book import Book, Decision, Reach, UsageSpan
from billing_server.domain.customer import PaymentMethod
from billing_server.domain.decide import decide, decide_new_customer, reach
from billing_server.domain.errors import DomainError
from billing_server.domain.event import Cause, Event
from billing_server.domain.invoice import Invoice
from billing_server.domain.message import Message
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt, PaymentError, Refund
from billing_server.domain.preview import preview_renewal
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import TERMINAL, Subscription
from billing_server.domain.tally import Tally
from billing_server.domain.turn import Pages, Turn
from billing_server.domain.validation import validate
from tests.domain.rules.audit import Fold, audit, audit_change
from tests.domain.rules.shop import ASK, BAD, CATALOG, LOST, MUTE

_CALLER = Cause(kind="rpc")
_GATEWAY = Cause(kind="gateway")

_PARTS = (
    "payment_methods",
    "subscriptions",
    "schedules",
    "invoices",
    "invoice_items",
    "attempts",
    "refunds",
    "credit_notes",
    "balance_transactions",
    "runs",
)

Id = str


class Ids:
    """Ids that count upwards, so that a decision can be made twice with the same ones."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def __call__(self, prefix: str) -> str:
        self.last += 1
        return f"{prefix}_{self.last:06d}"


def declined(decline_code: str, code: str = "card_declined") -> c.ChargeOutcome:
    """What the gateway says of a charge that the bank refuses."""
    return c.ChargeOutcome(
        state="failed", error=PaymentError(code=code, decline_code=decline_code, message=decline_code)
    )


_BY_NAME: dict[str, c.ChargeOutcome] = {
    "paid": c.ChargeOutcome(state="succeeded", gateway_reference="ch"),
    "declined": declined("generic_decline"),
    "lost card": declined("lost_card"),
    "asks": c.ChargeOutcome(state="requires_action"),
    "asks in vain": c.ChargeOutcome(state="requires_action", error=declined("authentication_required").error),
    "unknown": c.ChargeOutcome(state="unknown"),
    "not found": c.ChargeOutcome(state="not_found"),
}
_BY_TOKEN = {BAD: "declined", LOST: "lost card", MUTE: "unknown"}


def outcome(name: str) -> c.ChargeOutcome:
    """The gateway's answer of this name: paid, declined, lost card, asks, asks in vain, unknown, not found."""
    return _BY_NAME[name]


class Gateway:
    """Answers by the card, or by the script while there is one. Remembers what it was asked."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.refunds: list[str] = []
        self.asked: list[str] = []

    def fork(self) -> Gateway:
        """Another one that will say the same."""
        other = Gateway()
        other.script, other.refunds, other.asked = list(self.script), list(self.refunds), list(self.asked)
        return other

    def charge(self, attempt: PaymentAttempt) -> c.ChargeOutcome:
        """What becomes of a charge."""
        self.asked.append(attempt.id)
        if self.script:
            return _BY_NAME[self.script.pop(0)]
        if attempt.token == ASK and not attempt.authenticated:
            return declined("authentication_required") if attempt.off_session else _BY_NAME["asks"]
        return _BY_NAME[_BY_TOKEN.get(attempt.token or "", "paid")]

    def refund(self) -> c.RefundOutcome:
        """What becomes of a refund."""
        if self.refunds and self.refunds.pop(0) == "failed":
            return c.RefundOutcome(state="failed", failure_message="the card is closed")
        return c.RefundOutcome(state="succeeded", gateway_reference="re")


def part_of(book: Book, wanted: Reach) -> Book:
    """The part of a book that the store would load for this reach."""
    notes = [book.credit_notes[i] for i in wanted.credit_notes if i in book.credit_notes]
    items = {
        i: item
        for i, item in book.invoice_items.items()
        if item.invoice is None
        or i in wanted.invoice_items
        or (wanted.items_of_invoices and item.invoice in wanted.invoices)
    }
    due = wanted.due_until
    named = {*wanted.invoices, *(note.invoice for note in notes), *(item.invoice for item in items.values())}
    live_runs = {i: run for i, run in book.runs.items() if not run.ended or i in wanted.runs}
    woken = [run for i, run in live_runs.items() if i in wanted.runs or _due(automations.wake_at(run), due)]
    named |= {run.invoice for run in woken}
    invoice_moments = {i: invoices.wake_at(item) for i, item in book.invoices.items()}
    subscription_moments = {i: subscriptions.wake_at(item) for i, item in book.subscriptions.items()}
    kept = {i: item for i, item in book.invoices.items() if i in named or _due(invoice_moments[i], due)}
    planned = {i: item for i, item in book.schedules.items() if not item.ended or i in wanted.schedules}
    named_subscriptions = {*wanted.subscriptions, *(item.subscription for item in kept.values())}
    named_subscriptions |= {run.subscription for run in woken}
    named_subscriptions |= {
        item.subscription for i, item in planned.items() if i in wanted.schedules or _due(schedules.wake_at(item), due)
    }
    held = {
        i: item
        for i, item in book.subscriptions.items()
        if i in named_subscriptions
        or _due(subscription_moments[i], due)
        or (wanted.all_live and item.status not in TERMINAL)
    }
    kept |= {i: item for i, item in book.invoices.items() if item.subscription in held and _unsettled(item)}
    if wanted.history:
        kept |= _history(book, held)
    finalized = {i for i, item in kept.items() if item.status != "draft"}
    rest = [moment for i, moment in subscription_moments.items() if i not in held]
    rest += [moment for i, moment in invoice_moments.items() if i not in kept]
    return msgspec.structs.replace(
        book,
        payment_methods={i: item for i, item in book.payment_methods.items() if item.detached_at is None},
        subscriptions=held,
        schedules=planned,
        invoices=kept,
        invoice_items=items,
        attempts=_attempts(book, wanted),
        refunds={
            i: item
            for i, item in book.refunds.items()
            if item.status in ("pending", "unknown") or item.invoice in wanted.attempts_of
        },
        credit_notes={i: item for i, item in book.credit_notes.items() if item.invoice in finalized},
        balance_transactions={},
        runs=live_runs,
        rest_wake_at=min((moment for moment in rest if moment is not None), default=None),
    )


def _due(moment: int | None, until: int | None) -> bool:
    return moment is not None and until is not None and moment <= until


def _unsettled(invoice: Invoice) -> bool:
    return invoice.status in ("draft", "open")


def _history(book: Book, held: dict[str, Subscription]) -> dict[str, Invoice]:
    newest: dict[str | None, Invoice] = {}
    for invoice in sorted(book.invoices.values(), key=lambda item: (item.created, item.id)):
        if invoice.subscription in held and invoice.status in ("paid", "uncollectible"):
            newest[invoice.subscription] = invoice
    return {invoice.id: invoice for invoice in newest.values()}


def _attempts(book: Book, wanted: Reach) -> dict[str, PaymentAttempt]:
    return {
        i: item for i, item in book.attempts.items() if item.state in UNRESOLVED or item.invoice in wanted.attempts_of
    }


class Story:
    """One customer, from its creation on. `refusal` is the error of the last command when it was refused."""

    def __init__(
        self,
        start: int,
        *,
        settings: Settings | None = None,
        automations: tuple[Automation, ...] = (),
        **customer: Any,
    ) -> None:
        self.now = start
        self.automations = automations
        self.ids = Ids()
        self.gateway = Gateway()
        self.settings = settings or Settings()
        self.events: list[Event] = []
        self._fold = Fold()
        self.messages: list[Message] = []
        self.refusal: DomainError | None = None
        self.result: msgspec.Struct | None = None
        self.mark = 0
        self.in_small_steps = True
        self.used: list[tuple[str, Tally]] = []
        command = c.CreateCustomer(**{"email": "jenny@example.com", **customer})
        validate(command, self.now)
        decision = decide_new_customer(command, cause=_CALLER, **self._common(self.ids))
        self.book = decision.book
        self.events += decision.events
        self.messages += decision.messages
        self._settle(decision.charges, decision.refunds)

    # --- reading

    @property
    def pages(self) -> Pages:
        """The account's pages as they now are."""
        account = Account(id="acct_1", created=0, name="Shop", settings=self.settings)
        return Pages(account, CATALOG, 1, self.automations)

    def subscription(self, index: int = -1) -> Subscription:
        """A subscription by its place in the order of creation; the newest when nothing is said."""
        return list(self.book.subscriptions.values())[index]

    def schedule(self, index: int = -1) -> SubscriptionSchedule:
        """A schedule by its place in the order of creation; the newest when nothing is said."""
        return list(self.book.schedules.values())[index]

    def run(self, index: int = -1) -> AutomationRun:
        """An automation run by its place in the order of its beginning; the newest when nothing is said."""
        return list(self.book.runs.values())[index]

    def invoice(self, index: int = -1) -> Invoice:
        """An invoice by its place in the order of creation; the newest when nothing is said."""
        return list(self.book.invoices.values())[index]

    def method(self, token: str) -> PaymentMethod:
        """The newest attached payment method with this token."""
        return [item for item in self.book.payment_methods.values() if item.token == token][-1]

    def told(self) -> list[Event]:
        """The events since the mark, which then moves up to now."""
        events = self.events[self.mark :]
        self.mark = len(self.events)
        return events

    def upcoming(self, index: int = -1) -> Invoice:
        """The preview of a subscription's next invoice; nothing of it is kept."""
        turn = Turn(self.book, cause=_CALLER, **self._common(Ids(self.ids.last)))
        return preview_renewal(turn, self.subscription(index))

    # --- acting

    def do(self, command: c.Command) -> msgspec.Struct | None:
        """Carry out a command as a caller would; a charge that it needs is made and settled. Raises refusals."""
        validate(command, self.now)
        decision = self._decide(command, _CALLER, self.now)
        self.result = decision.result
        self._settle(decision.charges, decision.refunds)
        self._audit()
        return self.result

    def attempt(self, command: c.Command) -> bool:
        """Carry out a command that may be refused; a refusal changes nothing. Whether it was accepted."""
        self.refusal = None
        before = self.book
        held = {name: dict(getattr(before, name)) for name in _PARTS}
        try:
            self.do(command)
        except DomainError as error:
            self.refusal = error
            assert self.book is before, "a refused command leaves the book as it was"
            assert held == {name: getattr(before, name) for name in _PARTS}, "not even its mappings change"
        return self.refusal is None

    def use(self, value: int, moment: int, meter: str) -> None:
        """Somebody reports usage, which happened at a moment."""
        self.used.append((meter, Tally(value, 1, value, moment, len(self.used))))

    def to(self, moment: int) -> None:
        """Let time pass up to and including a moment."""
        assert moment >= self.now, "time only moves forward"
        patient = self.fork() if self.in_small_steps else None
        self._pass(moment, moment)
        self.now = moment
        self._audit()
        if patient is not None:
            patient._pass(moment, None)
            _same(self, patient)

    def resolve(self, name: str, attempt_id: str | None = None) -> None:
        """The gateway tells now what became of a charge whose outcome was unknown."""
        open_ones = [item for item in self.book.attempts.values() if item.state in UNRESOLVED]
        found = self.book.attempts[attempt_id] if attempt_id else open_ones[0]
        self._settle_one(found, outcome(name), self.now)
        self._audit()

    def fork(self) -> Story:
        """Another story with the same past, and the same future if the same things are done."""
        other = object.__new__(Story)
        other.__dict__.update(self.__dict__)
        other.ids = Ids(self.ids.last)
        other.gateway = self.gateway.fork()
        other.events = list(self.events)
        other._fold = self._fold.copy()
        other.messages = list(self.messages)
        return other

    # --- how it works

    def _common(self, ids: Ids) -> dict[str, Any]:
        return {"now": self.now, "wall_now": self.now, "pages": self.pages, "new_id": ids}

    def _pass(self, moment: int, stride: int | None) -> None:
        """Advance until nothing is due; in strides of one wake-up each when none is given."""
        while (wake := self.book.wake_at) is not None and wake <= moment:
            assert not self.book.in_flight, "nothing is under way between the commands of a story"
            decision = self._advance(wake if stride is None else stride)
            self._settle(decision.charges, decision.refunds)

    def _advance(self, until: int) -> Decision:
        return self._twice(
            lambda book, ids: advance(book, until, wall_now=until, pages=self.pages, new_id=ids),
            part_of(self.book, Reach(due_until=until)),
            until,
        )

    def _decide(self, command: c.Command, cause: Cause, now: int) -> Decision:
        wanted = reach(command)
        live = sum(item.status not in TERMINAL for item in self.book.subscriptions.values())
        counted = live if wanted.count_subscriptions else 0
        whole = msgspec.structs.replace(self.book, live_subscriptions=counted)
        return self._twice(
            lambda book, ids: decide(
                book, command, now=now, wall_now=self.now, pages=self.pages, new_id=ids, cause=cause
            ),
            part_of(whole, wanted),
            now,
            whole,
        )

    def metered(self, book: Book, now: int) -> Book:
        """The book with the usage that the store would load for it."""
        known: dict[UsageSpan, int] = {}
        for span in usage.spans(book, CATALOG, now):
            within = [one for meter, one in self.used if meter == span.meter and span.start <= one.last_at < span.end]
            known[span] = tally.usage_by(CATALOG.meters[span.meter].formula, tally.total(within))
        return msgspec.structs.replace(book, usage=known)

    def _twice(
        self, make: Callable[[Book, Ids], Decision], part: Book, now: int, whole: Book | None = None
    ) -> Decision:
        """Decide on the part and on the whole, expect the same, and keep it."""
        part, whole = self.metered(part, now), self.metered(self.book if whole is None else whole, now)
        ids = Ids(self.ids.last)
        try:
            expected: Decision | DomainError = make(whole, ids)
        except DomainError as error:
            expected = error
        try:
            decision = make(part, self.ids)
        except DomainError as error:
            assert isinstance(expected, DomainError), f"only refused when loaded in part: {error}"
            assert str(error) == str(expected)
            raise
        assert isinstance(expected, Decision), f"only refused when loaded whole: {expected}"
        assert decision.events == expected.events, f"the same events, however much is loaded: {expected.events}"
        assert decision.charges == expected.charges
        assert decision.messages == expected.messages
        after = merged(self.book, part, decision.book)
        for name in _PARTS:
            assert dict(getattr(after, name)) == dict(getattr(expected.book, name)), f"the same {name}"
        audit_change(self.book, after)
        self.book = after
        self.events += decision.events
        self.messages += decision.messages
        return decision

    def _settle(self, charges: Iterable[PaymentAttempt], refunds: Iterable[Refund]) -> None:
        for attempt in charges:
            # A charge that is awaited is settled at its own time; one that is made later after all, at its end.
            now = attempt.due_at if attempt.checks == 0 else max(attempt.due_at, self.now)
            self._settle_one(attempt, self.gateway.charge(attempt), now)
        for refund in refunds:
            self._refund(refund)

    def _settle_one(self, attempt: PaymentAttempt, answer: c.ChargeOutcome, now: int) -> None:
        command = c.SettleAttempt(
            customer=attempt.customer,
            invoice=attempt.invoice,
            subscription=attempt.subscription,
            attempt=attempt.id,
            outcome=answer,
        )
        decision = self._decide(command, _GATEWAY, now)
        self.result = decision.result or self.result
        self._settle(decision.charges, decision.refunds)

    def _refund(self, refund: Refund) -> None:
        command = c.SettleRefund(
            customer=refund.customer, invoice=refund.invoice, refund=refund.id, outcome=self.gateway.refund()
        )
        decision = self._decide(command, _GATEWAY, self.now)
        self.result = decision.result or self.result
        self._settle(decision.charges, decision.refunds)

    def _audit(self) -> None:
        audit(self.book)
        self._fold.take(self.events[self._fold.taken :])
        self._fold.compare(self.book)


def merged(whole: Book, before: Book, after: Book) -> Book:
    """The whole book with what a decision on a part of it has changed; what it has not remains the same mapping."""
    parts: dict[str, Any] = {}
    for name in _PARTS:
        old, new = getattr(before, name), getattr(after, name)
        if len(old) == len(new) and all(map(is_, old.values(), new.values())):
            continue
        held = getattr(whole, name)
        if old.keys() - new.keys():
            held = {i: item for i, item in held.items() if i in new or i not in old}
        parts[name] = {**held, **new}
    return msgspec.structs.replace(whole, customer=after.customer, **parts)


def _same(one: Story, other: Story) -> None:
    """Two stories that have come to the same, but for real time, which passes by itself."""
    told = [(event.type, event.created, event.object) for event in one.events]
    assert told == [(event.type, event.created, event.object) for event in other.events]
    written = [(message.id, message.created, message.facts) for message in one.messages]
    assert written == [(message.id, message.created, message.facts) for message in other.messages]
    for name in _PARTS:
        mine, theirs = _timeless(getattr(one.book, name)), _timeless(getattr(other.book, name))
        assert mine == theirs, f"the same {name} in small steps"


def _timeless(items: Mapping[str, Any]) -> dict[str, Any]:
    real = ("created_real", "check_at")
    return {
        identity: msgspec.structs.replace(item, **{name: None for name in real if name in item.__struct_fields__})
        for identity, item in items.items()
    }
