"""The passing of time: wake what is due, in order of due time, each at its own due time.

An outage of two days therefore bills exactly what would have been billed. Time in a book stops where a charge
has to be made, because what comes after may depend on its outcome; it goes on once that is settled. It also stops
before usage has to be billed that the book was not loaded with, as that of a second period in one go.
"""

from __future__ import annotations

import heapq

from billing_server.domain import automation as automation_module
from billing_server.domain import automation_steps, invoice_commands, phase_change, renewal, usage
from billing_server.domain import invoice as invoice_module
from billing_server.domain import schedule as schedule_module
from billing_server.domain import subscription as subscription_module
from billing_server.domain.automation import AutomationRun
from billing_server.domain.book import Book, Decision
from billing_server.domain.event import Cause
from billing_server.domain.invoice import Invoice
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import NewId, Pages, Turn

TIMER = Cause(kind="timer")

WAKES_MAX = 100_000
"""More wake-ups than this in one go mean that an object does not move on; its book is parked."""

_INVOICE, _SCHEDULE, _SUBSCRIPTION, _RUN = 0, 1, 2, 3


class StuckBook(Exception):
    """Time does not pass in a book: an object stays due. Carries what stays due, for the alert."""


def advance(book: Book, until: int, *, wall_now: int, pages: Pages, new_id: NewId) -> Decision:
    """Let time pass in the loaded part of a book up to and including `until`.

    Returns early when a charge has to be made: even what is due at the same moment waits for its outcome. Returns
    early before usage that is not loaded, too; what is left stays due. Of what is due at one moment, invoices go
    before schedules, schedules before subscriptions, these before automation runs, and older objects before younger.
    So a phase that begins as a billing period ends changes the subscription first, and the new period is billed at
    its prices.

    Raises:
        StuckBook: an object does not move on.
    """
    turn = Turn(book, now=until, wall_now=wall_now, pages=pages, new_id=new_id, cause=TIMER)
    queue = _queue(book)
    wakes = 0
    while queue and queue[0][0] <= until:
        moment, kind, identity = heapq.heappop(queue)
        if turn.charges:
            break
        if moment != _wake_at(turn, kind, identity):
            continue
        item = _object(turn, kind, identity)
        if not usage.is_loaded(turn, item):
            if not wakes:
                raise StuckBook(f"{identity} is due at {moment}, but its usage is not loaded")
            break
        turn.now = moment
        wakes += 1
        if wakes > WAKES_MAX:
            raise StuckBook(f"{identity} is still due at {moment}")
        turn.woken.clear()
        if isinstance(item, Invoice):
            invoice_commands.wake(turn, item)
        elif isinstance(item, SubscriptionSchedule):
            phase_change.wake(turn, item)
        elif isinstance(item, Subscription):
            renewal.wake(turn, item)
        else:
            automation_steps.wake(turn, item)
        automation_steps.carry_on(turn)
        turn.end_step()
        for changed in turn.woken:
            changed_kind = _kind_of(turn, changed)
            following = _wake_at(turn, changed_kind, changed)
            if following is not None:
                heapq.heappush(queue, (following, changed_kind, changed))
    return turn.decision()


def _queue(book: Book) -> list[tuple[int, int, str]]:
    """What wakes at all in the book, as a heap by moment, kind and id."""
    queue: list[tuple[int, int, str]] = []
    for id_, invoice in book.invoices.items():
        if (moment := invoice_module.wake_at(invoice)) is not None:
            queue.append((moment, _INVOICE, id_))
    for id_, schedule in book.schedules.items():
        if (moment := schedule_module.wake_at(schedule)) is not None:
            queue.append((moment, _SCHEDULE, id_))
    for id_, subscription in book.subscriptions.items():
        if (moment := subscription_module.wake_at(subscription)) is not None:
            queue.append((moment, _SUBSCRIPTION, id_))
    for id_, run in book.runs.items():
        if (moment := automation_module.wake_at(run)) is not None:
            queue.append((moment, _RUN, id_))
    heapq.heapify(queue)
    return queue


def _object(turn: Turn, kind: int, identity: str) -> Invoice | SubscriptionSchedule | Subscription | AutomationRun:
    if kind == _INVOICE:
        return turn.invoices[identity]
    if kind == _RUN:
        return turn.runs[identity]
    return turn.schedules[identity] if kind == _SCHEDULE else turn.subscriptions[identity]


def _kind_of(turn: Turn, identity: str) -> int:
    if identity in turn.invoices:
        return _INVOICE
    if identity in turn.runs:
        return _RUN
    return _SCHEDULE if identity in turn.schedules else _SUBSCRIPTION


def _wake_at(turn: Turn, kind: int, identity: str) -> int | None:
    if kind == _INVOICE:
        invoice = turn.invoices.get(identity)
        return None if invoice is None else invoice_module.wake_at(invoice)
    if kind == _SCHEDULE:
        schedule = turn.schedules.get(identity)
        return None if schedule is None else schedule_module.wake_at(schedule)
    if kind == _RUN:
        run = turn.runs.get(identity)
        return None if run is None else automation_module.wake_at(run)
    subscription = turn.subscriptions.get(identity)
    return None if subscription is None else subscription_module.wake_at(subscription)
