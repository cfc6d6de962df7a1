"""The promises, checked at each commit of a simulated life and at its end (the numbers are those of the design)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from billing_server.domain.book import Book
from billing_server.domain.customer import Customer
from billing_server.domain.event import Event, previous_attributes
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt, Refund
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import EVENT_PREFIX
from tests.domain.rules.audit import TOLD, audit, audit_change, differences, seen
from tests.simulation.gateway import SimulatedGateway


class Promises:
    """What was told and what moved so far. All methods raise AssertionError."""

    def __init__(self, gateway: SimulatedGateway) -> None:
        self._gateway = gateway
        self._told: dict[str, msgspec.Struct] = {}
        self._timed_at = 0
        self._keys: Counter[str] = Counter()
        self.checks = 0

    def committed(self, before: Book | None, after: Book, events: Sequence[Event], now: int, key: str | None) -> None:
        """After each commit: promises 1, 2, 6, 9, 11, 13, 14, 17, 19."""
        self.checks += 1
        if key is not None:
            self._keys[key] += 1
            assert self._keys[key] == 1, f"the request {key} had {self._keys[key]} effects"
        for event in events:
            self._follow(event, now)
        self._folded(before, after)
        audit(after, before)
        if before is not None:
            audit_change(before, after)
        self._money(before, after)

    def _money(self, before: Book | None, after: Book) -> None:
        """Promises 1 and 2: what the book believes is what the gateway did."""
        for _, attempt in differences(before, after, ("attempts",)):
            moved = attempt.id in self._gateway.charged
            assert attempt.state != "succeeded" or moved, f"{attempt.id} succeeded, but no money moved"
            assert attempt.state in (*UNRESOLVED, "succeeded") or not moved, (
                f"{attempt.id} is {attempt.state}, but money moved"
            )

    def _follow(self, event: Event, now: int) -> None:
        assert event.created <= now, f"told before its time, at {now}: {event.type} of {event.created}"
        if event.cause.kind == "timer":
            assert event.created >= self._timed_at, f"told after something later: {event.type} of {event.created}"
            self._timed_at = event.created
        if event.type == "invoice.upcoming":
            return
        item: Any = event.object
        known = self._told.get(item.id)
        if event.type.endswith(".updated"):
            assert known is not None, f"updated before it was told of: {event}"
            assert event.previous_attributes == previous_attributes(known, item) != {}, event
        if isinstance(item, Subscription) and isinstance(known, Subscription) and event.cause.kind == "timer":
            self._tiled(known, item)
        self._told[item.id] = item

    def _tiled(self, before: Subscription, after: Subscription) -> None:
        """Promise 14: a period begins where the one before has ended."""
        if after.current_period_start != before.current_period_start and before.status != "paused":
            assert after.current_period_start == before.current_period_end, (
                f"{after.id} leaves out time: {before.current_period_end} to {after.current_period_start}"
            )

    def _folded(self, before: Book | None, after: Book) -> None:
        """Promises 17 and 19, for all that this commit has changed."""
        changed = [item for _, item in differences(before, after, TOLD)]
        if before is None or before.customer is not after.customer:
            changed.append(after.customer)
        for item in changed:
            if not (type(item) in EVENT_PREFIX or isinstance(item, Customer)):
                continue
            told = self._told.get(item.id)
            assert told is not None, f"never told: {item}"
            assert told is item or seen(told) == seen(item), f"changed without an event: {item.id}"

    def forget(self, identities: Sequence[str]) -> None:
        """Objects of the past that nothing will happen to any more."""
        for identity in identities:
            self._told.pop(identity, None)

    def settled(
        self, invoices: Sequence[Invoice], attempts: Sequence[PaymentAttempt], refunds: Sequence[Refund]
    ) -> None:
        """At the end: each successful charge pays its invoice, or was given back in full exactly once (promise 4).

        A refund that the gateway was not asked for while its key lived is left to people (promise 3).
        """
        looked_at = {refund.id for refund in refunds if refund.status == "failed" and refund.needs_review}
        late = Counter(refund.attempt for refund in refunds if refund.reason == "late_payment")
        left = {refund.attempt for refund in refunds if refund.id in looked_at and refund.reason == "late_payment"}
        status = {invoice.id: invoice.status for invoice in invoices}
        ours = {attempt.id: attempt for attempt in attempts}
        kept: Counter[str] = Counter()
        for key, charge in self._gateway.charged.items():
            assert key in ours, f"money moved under {key}, which is no attempt"
            assert ours[key].state == "succeeded", f"money moved for {key}, which is {ours[key].state}"
            assert late[key] <= 1, f"{key} was given back {late[key]} times"
            if key in left:
                assert self._gateway.given_back[key] == 0, f"{key} was given back, and nobody knows"
            elif late[key]:
                assert self._gateway.given_back[key] == charge.amount, f"{key} was not given back in full"
            else:
                kept[ours[key].invoice] += 1
        for invoice, times in kept.items():
            assert (times, status.get(invoice)) == (1, "paid"), (
                f"{invoice} is {status.get(invoice)}, paid {times} times"
            )
        for attempt in attempts:
            assert attempt.state not in UNRESOLVED, f"{attempt.id} is {attempt.state} for good"
        total = Counter[str]()
        for refund in refunds:
            if refund.id not in looked_at:
                assert refund.status == "succeeded", f"{refund.id} is {refund.status} for good"
                total[refund.attempt] += refund.amount
        assert total == self._gateway.given_back, "refunds are not what the gateway gave back"
