"""The log of events against the account: dense, and folding it gives the objects as they are.

Apart from the checks of books because it reads the whole log, which is many times larger than the account.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias, cast

from google.protobuf.message import Message

from billing.v1.customer_model_pb2 import Customer
from billing.v1.event_model_pb2 import Event
from billing.v1.test_clock_model_pb2 import TestClockStatus
from billing_client.audit.book import Book, Shared
from billing_client.audit.check import Finding

POSITIONS: Final = "event_positions"
FOLD: Final = "event_fold"

EVENT_CHECKS: Final = (POSITIONS, FOLD)
"""Names of the checks of this module."""

_VOLATILE: Final = ("etag", "overdue", "client_secret", "next_invoice_sequence", "payment_intent")
"""Fields that change without an event, or that are followed on their own."""


Told: TypeAlias = tuple[str, Message]
"""Type of the newest event that carried an object, and the object as it was then."""


class Positions:
    """Checks that positions count 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self.head = 0

    def take(self, event: Event) -> Iterator[Finding]:
        """Look at the next event of the log."""
        expected = self.head + 1
        if event.position != expected:
            yield Finding(POSITIONS, "", event.id, f"its position is {event.position} instead of {expected}")
        self.head = event.position


def objects_of(event: Event) -> Iterator[tuple[str, Message]]:
    """The objects that an event carries, with their ids: its own, and the payment intent inside an invoice.

    An invoice that is only announced has no id, and is left out.
    """
    name = event.WhichOneof("object")
    if name is None or not event.object_id:
        return
    yield event.object_id, cast(Message, getattr(event, name))
    if event.invoice.HasField("payment_intent"):
        yield event.invoice.payment_intent.id, event.invoice.payment_intent


def comparable(message: Message) -> bytes:
    """The message as the log can know it: without what changes silently."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in _VOLATILE:
        if name in copy.DESCRIPTOR.fields_by_name:
            copy.ClearField(name)
    return copy.SerializeToString(deterministic=True)


def differences(known: Message, told: Told | None) -> Iterator[str]:
    """How an object differs from what the newest event told of it."""
    if told is None:
        yield "no event tells of it"
        return
    type_, state = told
    if type_.endswith(".deleted") and not isinstance(known, Customer):
        return
    if comparable(known) != comparable(state):
        yield f"it differs from its newest event, {type_}, in {', '.join(_names(known, state)) or 'its fields'}"


def _names(known: Message, state: Message) -> list[str]:
    """Fields of two messages of one kind that are not equal."""
    names = [field.name for field in known.DESCRIPTOR.fields if field.name not in _VOLATILE]
    return [name for name in names if getattr(known, name) != getattr(state, name)]


def followed_pages(shared: Shared) -> Iterator[tuple[Message, bool]]:
    """The account's own objects that the log follows; a clock on the move is not where its events say."""
    for product in shared.products.values():
        yield product, True
    for price in shared.prices.values():
        yield price, True
    for clock in shared.clocks.values():
        if clock.status == TestClockStatus.TEST_CLOCK_STATUS_READY:
            yield clock, True


def followed(book: Book) -> Iterator[tuple[Message, bool]]:
    """The objects of a book that the log follows, each with whether it must have an event at all."""
    yield book.customer, True
    for subscription in book.subscriptions:
        yield subscription, True
    for invoice in book.invoices:
        yield invoice, True
        if invoice.HasField("payment_intent"):
            yield invoice.payment_intent, True
    for item in book.invoice_items:
        yield item, True
    for note in book.credit_notes:
        yield note, True
    for method in book.payment_methods.values():
        yield method, True
    for attempt in book.attempts:
        yield attempt, False
    for refund in book.refunds:
        yield refund, False
    for transaction in book.balance_transactions:
        yield transaction, False
