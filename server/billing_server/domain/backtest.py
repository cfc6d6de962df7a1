"""Backtests: which runs an automation would have started, judged by what was recorded.

Pure: `engine.backtest` reads the log.

A moment is when the trigger would have fired, with the invoice as it then was and what became of it. A replay carries
the actions out on paper, until what really happened would have ended the run. So what an action itself would have
changed, such as a payment at another time, is not guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from billing_server.domain.automation import Action, ActionType, Condition, EndReason, Trigger
from billing_server.domain.automation_runs import time_of
from billing_server.domain.dunning import next_retry_at
from billing_server.domain.invoice import Invoice

TRIGGER_EVENTS: Final[Mapping[Trigger, str]] = {
    "invoice_due_date_upcoming": "invoice.finalized",
    "invoice_finalized": "invoice.finalized",
    "invoice_overdue": "invoice.finalized",
    "subscription_canceled": "customer.subscription.deleted",
    "subscription_payment_fails": "invoice.payment_failed",
    "customer_created": "customer.created",
}
"""The recorded events from which the moments of each trigger are told."""

_ENDING_ACTIONS: Final[Mapping[ActionType, EndReason]] = {
    "cancel_subscription": "subscription_canceled",
    "mark_invoice_uncollectible": "auto_advance_disabled",
}
"""Actions that end collection, and why a run ends when actions with a delay would follow them."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """The definition that is tried: as if it had been enabled, and asked before all others."""

    trigger: Trigger
    conditions: tuple[Condition, ...]
    actions: tuple[Action, ...]


class Seen(msgspec.Struct, frozen=True):
    """An invoice as it was from a moment on."""

    at: int
    invoice: Invoice


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When a trigger would have fired; `later` is what became of the invoice from then on."""

    at: int
    invoice: Invoice | None = None
    later: tuple[Seen, ...] = ()


class ReplayedStep(msgspec.Struct, frozen=True, kw_only=True):
    """An action that would have been come to. `tries_at` are the tries of a retry policy;
    `skipped` says that its time was over before the run began.
    """

    type: ActionType
    scheduled_at: int
    ended_at: int | None
    tries_at: tuple[int, ...] = ()
    skipped: bool = False


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would have done, and when and why it would have ended; None while it would still run."""

    steps: tuple[ReplayedStep, ...]
    ended_at: int | None
    end_reason: EndReason | None


# --- when the trigger fires


def moments(trigger: Trigger, first: Seen, later: Sequence[Seen], until: int) -> list[Moment]:
    """When a trigger about an invoice would have fired, up to `until`, from an event that may have been one.

    `first` is the invoice in an event of `TRIGGER_EVENTS`, `later` what became of it. That a failed payment was the
    first one of its invoice has to be known by the caller.
    """
    invoice = first.invoice
    if trigger == "invoice_overdue":
        return _overdue(first, later, until)
    if invoice.status != "open" or not invoice.auto_advance or not _applies(trigger, invoice):
        return []
    return [Moment(at=first.at, invoice=invoice, later=tuple(later))]


def _applies(trigger: Trigger, invoice: Invoice) -> bool:
    if trigger == "invoice_due_date_upcoming":
        return invoice.collection_method == "send_invoice" and invoice.due_date is not None
    if trigger == "subscription_payment_fails":
        return invoice.collection_method == "charge_automatically" and invoice.subscription is not None
    return trigger == "invoice_finalized"


def _overdue(first: Seen, later: Sequence[Seen], until: int) -> list[Moment]:
    """Each due date that passed while the invoice was open and advanced by itself."""
    found = []
    now, passed = first.invoice, False
    ends = [seen.at for seen in later] + [until]
    for index, end in enumerate(ends):
        due = None if now.due_date is None else max(now.due_date, first.at)
        if now.status == "open" and due is not None and not passed and due <= end:
            passed = True
            if now.auto_advance:
                found.append(Moment(at=due, invoice=now, later=tuple(later[index:])))
        if index < len(later):
            following = later[index].invoice
            passed = passed and following.due_date == now.due_date
            now = following
    return found


# --- what the run would have done


class _Ending(msgspec.Struct, frozen=True):
    """What really ended the collection of the invoice."""

    at: int
    reason: EndReason

    @property
    def settled(self) -> bool:
        """Whether nothing was left to collect, so that no action of that instant would have happened."""
        return self.reason in ("invoice_paid", "invoice_voided")


def _ending(moment: Moment, subscription_ended_at: int | None) -> _Ending | None:
    for seen in moment.later:
        if seen.invoice.status == "paid":
            return _Ending(seen.at, "invoice_paid")
        if seen.invoice.status == "void":
            return _Ending(seen.at, "invoice_voided")
        if not seen.invoice.auto_advance:
            gone = subscription_ended_at is not None and subscription_ended_at <= seen.at
            return _Ending(seen.at, "subscription_canceled" if gone else "auto_advance_disabled")
    return None


def replay(proposal: Proposal, moment: Moment, *, until: int, subscription_ended_at: int | None = None) -> Replay:
    """Carry out the actions on paper from a moment on: up to `until`, or to what really ended the run.

    Tries of a retry policy count as failed until the invoice was really paid.
    """
    return _Paper(proposal, moment, until, _ending(moment, subscription_ended_at)).carry_out()


class _Paper:
    """A run on paper."""

    def __init__(self, proposal: Proposal, moment: Moment, until: int, ending: _Ending | None) -> None:
        actions = proposal.actions
        if proposal.trigger == "invoice_due_date_upcoming":
            actions = tuple(sorted(actions, key=lambda action: -(action.before_due_seconds or 0)))
        self._actions = actions
        self._moment = moment
        self._until = until
        self._ending = ending
        self._steps: list[ReplayedStep] = []

    def carry_out(self) -> Replay:
        """All that would have happened."""
        after, gone = self._moment.at, None
        for action in self._actions:
            scheduled = self._scheduled(action, after)
            executed = max(scheduled, after)
            if gone is not None and executed > after:
                return self._ended(after, gone)
            if self._over(executed):
                return self._over_before(executed)
            if action.type == "start_retry_policy":
                ended = self._retry(action, executed)
                if ended is None:
                    return self._over_before(self._until + 1)
                after = ended
                if self._ending is not None and self._ending.settled and self._ending.at <= after:
                    return self._ended(self._ending.at, self._ending.reason)
                continue
            skipped = action.before_due_seconds is not None and scheduled < self._moment.at
            self._steps.append(
                ReplayedStep(type=action.type, scheduled_at=scheduled, ended_at=executed, skipped=skipped)
            )
            after = executed
            gone = gone or _ENDING_ACTIONS.get(action.type)
        return self._ended(after, "completed")

    def _scheduled(self, action: Action, after: int) -> int:
        """When an action would have happened; one that is timed by the due date follows it when it is moved."""
        scheduled = time_of(action, after, self._moment.invoice)
        if action.before_due_seconds is not None:
            for seen in self._moment.later:
                if seen.at > scheduled:
                    break
                scheduled = time_of(action, after, seen.invoice)
        return scheduled

    def _over(self, moment: int) -> bool:
        """Whether the run would have ended before an action at this moment, or it is still to come."""
        if moment > self._until:
            return True
        ending = self._ending
        if ending is None or moment == self._moment.at:
            return False
        return ending.at < moment or (ending.settled and ending.at == moment)

    def _over_before(self, moment: int) -> Replay:
        """The run ended by what really happened, or it still runs."""
        ending = self._ending
        if ending is not None and ending.at <= min(moment, self._until):
            return self._ended(ending.at, ending.reason)
        return Replay(steps=tuple(self._steps), ended_at=None, end_reason=None)

    def _retry(self, action: Action, since: int) -> int | None:
        """The tries of a policy; when its last one was, or None when it did not come to that."""
        policy = action.retry_policy
        if policy is None:
            raise AssertionError("a retry policy is started without one")
        tries: list[int] = []
        last = since
        ending = self._ending
        ended: int | None = None
        while True:
            following = next_retry_at(policy, since, last, len(tries))
            if following is None:
                ended = last
                break
            if following > self._until or (ending is not None and ending.at < following):
                break
            tries.append(following)
            last = following
        broken_off = ended is None and ending is not None and ending.at <= self._until
        self._steps.append(
            ReplayedStep(
                type=action.type,
                scheduled_at=since,
                ended_at=ending.at if broken_off and ending is not None else ended,
                tries_at=tuple(tries),
            )
        )
        return ended

    def _ended(self, at: int, reason: EndReason) -> Replay:
        return Replay(steps=tuple(self._steps), ended_at=at, end_reason=reason)
