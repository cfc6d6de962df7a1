"""What customers do: a deed's name becomes a command on the book as it is at that moment."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from billing_server.domain import commands as c
from billing_server.domain.book import Book
from billing_server.domain.calendar import DAY
from billing_server.domain.subscription import TERMINAL, PauseCollection
from tests.simulation.plan import Plan

PRICES: Final = ("M31", "M10", "M_CENTS", "Q90", "Y120", "Y120", "Y120", "Q90")
CARDS: Final = ("ok", "ok", "ok", "bad")


def first_subscriptions(plan: Plan, customer: str) -> Iterator[c.Command]:
    """What the customer begins with."""
    dice = plan.dice("first subscriptions")
    for _ in range(plan.subscriptions):
        yield _subscription(customer, dice)


def _subscription(customer: str, dice: random.Random) -> c.Command:
    return c.CreateSubscription(
        customer=customer,
        items=(c.ItemParams(price=dice.choice(PRICES), quantity=dice.choice((None, 2, 5))),),
        trial_period_days=dice.choice((None, None, None, 14)),
        payment_behavior=dice.choice(("allow_incomplete", "allow_incomplete", "default_incomplete")),
    )


def command_for(what: str, book: Book, now: int, dice: random.Random) -> c.Command | None:
    """The command of a deed; None when there is nothing to do it to."""
    return _DEEDS[what](book, now, dice)


def _one(held: Any, dice: random.Random, *statuses: str) -> Any:
    wanted = [item for item in held.values() if not statuses or item.status in statuses]
    return dice.choice(wanted) if wanted else None


def _living(book: Book, dice: random.Random) -> Any:
    living = [item for item in book.subscriptions.values() if item.status not in TERMINAL]
    return dice.choice(living) if living else None


def _subscribe(book: Book, now: int, dice: random.Random) -> c.Command | None:
    living = [item for item in book.subscriptions.values() if item.status not in TERMINAL]
    return _subscription(book.customer.id, dice) if len(living) < 10 else None


def _attach(book: Book, now: int, dice: random.Random) -> c.Command | None:
    return c.AttachPaymentMethod(customer=book.customer.id, token=dice.choice(CARDS), set_default=True)


def _change_quantity(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _living(book, dice)
    if found is None:
        return None
    item = c.ItemChange(id=found.items[0].id, quantity=dice.randint(1, 5))
    behavior: Any = dice.choice(("create_prorations", "always_invoice", "none"))
    return c.UpdateSubscription(id=found.id, items=(item,), proration_behavior=behavior)


def _change_price(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _living(book, dice)
    if found is None:
        return None
    item = c.ItemChange(id=found.items[0].id, price=dice.choice(PRICES))
    return c.UpdateSubscription(id=found.id, items=(item,))


def _cancel(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _living(book, dice)
    if found is None:
        return None
    return c.CancelSubscription(id=found.id, prorate=dice.random() < 0.5, invoice_now=dice.random() < 0.3)


def _cancel_later(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _living(book, dice)
    return None if found is None else c.UpdateSubscription(id=found.id, cancel_at_period_end=True)


def _pay(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _one(book.invoices, dice, "open", "uncollectible")
    return None if found is None else c.PayInvoice(id=found.id, paid_out_of_band=dice.random() < 0.1)


def _void(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _one(book.invoices, dice, "open")
    return None if found is None else c.VoidInvoice(id=found.id)


def _refund(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _one(book.invoices, dice, "paid")
    if found is None or found.payment_intent is None or found.amount_paid < 10:
        return None
    return c.CreateRefund(payment_intent=found.payment_intent.id, amount=dice.randint(1, 10))


def _credit(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _one(book.invoices, dice, "open")
    if found is None or found.amount_remaining < 2:
        return None
    return c.CreateCreditNote(invoice=found.id, amount=dice.randint(1, found.amount_remaining))


def _adjust(book: Book, now: int, dice: random.Random) -> c.Command | None:
    amount = dice.choice((-500, -3000, 70))
    return c.AdjustBalance(customer=book.customer.id, amount=amount, currency="usd")


def _bill(book: Book, now: int, dice: random.Random) -> c.Command | None:
    return c.CreateInvoiceItem(customer=book.customer.id, amount=dice.choice((900, -200, 4000)), currency="usd")


def _pause(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _living(book, dice)
    if found is None:
        return None
    behavior: Any = dice.choice(("void", "keep_as_draft", "mark_uncollectible"))
    pause = PauseCollection(behavior=behavior, resumes_at=now + 60 * DAY)
    return c.UpdateSubscription(id=found.id, pause_collection=pause)


def _resume(book: Book, now: int, dice: random.Random) -> c.Command | None:
    found = _one(book.subscriptions, dice, "paused")
    return None if found is None else c.ResumeSubscription(id=found.id)


_DEEDS: Final[dict[str, Callable[[Book, int, random.Random], c.Command | None]]] = {
    "subscribe": _subscribe,
    "another card": _attach,
    "change quantity": _change_quantity,
    "change price": _change_price,
    "cancel": _cancel,
    "cancel later": _cancel_later,
    "pay": _pay,
    "void": _void,
    "refund": _refund,
    "credit": _credit,
    "adjust": _adjust,
    "bill": _bill,
    "pause": _pause,
    "resume": _resume,
}
