"""Random stories: any commands in any order, any answers of the gateway, any passing of time.

A story checks itself after each step (see `story` and `audit`): sums hold, attempts are dense and one is unresolved
at most, terminal statuses are never left, events fold to the objects, refusals change nothing, a part of a book
decides as the whole does, and time passes in small steps as in one. Now and then a forecast is made, and what it tells
must be what would happen (see `foresight`). Nothing but a refusal may be raised.

BILLING_TEST_EXAMPLES and BILLING_TEST_STEPS make more and longer stories than the default run has time for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from billing_server.domain import commands as c
from billing_server.domain.account import OverduePolicy, Settings
from billing_server.domain.automation import (
    ACTION_TRIGGERS,
    CONDITION_TRIGGERS,
    TRIGGERS,
    Action,
    ActionType,
    Automation,
    AutomationRun,
    Condition,
    Trigger,
)
from billing_server.domain.calendar import DAY, HOUR
from billing_server.domain.customer import PaymentMethod
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.forecast import Payments
from billing_server.domain.invoice import Invoice, InvoiceItem
from billing_server.domain.payment import UNRESOLVED
from billing_server.domain.schedule import Phase, PhaseItem, ScheduleDefaults, SubscriptionSchedule
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    PauseCollection,
    PendingInvoiceItemInterval,
    Subscription,
)
from tests.domain.rules.foresight import check_forecast
from tests.domain.rules.shop import ASK, BAD, CALLS, GOLD, LOST, MUTE, OK, at
from tests.domain.rules.story import Story

EXAMPLES = int(os.environ.get("BILLING_TEST_EXAMPLES", "100"))
STEPS = int(os.environ.get("BILLING_TEST_STEPS", "40"))

PAYMENTS: tuple[Payments, ...] = ("succeed", "fail", "fail_then_succeed")

PLACE = st.integers(0, 5)
"""Which of several objects, counted around."""
MAYBE = st.booleans()
ANSWERS = st.lists(st.sampled_from(["paid", "declined", "lost card", "asks", "unknown"]), max_size=3)
CARDS = st.sampled_from([OK, OK, OK, BAD, BAD, LOST, ASK, MUTE])
RECURRING = st.sampled_from(
    [
        "M31",
        "M10",
        "M20",
        "W7",
        "D1",
        "Y120",
        "Q90",
        "M31_TRIAL14",
        "M_GRADUATED",
        "M_FREE",
        "M_CENTS",
        "M_METERED",
        "D_METERED",
        "Y_METERED",
    ]
)
QUANTITY = st.sampled_from([None, None, 1, 2, 5, 0])
AHEAD = st.sampled_from([12 * HOUR, DAY, 2 * DAY, 5 * DAY, 14 * DAY, 40 * DAY, 400 * DAY, 1])
"""Seconds from now to a moment that a command names."""
AMOUNT = st.sampled_from([900, 3100, 50, 49, 1, -1, -700, -5000])
PRORATION = st.sampled_from(["create_prorations", "always_invoice", "none"])
MISSING = st.sampled_from(["create_invoice", "cancel", "pause"])
EVERY = st.sampled_from(
    [PendingInvoiceItemInterval(interval="day", interval_count=2), PendingInvoiceItemInterval(interval="month")]
)
NOTHING: st.SearchStrategy[dict[str, Any]] = st.just({})


def either(*choices: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Nothing, or the fields of one of the choices."""
    return st.one_of(NOTHING, *(st.fixed_dictionaries(choice) for choice in choices))


def together(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of all the parts."""
    return st.tuples(*parts).map(lambda found: {name: value for part in found for name, value in part.items()})


CREATIONS = together(
    either(
        {"trial_period_days": st.sampled_from([1, 3, 14, 40])},
        {"trial_from_plan": st.just(True)},
        {"trial_period_days": st.just(5), "missing_payment_method": MISSING},
        {"ago": st.sampled_from([DAY, 70 * DAY])},
    ),
    either({"anchor": AHEAD}, {"day": st.integers(1, 31)}),
    either({"cancel_in": AHEAD}, {"cancel_at_period_end": st.just(True)}),
    either(
        {"payment_behavior": st.sampled_from(["default_incomplete", "error_if_incomplete"])},
        {"collection_method": st.just("send_invoice"), "days_until_due": st.sampled_from([0, 5, 30])},
        {"off_session": st.just(True), "save_default_payment_method": st.just("on_subscription")},
    ),
    either({"proration_behavior": PRORATION}),
    either({"add_invoice_items": st.just((AddedInvoiceItem(price="SETUP"),))}),
    either({"pending_invoice_item_interval": EVERY}, {"billing_mode": st.just("flexible")}),
)
"""Fields of a new subscription; `ago`, `anchor`, `day` and `cancel_in` are put into their own words later."""

CHANGES = together(
    either(
        {"quantity": st.integers(0, 5)},
        {"price": RECURRING, "quantity": QUANTITY},
        {"extra": RECURRING},
        {"dropped": st.just(True)},
        {"price": RECURRING, "trial_from_plan": st.just(True)},
    ),
    either(
        {"trial_in": AHEAD},
        {"trial_end_now": st.just(True)},
        {"billing_cycle_anchor_now": st.just(True)},
        {"cancel_in": AHEAD},
        {"cancel_at": st.none()},
        {"cancel_at_period_end": MAYBE},
    ),
    either(
        {"proration_behavior": PRORATION},
        {"proration_behavior": st.just("always_invoice"), "payment_behavior": st.just("pending_if_incomplete")},
        {"proration_behavior": st.just("always_invoice"), "payment_behavior": st.just("default_incomplete")},
        {"proration_behavior": st.just("always_invoice"), "payment_behavior": st.just("error_if_incomplete")},
    ),
    either({"add_invoice_items": st.just((AddedInvoiceItem(price="SETUP", quantity=2),))}),
    either(
        {"metadata": st.just({"key": "value"})},
        {"missing_payment_method": MISSING},
        {"pending_invoice_item_interval": st.none() | EVERY},
    ),
)
"""Fields of an update; `price` and `quantity` are its first item's, `extra` a further item, `dropped` the last."""
PHASES = st.lists(
    st.tuples(
        st.lists(st.tuples(RECURRING, QUANTITY), min_size=1, max_size=2),
        together(
            st.one_of(
                st.fixed_dictionaries({"iterations": st.integers(1, 4)}),
                st.fixed_dictionaries(
                    {
                        "duration": st.builds(
                            c.PhaseDuration,
                            interval=st.sampled_from(["day", "week", "month"]),
                            interval_count=st.integers(1, 6),
                        )
                    }
                ),
                st.fixed_dictionaries({"end_in": AHEAD}),
            ),
            either({"trial": st.just(True)}, {"trial_in": AHEAD}, {"billing_cycle_anchor": st.just("phase_start")}),
            either({"proration_behavior": PRORATION}),
            either(
                {"collection_method": st.just("send_invoice"), "days_until_due": st.sampled_from([0, 5, 30])},
                {"collection_method": st.just("charge_automatically")},
            ),
            either({"add_invoice_items": st.just((AddedInvoiceItem(price="SETUP"),))}),
            either({"metadata": st.just({"phase": "value"})}, {"description": st.just("words")}),
        ),
    ),
    min_size=1,
    max_size=3,
)
"""Items and other fields of the phases of a schedule; `end_in` and `trial_in` become moments later."""
DEFAULTS = st.sampled_from([ScheduleDefaults(), ScheduleDefaults(collection_method="send_invoice", days_until_due=7)])
SETTINGS = st.builds(
    Settings,
    retry_policy=st.sampled_from(
        [
            RetryPolicy(kind="custom", retry_days=(3, 5, 7)),
            RetryPolicy(kind="custom", retry_days=(1,)),
            RetryPolicy(kind="custom"),
            RetryPolicy(kind="smart", max_retries=4, window="one_week"),
        ]
    ),
    subscription_final_action=st.sampled_from(["cancel", "unpaid", "past_due"]),
    invoice_final_action=st.sampled_from(["leave_open", "uncollectible", "void"]),
    one_off_invoice_final_action=st.sampled_from(["leave_open", "uncollectible", "void"]),
    overdue_policy=st.builds(
        OverduePolicy,
        days_after_due=st.sampled_from([None, 1, 30]),
        subscription_action=st.sampled_from(["cancel", "unpaid", "past_due"]),
        invoice_action=st.sampled_from(["leave_open", "uncollectible", "void"]),
    ),
    finalization_delay_seconds=st.sampled_from([0, 3600]),
    upcoming_renewal_days=st.sampled_from([0, 3, 7]),
    statement_descriptor=st.sampled_from([None, "ACME"]),
)


DELAY = st.sampled_from([0, 0, HOUR, DAY, 7 * DAY])
POLICIES = st.sampled_from(
    [
        RetryPolicy(kind="custom", retry_days=(1, 2)),
        RetryPolicy(kind="custom"),
        RetryPolicy(kind="smart", max_retries=3, window="one_week"),
    ]
)
CONDITIONS = st.sampled_from(
    [
        Condition(type="invoice_amount", more_than=1000),
        Condition(type="subscription_interval", interval="monthly"),
        Condition(type="product", products=(GOLD,)),
        Condition(type="customer_metadata", key="segment", value="x"),
    ]
)


@functools.cache  # making strategies, not drawing from them, was what took time
def _action(trigger: Trigger, kind: ActionType) -> st.SearchStrategy[Action]:
    upcoming = trigger == "invoice_due_date_upcoming"
    before = st.sampled_from([DAY, 7 * DAY, 20 * DAY])
    return st.builds(
        Action,
        type=st.just(kind),
        delay_seconds=st.just(0) if upcoming else DELAY,
        before_due_seconds=before if upcoming else st.none(),
        retry_policy=POLICIES if kind == "start_retry_policy" else st.none(),
        recipients=st.just(("ops@acme.test",)) if kind == "send_team_email" else st.just(()),
        memo=st.just("Look") if kind == "send_team_email" else st.none(),
        price=RECURRING if kind == "create_subscription" else st.none(),
        amount=st.just(700) if kind == "credit_customer_balance" else st.none(),
        currency=st.just("usd") if kind == "credit_customer_balance" else st.none(),
    )


@functools.cache
def _automation(trigger: Trigger) -> st.SearchStrategy[Automation]:
    """An automation of this trigger, with conditions and actions that go with it."""
    kinds = [kind for kind, triggers in ACTION_TRIGGERS.items() if trigger in triggers]
    fitting = CONDITIONS.filter(lambda found: trigger in CONDITION_TRIGGERS[found.type])
    return st.builds(
        Automation,
        id=st.integers(1, 99).map(lambda number: f"bauto_{trigger}_{number:02d}"),
        created=st.just(0),
        name=st.just("any"),
        trigger=st.just(trigger),
        priority=st.integers(1, 3),
        conditions=st.lists(fitting, max_size=1).map(tuple),
        actions=st.lists(
            st.sampled_from(kinds).flatmap(lambda kind: _action(trigger, kind)), min_size=1, max_size=3
        ).map(tuple),
        enabled=st.sampled_from([True, True, False]),
        runs_canceled_version=st.sampled_from([0, 0, 0, 1]),
    )


AUTOMATIONS = st.lists(st.sampled_from(TRIGGERS).flatmap(_automation), max_size=4).map(tuple)


def _alive(item: Any) -> bool:
    """Whether much can still be done with an object."""
    if isinstance(item, Subscription):
        return not item.terminal
    if isinstance(item, Invoice):
        return item.status in ("draft", "open")
    if isinstance(item, PaymentMethod):
        return item.detached_at is None
    if isinstance(item, AutomationRun | SubscriptionSchedule):
        return not item.ended
    return not isinstance(item, InvoiceItem) or item.invoice is None


def _as_asked(phase: Phase) -> c.PhaseParams:
    """A phase as a caller asks for it again."""
    names = set(c.PhaseParams.__struct_fields__) & set(phase.__struct_fields__)
    return c.PhaseParams(**{name: getattr(phase, name) for name in names})


def has_status(*statuses: str) -> Callable[[RandomStory], bool]:
    """Only when there is a subscription in one of these statuses."""
    return lambda machine: any(item.status in statuses for item in machine.story.book.subscriptions.values())


def holds(name: str) -> Callable[[RandomStory], bool]:
    """Only when there is one of these in the book."""
    return lambda machine: bool(getattr(machine.story.book, name))


class RandomStory(RuleBasedStateMachine):
    """One customer, to whom anything may happen."""

    story: Story

    @initialize(
        card=st.none() | CARDS,
        settings=SETTINGS,
        price=RECURRING,
        fields=CREATIONS,
        automations=st.just(()) | AUTOMATIONS,
    )
    def begin(
        self,
        card: str | None,
        settings: Settings,
        price: str,
        fields: dict[str, Any],
        automations: tuple[Automation, ...],
    ) -> None:
        segment = {"metadata": {"segment": "x"}} if card == OK else {}
        self.story = Story(at("2025-01-31 10:00"), settings=settings, automations=automations, **segment)
        if card is not None:
            self.attach(card, True)
        self.subscribe([(price, None)], fields, [])

    # --- subscriptions

    @rule(items=st.lists(st.tuples(RECURRING, QUANTITY), min_size=1, max_size=2), fields=CREATIONS, answers=ANSWERS)
    def subscribe(self, items: list[tuple[str, int | None]], fields: dict[str, Any], answers: list[str]) -> None:
        now = self.story.now
        said = dict(fields)
        for name, field in (("anchor", "billing_cycle_anchor"), ("cancel_in", "cancel_at")):
            if name in said:
                said[field] = now + said.pop(name)
        if "day" in said:
            said["billing_cycle_anchor_config"] = AnchorConfig(day_of_month=said.pop("day"))
        if "ago" in said:
            said["backdate_start_date"] = now - said.pop("ago")
        self.story.gateway.script = answers
        self.story.attempt(
            c.CreateSubscription(
                customer=self.story.book.customer.id,
                items=tuple(c.ItemParams(price=price, quantity=quantity) for price, quantity in items),
                **said,
            )
        )

    @precondition(holds("subscriptions"))
    @rule(place=PLACE, fields=CHANGES, answers=ANSWERS)
    def update(self, place: int, fields: dict[str, Any], answers: list[str]) -> None:
        subscription = self._one("subscriptions", place)
        said = dict(fields)
        items = []
        changed = {name: said.pop(name) for name in ("price", "quantity") if name in said}
        if changed and subscription is not None:
            items.append(c.ItemChange(id=subscription.items[0].id, **changed))
        if "extra" in said:
            items.append(c.ItemChange(price=said.pop("extra")))
        if said.pop("dropped", False) and subscription is not None:
            items.append(c.ItemChange(id=subscription.items[-1].id, deleted=True))
        if items:
            said["items"] = tuple(items)
        for name, field in (("trial_in", "trial_end"), ("cancel_in", "cancel_at")):
            if name in said:
                said[field] = self.story.now + said.pop(name)
        self.story.gateway.script = answers
        self.story.attempt(c.UpdateSubscription(id=self._id(subscription, "sub"), **said))

    @precondition(has_status("active", "past_due", "unpaid", "trialing", "paused"))
    @rule(place=PLACE, to_send=MAYBE)
    def change_method(self, place: int, to_send: bool) -> None:
        method: Any = "send_invoice" if to_send else "charge_automatically"
        subscription = self._one("subscriptions", place)
        days: Any = {"days_until_due": 10} if to_send else {}
        self.story.attempt(c.UpdateSubscription(id=self._id(subscription, "sub"), collection_method=method, **days))

    @precondition(holds("subscriptions"))
    @rule(
        place=PLACE,
        behavior=st.sampled_from([None, "void", "keep_as_draft", "mark_uncollectible"]),
        until=st.none() | AHEAD,
    )
    def pause(self, place: int, behavior: Any, until: int | None) -> None:
        resumes_at = None if until is None else self.story.now + until
        pause = None if behavior is None else PauseCollection(behavior=behavior, resumes_at=resumes_at)
        subscription = self._one("subscriptions", place)
        self.story.attempt(c.UpdateSubscription(id=self._id(subscription, "sub"), pause_collection=pause))

    @precondition(holds("subscriptions"))
    @rule(place=PLACE, invoice_now=MAYBE, prorate=MAYBE)
    def cancel(self, place: int, invoice_now: bool, prorate: bool) -> None:
        subscription = self._one("subscriptions", place)
        self.story.attempt(
            c.CancelSubscription(id=self._id(subscription, "sub"), invoice_now=invoice_now, prorate=prorate)
        )

    @precondition(has_status("paused"))
    @rule(place=PLACE, anchor=st.sampled_from(["now", "unchanged"]), proration=PRORATION)
    def resume(self, place: int, anchor: Any, proration: Any) -> None:
        subscription = self._one("subscriptions", place)
        self.story.attempt(
            c.ResumeSubscription(
                id=self._id(subscription, "sub"), billing_cycle_anchor=anchor, proration_behavior=proration
            )
        )

    # --- schedules

    @rule(
        phases=PHASES,
        begins=st.none() | AHEAD,
        end_behavior=st.sampled_from(["release", "cancel"]),
        defaults=st.none() | DEFAULTS,
        answers=ANSWERS,
    )
    def plan(self, phases: list[Any], begins: int | None, end_behavior: Any, defaults: Any, answers: list[str]) -> None:
        self.story.gateway.script = answers
        self.story.attempt(
            c.CreateSubscriptionSchedule(
                customer=self.story.book.customer.id,
                start_date=None if begins is None else self.story.now + begins,
                phases=self._phases(phases),
                end_behavior=end_behavior,
                default_settings=defaults,
            )
        )

    @precondition(holds("subscriptions"))
    @rule(place=PLACE, end_behavior=st.sampled_from(["release", "cancel"]))
    def take_over(self, place: int, end_behavior: Any) -> None:
        subscription = self._id(self._one("subscriptions", place), "sub")
        self.story.attempt(c.CreateSubscriptionSchedule(from_subscription=subscription, end_behavior=end_behavior))

    @precondition(holds("schedules"))
    @rule(
        place=PLACE,
        kept=MAYBE,
        phases=st.none() | PHASES,
        fields=either(
            {"end_behavior": st.sampled_from(["release", "cancel"])},
            {"default_settings": DEFAULTS},
            {"proration_behavior": PRORATION},
        ),
    )
    def replan(self, place: int, kept: bool, phases: list[Any] | None, fields: dict[str, Any]) -> None:
        """Other phases, behind the current one as it is or in its place too."""
        schedule = self._one("schedules", place)
        said = dict(fields)
        if phases is not None:
            said["phases"] = self._phases(phases)
            if kept and schedule is not None and schedule.current_phase is not None:
                said["phases"] = (_as_asked(schedule.phases[schedule.position]), *said["phases"])
        self.story.attempt(c.UpdateSubscriptionSchedule(id=self._id(schedule, "sub_sched"), **said))

    @precondition(holds("schedules"))
    @rule(place=PLACE, released=MAYBE, either_way=MAYBE)
    def end_plan(self, place: int, released: bool, either_way: bool) -> None:
        identity = self._id(self._one("schedules", place), "sub_sched")
        if released:
            self.story.attempt(c.ReleaseSubscriptionSchedule(id=identity, preserve_cancel_date=either_way))
        else:
            self.story.attempt(c.CancelSubscriptionSchedule(id=identity, invoice_now=either_way, prorate=either_way))

    def _phases(self, phases: list[Any]) -> tuple[c.PhaseParams, ...]:
        made, begins = [], self.story.now
        for items, fields in phases:
            said = dict(fields)
            for name, field in (("end_in", "end_date"), ("trial_in", "trial_end")):
                if name in said:
                    begins = said[field] = begins + said.pop(name)
            wanted = tuple(PhaseItem(price=price, quantity=quantity) for price, quantity in items)
            made.append(c.PhaseParams(items=wanted, **said))
        return tuple(made)

    # --- usage and forecasts

    @rule(value=st.sampled_from([1, 7, 1000, -3]), ago=st.sampled_from([0, 1, HOUR, DAY, 20 * DAY]))
    def use(self, value: int, ago: int) -> None:
        self.story.use(value, self.story.now - ago, CALLS)

    @precondition(holds("subscriptions"))
    @rule(place=PLACE, days=st.sampled_from([1, 8, 45, 200]), failures=st.integers(0, 3))
    def foresee(self, place: int, days: int, failures: int) -> None:
        subscription = self._one("subscriptions", place)
        self._foresee(list(self.story.book.subscriptions).index(subscription.id), days, failures)

    def teardown(self) -> None:
        """However it has come so far, what lies ahead can be told."""
        if hasattr(self, "story"):
            for index, subscription in enumerate(self.story.book.subscriptions.values()):
                if not subscription.terminal:
                    self._foresee(index, 130, 2)

    def _foresee(self, index: int, days: int, failures: int) -> None:
        """What has not been answered yet cannot be foreseen; all else happens as it is told."""
        story = self.story
        if any(item.state in UNRESOLVED for item in story.book.attempts.values()):
            return
        for payments in PAYMENTS:
            check_forecast(story, index, story.now + days * DAY, payments, failures)

    # --- invoices

    @rule(amount=AMOUNT, auto_advance=MAYBE, of_subscription=MAYBE, include=MAYBE, to_send=MAYBE)
    def bill(self, amount: int, auto_advance: bool, of_subscription: bool, include: bool, to_send: bool) -> None:
        subscription = self._one("subscriptions", -1) if of_subscription else None
        customer = self.story.book.customer.id
        made = self.story.attempt(
            c.CreateInvoice(
                customer=customer,
                currency="usd",
                subscription=None if subscription is None else subscription.id,
                auto_advance=auto_advance,
                collection_method="send_invoice" if to_send else "charge_automatically",
                days_until_due=3 if to_send else None,
                pending_invoice_items_behavior="include" if include else "exclude",
            )
        )
        if made:
            invoice = self.story.invoice()
            self.story.attempt(
                c.CreateInvoiceItem(customer=customer, amount=amount, currency="usd", invoice=invoice.id)
            )

    @rule(amount=AMOUNT, of_subscription=MAYBE)
    def add_item(self, amount: int, of_subscription: bool) -> None:
        subscription = self._one("subscriptions", -1) if of_subscription else None
        self.story.attempt(
            c.CreateInvoiceItem(
                customer=self.story.book.customer.id,
                amount=amount,
                currency="usd",
                subscription=None if subscription is None else subscription.id,
            )
        )

    @precondition(holds("invoice_items"))
    @rule(place=PLACE, amount=st.none() | AMOUNT)
    def change_item(self, place: int, amount: int | None) -> None:
        identity = self._id(self._one("invoice_items", place), "ii")
        command: c.Command = c.DeleteInvoiceItem(id=identity)
        if amount is not None:
            command = c.UpdateInvoiceItem(id=identity, amount=amount)
        self.story.attempt(command)

    @precondition(holds("invoices"))
    @rule(
        place=PLACE,
        make=st.sampled_from(
            [c.FinalizeInvoice, c.PayInvoice, c.SendInvoice, c.VoidInvoice, c.MarkInvoiceUncollectible, c.DeleteInvoice]
        ),
        out_of_band=MAYBE,
        answers=ANSWERS,
    )
    def handle(self, place: int, make: Any, out_of_band: bool, answers: list[str]) -> None:
        identity = self._id(self._one("invoices", place), "in")
        more = {"paid_out_of_band": out_of_band} if make is c.PayInvoice else {}
        self.story.gateway.script = answers
        self.story.attempt(make(id=identity, **more))

    @precondition(holds("invoices"))
    @rule(place=PLACE, off_session=MAYBE, answers=ANSWERS)
    def confirm(self, place: int, off_session: bool, answers: list[str]) -> None:
        identity = self._id(self._one("invoices", place), "in")
        self.story.gateway.script = answers
        self.story.attempt(c.ConfirmPaymentIntent(id=f"pi_{identity[3:]}", off_session=off_session))

    @precondition(holds("invoices"))
    @rule(place=PLACE, on=MAYBE, due=st.none() | AHEAD)
    def change_invoice(self, place: int, on: bool, due: int | None) -> None:
        invoice = self._one("invoices", place)
        said: dict[str, Any] = {"auto_advance": on}
        if due is not None and invoice is not None and invoice.collection_method == "send_invoice":
            said = {"due_date": self.story.now + due}
        self.story.attempt(c.UpdateInvoice(id=self._id(invoice, "in"), **said))

    @precondition(holds("invoices"))
    @rule(place=PLACE, share=st.sampled_from([1, 2]), part=st.sampled_from(["refund", "credit", "out_of_band", ""]))
    def credit(self, place: int, share: int, part: str) -> None:
        invoice = self._one("invoices", place)
        total = 1000 if invoice is None else max(invoice.amount_remaining or invoice.amount_paid or invoice.total, 1)
        amount = -(-total // share)
        parts: dict[str, Any] = {f"{part}_amount": amount} if part else {}
        self.story.attempt(c.CreateCreditNote(invoice=self._id(invoice, "in"), amount=amount, **parts))

    @precondition(holds("credit_notes"))
    @rule(place=PLACE)
    def void_credit(self, place: int) -> None:
        self.story.attempt(c.VoidCreditNote(id=self._id(self._one("credit_notes", place), "cn")))

    @precondition(holds("invoices"))
    @rule(place=PLACE, amount=st.none() | st.integers(1, 3100), fails=MAYBE)
    def refund(self, place: int, amount: int | None, fails: bool) -> None:
        identity = self._id(self._one("invoices", place), "in")
        self.story.gateway.refunds = ["failed"] if fails else []
        self.story.attempt(c.CreateRefund(payment_intent=f"pi_{identity[3:]}", amount=amount))

    # --- the customer

    @rule(amount=AMOUNT)
    def adjust_balance(self, amount: int) -> None:
        self.story.attempt(c.AdjustBalance(customer=self.story.book.customer.id, amount=amount, currency="usd"))

    @rule(card=CARDS, default=MAYBE)
    def attach(self, card: str, default: bool) -> None:
        self.story.attempt(c.AttachPaymentMethod(customer=self.story.book.customer.id, token=card, set_default=default))

    @precondition(holds("payment_methods"))
    @rule(place=PLACE, of_subscription=MAYBE)
    def use_card(self, place: int, of_subscription: bool) -> None:
        method = self._id(self._one("payment_methods", place), "pm")
        command: c.Command = c.UpdateCustomer(id=self.story.book.customer.id, default_payment_method=method)
        if of_subscription:
            subscription = self._id(self._one("subscriptions", place), "sub")
            command = c.UpdateSubscription(id=subscription, default_payment_method=method)
        self.story.attempt(command)

    @precondition(holds("payment_methods"))
    @rule(place=PLACE)
    def detach(self, place: int) -> None:
        self.story.attempt(c.DetachPaymentMethod(id=self._id(self._one("payment_methods", place), "pm")))

    @rule(sure=st.integers(0, 999))
    def delete_customer(self, sure: int) -> None:
        if sure % 37 == 11:
            self.story.attempt(c.DeleteCustomer(id=self.story.book.customer.id))

    @rule(settings=SETTINGS)
    def change_settings(self, settings: Settings) -> None:
        self.story.settings = settings

    # --- automations

    @rule(automations=AUTOMATIONS)
    def automate(self, automations: tuple[Automation, ...]) -> None:
        self.story.automations = automations

    @precondition(holds("runs"))
    @rule(place=PLACE)
    def cancel_run(self, place: int) -> None:
        self.story.attempt(c.CancelAutomationRun(id=self._id(self._one("runs", place), "bautorun")))

    # --- time and the gateway

    @rule(seconds=st.sampled_from([1, HOUR, 23 * HOUR, DAY, 4 * DAY, 8 * DAY, 31 * DAY, 100 * DAY]), answers=ANSWERS)
    def wait(self, seconds: int, answers: list[str]) -> None:
        self.story.gateway.script = answers
        self.story.to(self.story.now + seconds)

    @rule(answers=ANSWERS)
    def wait_for_the_next_moment(self, answers: list[str]) -> None:
        wake = self.story.book.wake_at
        if wake is not None:
            self.story.gateway.script = answers
            self.story.to(max(wake, self.story.now))

    @precondition(lambda self: any(item.state in UNRESOLVED for item in self.story.book.attempts.values()))
    @rule(answer=st.sampled_from(["paid", "declined", "asks", "unknown", "not found"]), answers=ANSWERS)
    def resolve(self, answer: str, answers: list[str]) -> None:
        self.story.gateway.script = answers
        self.story.resolve(answer)

    # --- choosing

    def _one(self, name: str, place: int) -> Any:
        """An object of the book by its place, or None when there is none; mostly one that can still change."""
        held: list[Any] = list(getattr(self.story.book, name).values())
        live = [item for item in held if _alive(item)]
        if live and place < 5:
            held = live
        return held[place % len(held)] if held else None

    @staticmethod
    def _id(item: Any, prefix: str) -> str:
        return f"{prefix}_unknown" if item is None else str(item.id)


RandomStory.TestCase.settings = profile(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestRandomStories = RandomStory.TestCase
