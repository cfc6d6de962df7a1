"""Backtests: the recorded events against a proposed automation, page by page, with nothing written.

Of each event that may be a moment of the trigger, what else must be known is looked up by index: what became of the
invoice, and how its customer and subscription were then. So memory is bounded, however long the log.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from billing_server.domain.account import Settings
from billing_server.domain.automation import AutomationRun, Trigger
from billing_server.domain.automation_matching import Subject, evaluate, in_default_currency
from billing_server.domain.automation_pages import check_definition
from billing_server.domain.backtest import TRIGGER_EVENTS, Moment, Proposal, Replay, Seen, moments, replay
from billing_server.domain.calendar import LAST_INSTANT
from billing_server.domain.catalog import Catalog
from billing_server.domain.customer import Customer
from billing_server.domain.dry_run import INVOICE_TRIGGERS
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.invoice import Invoice, InvoiceStatus
from billing_server.domain.money import round_half_away_from_zero
from billing_server.domain.subscription import Subscription, SubscriptionStatus
from billing_server.domain.test_clock import TestClock
from billing_server.engine.pages import pages_of
from billing_server.store.automation import AutomationRunFilter
from billing_server.store.event import EventFilter, StoredEvent
from billing_server.store.store import Store
from billing_server.store.view import View
from billing_server.wire.recalling import recall_object

EVENTS_AT_ONCE: Final = 200
HISTORY_MAX: Final = 500
"""Events of one invoice that are looked at for what became of it."""
_RUNS_MAX: Final = 50

_CUSTOMER_EVENTS: Final = ("customer.created", "customer.updated", "customer.deleted")
_SUBSCRIPTION_EVENTS: Final = ("customer.subscription.*",)
_INVOICE_EVENTS: Final = (
    "invoice.finalized",
    "invoice.updated",
    "invoice.payment_failed",
    "invoice.paid",
    "invoice.voided",
    "invoice.marked_uncollectible",
)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Which moments count: from `start`, inclusive, to `end`, exclusive, in engine or test-clock time."""

    start: int | None = None
    end: int | None = None
    customer: str | None = None

    def holds(self, moment: int) -> bool:
        """Whether a moment lies within."""
        return (self.start is None or moment >= self.start) and (self.end is None or moment < self.end)


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """What really happened at a moment and after it. Statuses are those of now; None when the object is gone."""

    run: AutomationRun | None
    failures_at: tuple[int, ...]
    paid_at: int | None
    invoice_status: InvoiceStatus | None
    subscription_status: SubscriptionStatus | None


class WouldRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that would have been started. `value` is the amount in minor units of the default currency."""

    at: int
    position: int
    customer: str
    invoice: str | None
    subscription: str | None
    amount: int | None
    currency: str | None
    value: int | None
    replay: Replay
    happened: Happened


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what came of it, so far."""

    first_position: int
    scanned_to: int
    head: int
    events: int = 0
    moments: int = 0
    runs: int = 0
    value: int = 0
    without_rate: int = 0
    paid: int = 0
    ran_same: int = 0
    ran_other: int = 0
    by_settings: int = 0
    customers_of_now: int = 0
    unknown: int = 0


class Progress(msgspec.Struct, frozen=True):
    """Runs that were found since the last time, and the sums so far; `done` with the last ones."""

    runs: Sequence[WouldRun]
    summary: Summary
    done: bool


async def backtest(
    store: Store, account_id: str, proposal: Proposal, span: Span, automation: str | None = None
) -> AsyncIterator[Progress]:
    """Try a proposal on all that was recorded up to now. `automation` is the one whose definition it is, if any.

    Raises:
        ResourceMissing: there is no such customer, or no product or price that a new definition names.
        InvalidArgument: a new definition could not be created.
    """
    async with store.view(account_id) as view:
        pages = pages_of(await view.pages())
        oldest, head = await view.oldest(), await view.head()
        if span.customer is not None:
            await view.get(Customer, span.customer, "customer", field="customer")
    if automation is None:
        check_definition(pages, proposal.conditions, proposal.actions)
    trial = _Trial(proposal, span, pages.settings, pages.catalog, automation, (oldest or 0, head))
    while trial.scanned_to < head:
        async with store.view(account_id) as view:
            page = await view.read_events(after=trial.scanned_to, limit=EVENTS_AT_ONCE, wanted=trial.wanted)
            runs = [run for event in page.events if event.position <= head for run in await trial.consider(view, event)]
        trial.scanned_to = min(page.scanned_to, head)
        yield Progress(runs, trial.summary, done=False)
    yield Progress((), trial.summary, done=True)


class _Trial:
    """One backtest under way."""

    def __init__(
        self,
        proposal: Proposal,
        span: Span,
        settings: Settings,
        catalog: Catalog,
        automation: str | None,
        positions: tuple[int, int],
    ) -> None:
        self._proposal = proposal
        self._span = span
        self._settings = settings
        self._catalog = catalog
        self._automation = automation
        self._now = int(time.time())
        self._clocks: dict[str, int | None] = {}
        first, head = positions
        self.summary = Summary(first_position=first, scanned_to=max(0, first - 1), head=head)
        # An invoice becomes overdue long after the event that is searched for.
        start = None if proposal.trigger == "invoice_overdue" else span.start
        self.wanted = EventFilter(
            types=(TRIGGER_EVENTS[proposal.trigger],),
            customer=span.customer,
            created_from=start,
            created_before=span.end,
        )

    @property
    def scanned_to(self) -> int:
        """The last position that was looked at."""
        return self.summary.scanned_to

    @scanned_to.setter
    def scanned_to(self, position: int) -> None:
        self.summary = msgspec.structs.replace(self.summary, scanned_to=position)

    def _count(self, **added: int) -> None:
        sums = {name: getattr(self.summary, name) + number for name, number in added.items()}
        self.summary = msgspec.structs.replace(self.summary, **sums)

    async def consider(self, view: View, event: StoredEvent) -> list[WouldRun]:
        """The runs that an event would have led to."""
        self._count(events=1)
        if event.customer is None:
            return []
        if self._proposal.trigger not in INVOICE_TRIGGERS:
            if not self._span.holds(event.created):
                return []
            run = await self._judge(view, event, Moment(at=event.created))
            return [] if run is None else [run]
        return await self._about_invoice(view, event, event.customer)

    async def _about_invoice(self, view: View, event: StoredEvent, customer: str) -> list[WouldRun]:
        first = Seen(event.created, recall_object(Invoice, event.payload))
        trigger = self._proposal.trigger
        until = await self._time_of(view, first)
        if not moments(trigger, first, (), LAST_INSTANT):
            return []
        if trigger == "subscription_payment_fails" and await _failed_before(view, event, customer):
            return []
        later, failures = await _history(view, event, customer)
        found: list[WouldRun] = []
        free_at: int | None = 0
        for moment in moments(trigger, first, later, until):
            if free_at is None or moment.at < free_at or not self._span.holds(moment.at):
                continue
            run = await self._judge(view, event, moment, failures)
            if run is not None:
                free_at = run.replay.ended_at
                found.append(run)
        return found

    async def _judge(
        self, view: View, event: StoredEvent, moment: Moment, failures: tuple[int, ...] = ()
    ) -> WouldRun | None:
        """The run that a moment would have started, if all conditions hold."""
        subject = await self._subject(view, event, moment)
        if subject is not None and _awaits_confirmation(self._proposal.trigger, subject):
            return None
        self._count(moments=1)
        if subject is None:
            self._count(unknown=1)
            return None
        if subject.customer.deleted or not self._matches(subject):
            return None
        return await self._run(view, event, moment, subject, failures)

    def _matches(self, subject: Subject) -> bool:
        try:
            return all(evaluate(condition, subject).holds for condition in self._proposal.conditions)
        except ResourceMissing:
            # A price of the log that the catalog does not have: nothing can be said about what was sold.
            self._count(unknown=1)
            return False

    async def _run(
        self, view: View, event: StoredEvent, moment: Moment, subject: Subject, failures: tuple[int, ...]
    ) -> WouldRun:
        invoice = subject.invoice
        subscription = None if subject.subscription is None else subject.subscription.id
        now = await self._present(view, None if invoice is None else invoice.id, subscription)
        replayed = replay(
            self._proposal,
            moment,
            until=await self._time_of(view, subject.customer),
            subscription_ended_at=None if now[1] is None else now[1].ended_at,
        )
        happened = Happened(
            run=await self._really_ran(view, moment, subject),
            failures_at=tuple(at for at in failures if at >= moment.at),
            paid_at=next((seen.at for seen in moment.later if seen.invoice.status == "paid"), None),
            invoice_status=None if now[0] is None else now[0].status,
            subscription_status=None if now[1] is None else now[1].status,
        )
        value = self._value(invoice)
        self._count(
            runs=1,
            value=value or 0,
            without_rate=int(invoice is not None and value is None),
            paid=int(happened.paid_at is not None),
            **{self._comparison(happened): 1},
        )
        return WouldRun(
            at=moment.at,
            position=event.position,
            customer=subject.customer.id,
            invoice=None if invoice is None else invoice.id,
            subscription=subscription,
            amount=None if invoice is None else invoice.amount_due,
            currency=None if invoice is None else invoice.currency,
            value=value,
            replay=replayed,
            happened=happened,
        )

    def _comparison(self, happened: Happened) -> str:
        if happened.run is None:
            return "by_settings"
        return "ran_same" if happened.run.automation == self._automation else "ran_other"

    def _value(self, invoice: Invoice | None) -> int | None:
        if invoice is None:
            return None
        value = in_default_currency(invoice.amount_due, invoice.currency, self._settings)
        return None if value is None else round_half_away_from_zero(*value.as_integer_ratio())

    # --- what was known then

    async def _subject(self, view: View, event: StoredEvent, moment: Moment) -> Subject | None:
        """The customer, the subscription and the invoice as they were at a moment; None when that is not known."""
        trigger: Trigger = self._proposal.trigger
        subscription: Subscription | None = None
        if trigger == "customer_created":
            customer: Customer | None = recall_object(Customer, event.payload)
        else:
            customer = await self._customer_at(view, event, moment)
        if trigger == "subscription_canceled":
            subscription = recall_object(Subscription, event.payload)
        elif moment.invoice is not None and moment.invoice.subscription is not None:
            subscription = await self._subscription_at(view, event, moment, moment.invoice.subscription)
            if subscription is None:
                return None
        if customer is None:
            return None
        return Subject(
            customer=customer,
            invoice=moment.invoice,
            subscription=subscription,
            settings=self._settings,
            catalog=self._catalog,
        )

    async def _customer_at(self, view: View, event: StoredEvent, moment: Moment) -> Customer | None:
        """From the log; where it is not there any more, as the customer is now."""
        identity = event.customer or ""
        wanted = EventFilter(customer=identity, object_ids=(identity,), types=_CUSTOMER_EVENTS)
        found = await self._newest(view, event, moment, wanted)
        if found is not None:
            return recall_object(Customer, found.payload)
        self._count(customers_of_now=1)
        return next(iter(await view.get_many(Customer, [identity])), None)

    async def _subscription_at(
        self, view: View, event: StoredEvent, moment: Moment, identity: str
    ) -> Subscription | None:
        wanted = EventFilter(customer=event.customer, object_ids=(identity,), types=_SUBSCRIPTION_EVENTS)
        found = await self._newest(view, event, moment, wanted)
        if found is not None:
            return recall_object(Subscription, found.payload)
        return next(iter(await view.get_many(Subscription, [identity])), None)

    async def _newest(self, view: View, event: StoredEvent, moment: Moment, wanted: EventFilter) -> StoredEvent | None:
        """The last event before a moment: by position where the event itself is the moment, else by time."""
        before: int | None = event.position + 1
        if moment.at != event.created:
            before, wanted = None, msgspec.structs.replace(wanted, created_before=moment.at + 1)
        page = await view.newest_events(before=before, limit=1, wanted=wanted)
        return next(iter(page.events), None)

    # --- what happened then

    async def _present(
        self, view: View, invoice: str | None, subscription: str | None
    ) -> tuple[Invoice | None, Subscription | None]:
        invoices = [] if invoice is None else await view.get_many(Invoice, [invoice])
        subscriptions = [] if subscription is None else await view.get_many(Subscription, [subscription])
        return next(iter(invoices), None), next(iter(subscriptions), None)

    async def _really_ran(self, view: View, moment: Moment, subject: Subject) -> AutomationRun | None:
        """The run that the trigger really started at this moment."""
        if subject.invoice is not None:
            wanted = AutomationRunFilter(invoice=subject.invoice.id)
        elif subject.subscription is not None:
            wanted = AutomationRunFilter(subscription=subject.subscription.id)
        else:
            wanted = AutomationRunFilter(customer=subject.customer.id)
        page = await view.page(wanted, limit=_RUNS_MAX)
        trigger = self._proposal.trigger
        return next((run for run in page.items if run.trigger == trigger and run.created == moment.at), None)

    async def _time_of(self, view: View, item: Seen | Customer) -> int:
        """What time it is for a customer: real time, or that of the test clock; for one that is gone, its last word."""
        clock = item.invoice.test_clock if isinstance(item, Seen) else item.test_clock
        if clock is None:
            return self._now
        if clock not in self._clocks:
            found = await view.get_many(TestClock, [clock])
            self._clocks[clock] = found[0].frozen_time if found else None
        return self._clocks[clock] or self._now


def _awaits_confirmation(trigger: Trigger, subject: Subject) -> bool:
    """Whether it is the first invoice of an incomplete subscription, whose failures start nothing."""
    subscription = subject.subscription
    return trigger == "subscription_payment_fails" and subscription is not None and subscription.status == "incomplete"


async def _failed_before(view: View, event: StoredEvent, customer: str) -> bool:
    """Whether a payment of the same invoice had failed before."""
    wanted = EventFilter(customer=customer, object_ids=(event.object_id,), types=("invoice.payment_failed",))
    page = await view.newest_events(before=event.position, limit=1, wanted=wanted)
    return bool(page.events)


async def _history(view: View, event: StoredEvent, customer: str) -> tuple[tuple[Seen, ...], tuple[int, ...]]:
    """What became of an invoice after an event, and when its payments failed from then on."""
    wanted = EventFilter(customer=customer, object_ids=(event.object_id,), types=_INVOICE_EVENTS)
    page = await view.read_events(after=event.position, limit=HISTORY_MAX, wanted=wanted)
    later = tuple(Seen(found.created, recall_object(Invoice, found.payload)) for found in page.events)
    failures = tuple(found.created for found in page.events if found.type == "invoice.payment_failed")
    return later, failures
