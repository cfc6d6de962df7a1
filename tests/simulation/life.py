"""One life: a customer's book in a simulated store, processes that die, a gateway, and a clock that jumps.

Everything is an entry of one queue, ordered by time. A process decides purely, commits, and only then asks the
gateway; it may die before the commit or after it. What it leaves behind is found by leases and wake-ups, as the
engine's timekeeper finds it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from billing_server.domain import commands as c
from billing_server.domain.account import Account
from billing_server.domain.advance import advance
from billing_server.domain.book import Book, Decision, Reach
from billing_server.domain.calendar import DAY
from billing_server.domain.decide import decide, decide_new_customer, reach
from billing_server.domain.errors import DomainError
from billing_server.domain.event import Cause
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.subscription import TERMINAL
from billing_server.domain.turn import Pages
from billing_server.domain.validation import validate
from tests.domain.rules.shop import CATALOG
from tests.domain.rules.story import Ids, merged, part_of
from tests.simulation.deeds import command_for, first_subscriptions
from tests.simulation.gateway import SimulatedGateway
from tests.simulation.plan import START, Deed, Plan
from tests.simulation.promises import Promises

LEASE_SECONDS: Final = 60
AFTERLIFE_SECONDS: Final = 40 * DAY
"""Time for what is still unknown at the end: the gateway is asked again daily, and then everything is known."""
KEPT_INVOICES: Final = 25
MORE_INVOICES: Final = 5
"""How many more there must be before old ones are looked for again."""

_CALLER: Final = Cause(kind="rpc")
_GATEWAY: Final = Cause(kind="gateway")

Act = Callable[[], None]


class _Moments(NamedTuple):
    """What a book says about time."""

    book: Book
    wake_at: int | None
    check_at: int | None
    in_flight: bool


class Life:
    """Runs a plan. `steps` counts what happened, by kind; `years` are subscription-years lived."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = START
        self.steps: Counter[str] = Counter()
        self.subscription_seconds = 0
        self._queue: list[tuple[int, int, Act]] = []
        self._order = itertools.count()
        self._ids = Ids()
        self._pages = Pages(Account(id="acct_1", created=0, name="Shop", settings=plan.settings()), CATALOG, 1)
        self._gateway = SimulatedGateway(plan, self._in)
        self._promises = Promises(self._gateway)
        self._answered: set[str] = set()
        self._engine_away = False
        self._woken_for: int | None = None
        self._checked_for: int | None = None
        self._known_moments: _Moments | None = None
        self._kept_invoices = KEPT_INVOICES
        self._past_invoices: list[Invoice] = []
        self._past_attempts: list[PaymentAttempt] = []
        self._past_refunds: list[Refund] = []
        self.book: Book

    @property
    def years(self) -> float:
        """How many years of subscriptions were lived."""
        return self.subscription_seconds / (365.25 * DAY)

    # --- the queue

    def _in(self, seconds: int, act: Act) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), act))

    def _at(self, moment: int, act: Act) -> None:
        heapq.heappush(self._queue, (max(moment, self.now), next(self._order), act))

    def run(self) -> None:
        """Live, then let what is still unknown be found out. Raises AssertionError when a promise is broken."""
        self._begin()
        for deed in self.plan.deeds:
            self._at(deed.at, lambda deed=deed: self._ask(deed, 0))  # type: ignore[misc]  # mypy knows no defaults here
        for outage in self.plan.outages:
            self._at(outage.since, lambda outage=outage: self._away(outage.what, True))  # type: ignore[misc]
            self._at(outage.until, lambda outage=outage: self._away(outage.what, False))  # type: ignore[misc]
        self._plan_ticks()
        until = self.plan.ends_at
        while self._queue and self._queue[0][0] <= until:
            moment, _, act = heapq.heappop(self._queue)
            self._pass(moment)
            act()
            self._plan_ticks()
        self._pass(until)
        self._find_out()
        self._promises.settled(
            [*self._past_invoices, *self.book.invoices.values()],
            [*self._past_attempts, *self.book.attempts.values()],
            [*self._past_refunds, *self.book.refunds.values()],
        )
        self.steps["checks"] = self._promises.checks

    def _pass(self, moment: int) -> None:
        live = sum(item.status not in TERMINAL for item in self.book.subscriptions.values())
        self.subscription_seconds += live * (moment - self.now)
        self.now = moment

    def _find_out(self) -> None:
        """Peace: nothing new is billed, no process dies, and the gateway answers."""
        self.plan = self.plan.without(faults=frozenset())
        self._gateway._plan = self.plan
        self._gateway.away = self._engine_away = False
        self._woken_for = self.now + 100 * AFTERLIFE_SECONDS
        self._queue = [entry for entry in self._queue if entry[2].__name__ != "_wake"]
        heapq.heapify(self._queue)
        until = self.now + AFTERLIFE_SECONDS
        while self._queue and self._queue[0][0] <= until:
            self.now, _, act = heapq.heappop(self._queue)
            act()
            self._plan_checks()

    def _away(self, what: str, away: bool) -> None:
        self.steps[what] += away
        if what == "engine away":
            self._engine_away = away
            if not away:
                self._woken_for = self._checked_for = None
        else:
            self._gateway.away = away

    # --- what a process does

    def _commit(self, decision: Decision, part: Book, what: str, key: str | None = None) -> bool:
        """Save, unless the process dies; whether it goes on afterwards."""
        self.steps[what] += 1
        self.steps["commits"] += 1
        fault = self.plan.throw(
            f"process:{what}:{self.now}:{self.steps['commits']}", "killed before commit", "killed after commit"
        )
        if fault is not None:
            self.steps[fault] += 1
        if fault == "killed before commit":
            return False
        before = self.book
        self.book = merged(before, part, decision.book)
        if key is not None and self.plan.plant != "forget-key":
            self._answered.add(key)
        events = decision.events
        if self.plan.plant == "forget-event" and len(events) > 2 and self.steps["commits"] % 50 == 0:
            events = events[:-1]
        self._promises.committed(before, self.book, events, self.now, key)
        self._forget_the_past()
        return fault is None

    def _follow_up(self, decision: Decision) -> None:
        """What has to be asked of the gateway once it is committed."""
        for attempt in decision.charges:
            self.steps["charges"] += 1
            self._gateway.charge(attempt, lambda answer, attempt=attempt: self._settle(attempt, answer))  # type: ignore[misc]
        for refund in decision.refunds:
            self.steps["refunds"] += 1
            self._gateway.refund(refund, lambda answer, refund=refund: self._settle_refund(refund, answer))  # type: ignore[misc]

    def _settle(self, attempt: PaymentAttempt, answer: c.ChargeOutcome) -> None:
        if self.plan.plant == "silence-is-failure" and answer.state == "unknown":
            answer = c.ChargeOutcome(state="failed")
        self._by_gateway(
            c.SettleAttempt(
                customer=attempt.customer,
                invoice=attempt.invoice,
                subscription=attempt.subscription,
                attempt=attempt.id,
                outcome=answer,
            )
        )

    def _settle_refund(self, refund: Refund, answer: c.RefundOutcome) -> None:
        command = c.SettleRefund(customer=refund.customer, invoice=refund.invoice, refund=refund.id, outcome=answer)
        self._by_gateway(command)

    def _by_gateway(self, command: c.Command) -> None:
        """An answer that comes while the engine is away is lost, and found out later."""
        if self._engine_away:
            return
        decision, part = self._decide(command, _GATEWAY)
        if self._commit(decision, part, "settle"):
            self._follow_up(decision)

    def _decide(self, command: c.Command, cause: Cause) -> tuple[Decision, Book]:
        wanted = reach(command)
        live = sum(item.status not in TERMINAL for item in self.book.subscriptions.values())
        whole = msgspec.structs.replace(self.book, live_subscriptions=live if wanted.count_subscriptions else 0)
        part = part_of(whole, wanted)
        decision = decide(
            part, command, now=self.now, wall_now=self.now, pages=self._pages, new_id=self._ids, cause=cause
        )
        return decision, part

    # --- time

    @property
    def _moments(self) -> _Moments:
        """When something is due in the book; looked up once for each state of it."""
        if self._known_moments is None or self._known_moments.book is not self.book:
            self._known_moments = _Moments(self.book, self.book.wake_at, self.book.check_at, self.book.in_flight)
        return self._known_moments

    def _plan_ticks(self) -> None:
        self._plan_checks()
        wake = self._moments.wake_at
        if wake is not None and wake != self._woken_for and not self._moments.in_flight and not self._engine_away:
            self._woken_for = wake
            self._at(max(wake, self.now) + self.plan.late(wake), self._wake)

    def _plan_checks(self) -> None:
        check = self._moments.check_at
        if check is not None and check != self._checked_for and not self._engine_away:
            self._checked_for = check
            self._at(max(check, self.now) + 1, self._check)

    def _wake(self) -> None:
        """What is due is done; a book whose charge is under way waits for it."""
        self._woken_for = None
        if self._engine_away or not self._due():
            return
        part = part_of(self.book, Reach(due_until=self.now))
        decision = advance(part, self.now, wall_now=self.now, pages=self._pages, new_id=self._ids)
        if self._commit(decision, part, "wake"):
            self._follow_up(decision)
            assert not self._due(), "something is still due"

    def _due(self) -> bool:
        """Whether time has something to do in the book now."""
        wake = self._moments.wake_at
        return wake is not None and wake <= self.now and not self._moments.in_flight

    def _check(self) -> None:
        """Open outcomes that must be looked at are leased, and asked for."""
        self._checked_for = None
        if self._engine_away:
            return
        until = self.now + LEASE_SECONDS
        attempts = {
            item.id: msgspec.structs.replace(item, check_at=until)
            for item in self.book.attempts.values()
            if item.check_at is not None and item.check_at <= self.now
        }
        refunds = {
            item.id: msgspec.structs.replace(item, check_at=until)
            for item in self.book.refunds.values()
            if item.check_at is not None and item.check_at <= self.now
        }
        if not attempts and not refunds:
            return
        leased = msgspec.structs.replace(
            self.book, attempts={**self.book.attempts, **attempts}, refunds={**self.book.refunds, **refunds}
        )
        if self._commit(Decision(book=leased), self.book, "check"):
            for attempt in attempts.values():
                self._gateway.get_charge(attempt.id, lambda answer, attempt=attempt: self._settle(attempt, answer))  # type: ignore[misc]
            for refund in refunds.values():
                self._gateway.get_refund(refund.id, lambda answer, refund=refund: self._settle_refund(refund, answer))  # type: ignore[misc]

    # --- the customer

    def _begin(self) -> None:
        common: dict[str, Any] = {"now": self.now, "wall_now": self.now, "pages": self._pages, "new_id": self._ids}
        decision = decide_new_customer(c.CreateCustomer(email="ada@example.com"), cause=_CALLER, **common)
        self.book = decision.book
        self._promises.committed(None, self.book, decision.events, self.now, "begin")
        card = c.AttachPaymentMethod(customer=self.book.customer.id, token="ok", set_default=True)
        for number, command in enumerate((card, *first_subscriptions(self.plan, self.book.customer.id))):
            self._carry_out(command, f"first {number}", 0)

    def _ask(self, deed: Deed, tries: int) -> None:
        """A caller asks; after an outage or a death they ask again with the same key, until they are answered."""
        key = f"deed {deed.number}"
        if self._engine_away:
            self._in(30, lambda: self._ask(deed, tries))
            return
        if key in self._answered:
            return
        dice = self.plan.dice(key)
        command = command_for(deed.what, self.book, self.now, dice)
        if command is not None:
            self._carry_out(command, key, tries)

    def _carry_out(self, command: c.Command, key: str, tries: int) -> None:
        if key in self._answered:
            return
        try:
            validate(command, self.now)
            decision, part = self._decide(command, _CALLER)
        except DomainError:
            self.steps["refused"] += 1
            return
        if self._commit(decision, part, type(command).__name__, key):
            self._follow_up(decision)
        else:
            self._in(1, lambda: self._carry_out(command, key, tries + 1))

    # --- the past

    def _forget_the_past(self) -> None:
        """Put away old invoices that are final, so that long lives stay quick; the end looks at their money again."""
        if len(self.book.invoices) <= self._kept_invoices:
            return
        named = {
            name
            for item in self.book.subscriptions.values()
            for name in (item.latest_invoice, item.first_invoice, item.status_invoice, item.resumption_invoice)
        }
        busy = {item.invoice for item in self.book.attempts.values() if item.check_at is not None}
        busy |= {item.invoice for item in self.book.refunds.values() if item.check_at is not None}
        past = {
            i
            for i, item in self.book.invoices.items()
            if item.status in ("paid", "void") and item.created < self.now - 90 * DAY and i not in named | busy
        }
        split: dict[str, dict[str, Any]] = {}
        for name in ("attempts", "refunds", "credit_notes", "invoice_items"):
            held: dict[str, Any] = dict(getattr(self.book, name))
            split[name] = {i: item for i, item in held.items() if item.invoice not in past}
        self._past_invoices += [item for i, item in self.book.invoices.items() if i in past]
        self._past_attempts += [item for item in self.book.attempts.values() if item.invoice in past]
        self._past_refunds += [item for item in self.book.refunds.values() if item.invoice in past]
        self._promises.forget(sorted(past))
        invoices = {i: item for i, item in self.book.invoices.items() if i not in past}
        self._kept_invoices = max(KEPT_INVOICES, len(invoices) + MORE_INVOICES)
        self.book = msgspec.structs.replace(self.book, invoices=invoices, **split)
