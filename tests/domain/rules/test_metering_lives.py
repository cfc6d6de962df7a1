"""The property of metering: what is reported is billed once, or was free, or came too late; nothing else happens.

Random lives of a subscription with a metered item are lived through a moment at a time. Beside the rules a ledger
notes, second by second, when usage counts, and when a span of it is closed; at the end every event must be found
where the ledger has it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from billing_server.domain import commands as c
from billing_server.domain.invoice import Invoice, InvoiceLine
from billing_server.domain.subscription import PauseCollection
from tests.domain.rules.shop import CALLS, CATALOG, OK, at
from tests.domain.rules.story import Story

START = at("2025-01-10 08:15:42")
DAY = 86_400
COUNTING = ("active", "past_due", "unpaid")
LATEST = 35 * DAY
AHEAD = 300

PRICES = ("M_METERED", "M_METERED_20", "Y_METERED", "D_METERED", "M_VISITS", "M10")


class Closed(NamedTuple):
    """A span of an item's usage that will not be counted again, and how many events had been reported by then."""

    item: str
    start: int
    end: int
    reported: int


class Life:
    """A story with its ledger."""

    def __init__(self, *, card: bool, trial_days: int | None) -> None:
        self.story = Story(START)
        self.story.in_small_steps = False
        if card:
            self.story.do(c.AttachPaymentMethod(customer=self.customer, token=OK, set_default=True))
        self.open: dict[str, int] = {}
        self.closed: list[Closed] = []
        self.given_up: list[Closed] = []
        self.counted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.counting: dict[str, int] = {}
        self.finalized: dict[str, int] = {}
        self.story.do(
            c.CreateSubscription(
                customer=self.customer,
                items=(c.ItemParams(price="M_METERED"),),
                trial_period_days=trial_days,
                missing_payment_method="pause",
            )
        )
        self._note()

    @property
    def customer(self) -> str:
        return self.story.book.customer.id

    @property
    def events(self) -> list[tuple[int, int]]:
        """Time and value of what was reported to the meter, in the order of the reports."""
        return [(one.last_at, one.sum) for meter, one in self.story.used if meter == CALLS]

    # --- living

    def wait(self, seconds: int) -> None:
        """Let time pass, and look at every moment at which something happens."""
        until = self.story.now + seconds
        while (wake := self.story.book.wake_at) is not None and wake <= until:
            self.story.to(max(wake, self.story.now))
            self._note()
        self.story.to(until)

    def use(self, value: int, moment: int) -> None:
        """Report usage, as late and as early as it may be."""
        now = self.story.now
        self.story.use(value, min(max(moment, now - LATEST), now + AHEAD), CALLS)

    def ask(self, command: Any) -> None:
        """Ask for something that may be refused."""
        self.story.attempt(command)
        self._note()

    def _note(self) -> None:
        """Bring the ledger up to date with the statuses and items that are seen now."""
        now, subscription = self.story.now, self.story.subscription()
        reported = len(self.events)
        starts: dict[str, int] = {}
        if subscription.status in COUNTING:
            for item in subscription.items:
                meter = CATALOG.meter_of_price(CATALOG.price(item.price))
                if meter is not None and meter.id == CALLS:
                    starts[item.id] = max(subscription.current_period_start, item.usage_from or 0)
        for item_id, start in list(self.open.items()):
            if starts.get(item_id) != start:
                # Who does not pay is canceled without another invoice.
                given_up = subscription.cancellation_details.reason == "payment_failed"
                spans = self.given_up if given_up else self.closed
                spans.append(Closed(item_id, start, starts.get(item_id, now), reported))
                del self.open[item_id]
        self.open.update(starts)
        for item_id in starts.keys() - self.counting.keys():
            self.counting[item_id] = now
        for item_id in self.counting.keys() - starts.keys():
            self.counted[item_id].append((self.counting.pop(item_id), now))
        for invoice in self.story.book.invoices.values():
            if invoice.status != "draft":
                self.finalized.setdefault(invoice.id, reported)

    # --- looking back

    def end(self) -> None:
        """Bill what is left, and let all drafts be finalized."""
        if not self.story.subscription().terminal:
            self.ask(c.CancelSubscription(id=self.story.subscription().id, invoice_now=True))
        for invoice in list(self.story.book.invoices.values()):
            if invoice.status == "draft" and invoice.lines:
                self.ask(c.FinalizeInvoice(id=invoice.id))

    def check_spans(self) -> None:
        """The closed spans are the very seconds in which usage counted, each in one of them."""
        closed = self.closed + self.given_up
        for item_id in {span.item for span in closed} | set(self.counted):
            spans = sorted((span.start, span.end) for span in closed if span.item == item_id)
            assert _joined(spans) == _joined(sorted(self.counted[item_id])), item_id

    def check_lines(self) -> int:
        """Each closed span is on one line, with what had been reported when it was billed for good.

        Returns what was billed.
        """
        lines = self._lines()
        billed = 0
        for closed in self.closed:
            found = lines.pop(closed[:3], [])
            assert len(found) == 1 or not (found or self._within(closed, closed.reported)), (closed, found)
            for line, _ in found:
                assert line.quantity == self._within(closed, self._known(closed)), (closed, line)
                billed += line.quantity
        assert not lines, "no line without a closed span"
        return billed

    def _lines(self) -> dict[tuple[str, int, int], list[tuple[InvoiceLine, Invoice]]]:
        """The lines that bill usage, by item and span."""
        lines = defaultdict(list)
        for invoice in self.story.book.invoices.values():
            for line in invoice.lines:
                if line.price is None or line.quantity is None or line.period_start == line.period_end:
                    continue
                meter = CATALOG.meter_of_price(CATALOG.price(line.price))
                if meter is not None and meter.id == CALLS:
                    lines[line.subscription_item or "", line.period_start, line.period_end].append((line, invoice))
        return lines

    def _known(self, closed: Closed) -> int:
        """How many events had been reported when the span was billed for good."""
        for line, invoice in self._lines().get(closed[:3], []):
            return closed.reported if line.type == "invoice_item" else self.finalized[invoice.id]
        return closed.reported

    def _within(self, closed: Closed, reported: int) -> int:
        return sum(value for moment, value in self.events[:reported] if closed.start <= moment < closed.end)

    def late(self) -> int:
        """What was used while it counted, but reported when its span had been billed for good."""
        return sum(
            self._within(closed, len(self.events)) - self._within(closed, self._known(closed)) for closed in self.closed
        )

    def counts(self) -> int:
        """What was used while it counted, for each item that counts it."""
        return sum(self._within(closed, len(self.events)) for closed in self.closed)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that do not overlap, those that touch as one, empty ones left out."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if start == end:
            continue
        assert not joined or start >= joined[-1][1], "spans overlap"
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


DEEDS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 40 * DAY)),
    st.tuples(st.just("wait"), st.integers(1, 4 * 3600)),
    st.tuples(st.just("use"), st.tuples(st.integers(1, 1000), st.integers(-LATEST, AHEAD))),
    st.tuples(st.just("use"), st.tuples(st.integers(1, 1000), st.integers(-7200, AHEAD))),
    st.tuples(st.just("use_late"), st.tuples(st.integers(1, 1000), st.integers(1, 5000))),
    st.tuples(st.just("price"), st.sampled_from(PRICES)),
    st.tuples(st.just("add"), st.sampled_from(PRICES)),
    st.tuples(st.just("drop"), st.just(None)),
    st.tuples(st.just("anchor"), st.just(None)),
    st.tuples(st.just("trial"), st.integers(1, 20 * DAY)),
    st.tuples(st.just("trial_now"), st.just(None)),
    st.tuples(st.just("cancel_at"), st.integers(1, 60 * DAY)),
    st.tuples(st.just("collect"), st.sampled_from(["keep_as_draft", "void", "mark_uncollectible", None])),
    st.tuples(st.just("card"), st.just(None)),
    st.tuples(st.just("resume"), st.sampled_from(["now", "unchanged"])),
    st.tuples(st.just("finalize"), st.just(None)),
)


def _carry_out(life: Life, deed: str, how: Any) -> None:
    subscription = life.story.subscription()

    def update(**fields: Any) -> None:
        life.ask(c.UpdateSubscription(id=subscription.id, **fields))

    if deed == "wait":
        life.wait(how)
    elif deed == "use":
        life.use(how[0], life.story.now + how[1])
    elif deed == "use_late":
        # The end of the period has come, and perhaps its draft is not finalized yet.
        end = subscription.current_period_end
        life.wait(max(0, end + how[1] - life.story.now))
        life.use(how[0], end - 1)
    elif deed == "price":
        update(items=(c.ItemChange(id=subscription.items[0].id, price=how),))
    elif deed == "add":
        update(items=(c.ItemChange(price=how),))
    elif deed == "drop":
        update(items=(c.ItemChange(id=subscription.items[-1].id, deleted=True),))
    elif deed == "anchor":
        update(billing_cycle_anchor_now=True)
    elif deed == "trial":
        update(trial_end=life.story.now + how)
    elif deed == "trial_now":
        update(trial_end_now=True)
    elif deed == "cancel_at":
        update(cancel_at=life.story.now + how)
    elif deed == "collect":
        update(pause_collection=None if how is None else PauseCollection(behavior=how))
    elif deed == "card":
        life.ask(c.AttachPaymentMethod(customer=life.customer, token=OK, set_default=True))
    elif deed == "resume":
        life.ask(c.ResumeSubscription(id=subscription.id, billing_cycle_anchor=how))
    else:
        drafts = [one.id for one in life.story.book.invoices.values() if one.status == "draft" and one.lines]
        if drafts:
            life.ask(c.FinalizeInvoice(id=drafts[-1]))


BEGINNINGS: dict[str, tuple[bool, int | None, list[tuple[str, Any]]]] = {
    "paying": (True, None, [("use", (7, 0)), ("wait", 5 * DAY + 11)]),
    "poor": (False, None, [("use", (7, 0)), ("wait", 40 * DAY)]),
    "trying": (True, 20, [("use", (7, 0)), ("wait", 3 * DAY)]),
    "paused": (False, 5, [("use", (7, 0)), ("wait", 9 * DAY + 13), ("use", (7, 0)), ("wait", 50)]),
    "with more": (True, None, [("add", "M10"), ("use", (7, 0)), ("wait", DAY)]),
}
"""Whether there is a card, the days of trial, and what happens first."""


@settings(max_examples=200, deadline=None)
@given(beginning=st.sampled_from(sorted(BEGINNINGS)), deeds=st.lists(DEEDS, min_size=3, max_size=25))
def test_what_is_reported_is_billed_once_or_was_free_or_late(beginning: str, deeds: list[tuple[str, Any]]) -> None:
    card, trial_days, first = BEGINNINGS[beginning]
    life = Life(card=card, trial_days=trial_days)
    for deed, how in (*first, *deeds):
        _carry_out(life, deed, how)
    life.end()
    life.check_spans()
    assert life.check_lines() + life.late() == life.counts()
