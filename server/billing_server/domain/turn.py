"""A turn: the making of one decision about one book.

A turn works on a copy of the book's mappings, so a refused command leaves the book untouched. It keeps what
was last told of each object; whatever differs from that at the end is told by an `….updated` event, so no
change of state goes without its event (promise 17).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from billing_server.domain.account import Account, Settings
from billing_server.domain.automation import Automation, AutomationRun
from billing_server.domain.book import Book, Decision
from billing_server.domain.catalog import Catalog, Price, Product
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.errors import DomainError, ResourceMissing
from billing_server.domain.event import Cause, Event, previous_attributes
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem
from billing_server.domain.message import Message
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription

NewId = Callable[[str], str]
"""Gives a new id for a prefix: `new_id("sub")` is `sub_…`. Ids sort by the time they were made."""

EVENT_PREFIX: Mapping[type[msgspec.Struct], str] = {
    Customer: "customer",
    PaymentMethod: "payment_method",
    Subscription: "customer.subscription",
    SubscriptionSchedule: "subscription_schedule",
    Invoice: "invoice",
    InvoiceItem: "invoiceitem",
    CreditNote: "credit_note",
    AutomationRun: "automation_run",
    Automation: "automation",
    Product: "product",
    Price: "price",
}
"""What the event types of each noun begin with. Nouns that are not listed have no `….updated` of their own."""

_MAPPING: Mapping[type[msgspec.Struct], str] = {
    PaymentMethod: "payment_methods",
    Subscription: "subscriptions",
    SubscriptionSchedule: "schedules",
    Invoice: "invoices",
    InvoiceItem: "invoice_items",
    CreditNote: "credit_notes",
    PaymentAttempt: "attempts",
    Refund: "refunds",
    BalanceTransaction: "balance_transactions",
    AutomationRun: "runs",
}


_WAKING = frozenset({"subscriptions", "schedules", "invoices", "runs"})
"""The mappings of what time alone may change."""

_NOUNS = tuple(EVENT_PREFIX)


def _telling_order(item: Any) -> tuple[bool, int, str]:
    """Noun by noun, the customer last, and older objects first."""
    return isinstance(item, Customer), _NOUNS.index(type(item)), item.id


def _copy(value: Any) -> Any:
    """A list or mapping as it is now; everything else never changes. Mappings within mappings are copied, too."""
    if isinstance(value, list):
        return list(value)
    if isinstance(value, dict):
        return {key: dict(held) if isinstance(held, dict) else held for key, held in value.items()}
    return value


class Noun(Protocol):
    """What all stored objects share."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> int: ...


Stored = TypeVar("Stored", bound=msgspec.Struct)
T = TypeVar("T")


class Pages(msgspec.Struct, frozen=True):
    """The account's own pages, as of one version: who it is, its settings, what it sells, and its automations."""

    account: Account
    catalog: Catalog
    version: int
    automations: tuple[Automation, ...] = ()

    @property
    def settings(self) -> Settings:
        """The account's settings."""
        return self.account.settings


class Turn:
    """The state of one decision in the making. `now` may move forward while time passes in the turn.

    `wall_now` is real time; only the leases of charges use it. `woken` collects the subscriptions, schedules,
    invoices and automation runs whose next moment may have changed.
    """

    __slots__ = (
        "_before",
        "_copied",
        "_maps",
        "_told",
        "_versions",
        "book",
        "catalog",
        "cause",
        "charges",
        "customer",
        "events",
        "messages",
        "new_id",
        "now",
        "pages",
        "refunds_started",
        "settings",
        "touched",
        "wall_now",
        "woken",
    )

    def __init__(self, book: Book, *, now: int, wall_now: int, pages: Pages, new_id: NewId, cause: Cause) -> None:
        self.book = book
        self.customer = book.customer
        self.now = now
        self.wall_now = wall_now
        self.pages = pages
        self.settings = pages.account.settings
        self.catalog = pages.catalog.in_currency(book.customer.currency)
        self.new_id = new_id
        self.cause = cause
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.charges: list[PaymentAttempt] = []
        self.refunds_started: list[Refund] = []
        self.touched: dict[str, None] = {}
        self.woken: dict[str, None] = {}
        self._maps: dict[str, Mapping[str, Any]] = {name: getattr(book, name) for name in _MAPPING.values()}
        self._copied: dict[str, dict[str, Any]] = {}
        self._before: dict[str, msgspec.Struct] = {}
        self._told: dict[str, msgspec.Struct] = {}
        self._versions: dict[str, int] = {}

    # --- reading

    @property
    def by_time(self) -> bool:
        """Whether time alone acts, and nobody could be told of a refusal: what was agreed on is carried out."""
        return self.cause.kind in ("timer", "automation")

    @property
    def payment_methods(self) -> Mapping[str, PaymentMethod]:
        """Attached payment methods by id."""
        return self._maps["payment_methods"]

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """Loaded subscriptions by id."""
        return self._maps["subscriptions"]

    @property
    def schedules(self) -> Mapping[str, SubscriptionSchedule]:
        """Schedules that have not ended by id, and those that a command named."""
        return self._maps["schedules"]

    @property
    def invoices(self) -> Mapping[str, Invoice]:
        """Loaded invoices by id."""
        return self._maps["invoices"]

    @property
    def invoice_items(self) -> Mapping[str, InvoiceItem]:
        """Pending invoice items by id, and those a command named."""
        return self._maps["invoice_items"]

    @property
    def attempts(self) -> Mapping[str, PaymentAttempt]:
        """Unresolved payment attempts by id, and those a command asked for."""
        return self._maps["attempts"]

    @property
    def refunds(self) -> Mapping[str, Refund]:
        """Unresolved refunds by id, and new ones."""
        return self._maps["refunds"]

    @property
    def credit_notes(self) -> Mapping[str, CreditNote]:
        """Credit notes of the loaded invoices by id."""
        return self._maps["credit_notes"]

    @property
    def runs(self) -> Mapping[str, AutomationRun]:
        """Automation runs that have not ended by id, and those that a command named."""
        return self._maps["runs"]

    def subscription(self, subscription_id: str, field: str = "id") -> Subscription:
        """The loaded subscription with this id; `ResourceMissing` naming `field` otherwise."""
        found = self.subscriptions.get(subscription_id)
        if found is None:
            raise ResourceMissing("subscription", subscription_id, field=field)
        return found

    def schedule(self, schedule_id: str) -> SubscriptionSchedule:
        """The loaded schedule with this id; `ResourceMissing` otherwise."""
        found = self.schedules.get(schedule_id)
        if found is None:
            raise ResourceMissing("subscription_schedule", schedule_id)
        return found

    def invoice(self, invoice_id: str, field: str = "id") -> Invoice:
        """The loaded invoice with this id; `ResourceMissing` naming `field` otherwise."""
        found = self.invoices.get(invoice_id)
        if found is None:
            raise ResourceMissing("invoice", invoice_id, field=field)
        return found

    def payment_method(self, method_id: str, field: str) -> PaymentMethod:
        """The attached payment method with this id; `ResourceMissing` naming `field` otherwise."""
        found = self.payment_methods.get(method_id)
        if found is None or found.detached_at is not None:
            raise ResourceMissing("payment_method", method_id, field=field)
        return found

    def subscription_of(self, invoice: Invoice) -> Subscription | None:
        """The subscription that the invoice bills, if any."""
        return None if invoice.subscription is None else self.subscriptions.get(invoice.subscription)

    def unresolved_attempt(self, invoice_id: str) -> PaymentAttempt | None:
        """The attempt of the invoice of which it is not known whether it moved money."""
        for attempt in self.attempts.values():
            if attempt.invoice == invoice_id and attempt.state in ("started", "unknown"):
                return attempt
        return None

    # --- changing

    def put(self, item: Stored) -> Stored:
        """Keep a new or changed object in the book."""
        identity = str(item.id)  # type: ignore[attr-defined]  # every stored noun has an id; Struct cannot say so
        if isinstance(item, Customer):
            self._before.setdefault(identity, self.book.customer)
            self.customer = item
        else:
            name = _MAPPING[type(item)]
            mapping = self._writable(name)
            if identity in mapping:
                self._before.setdefault(identity, mapping[identity])
            else:
                self._versions[identity] = item.version  # type: ignore[attr-defined]  # every stored noun has one
            mapping[identity] = item
            if name in _WAKING:
                self.woken[identity] = None
        self.touched[identity] = None
        return item

    def alter(self, item: Stored, **changes: Any) -> Stored:
        """Change what callers can see of an object; its version goes up once per step."""
        identity = item.id  # type: ignore[attr-defined]  # every stored noun has an id
        version = self._versions.get(identity)
        if version is None:
            version = self._versions[identity] = item.version + 1  # type: ignore[attr-defined]  # and a version
        return self.put(msgspec.structs.replace(item, version=version, **changes))

    def revise(self, item: Stored, changes: Mapping[str, Any]) -> Stored:
        """Change what a caller wants otherwise, and tell it; a change of nothing is no new version."""
        other = {name: value for name, value in changes.items() if value != getattr(item, name)}
        if other:
            item = self.alter(item, **other)
            self.updated(item)
        return item

    def note(self, item: Stored, **changes: Any) -> Stored:
        """Change only the engine's own notes on an object; no event, no new version."""
        return self.put(msgspec.structs.replace(item, **changes))

    def remove(self, item: msgspec.Struct) -> None:
        """Take a draft invoice or an invoice item out of the book for good."""
        identity = str(item.id)  # type: ignore[attr-defined]  # every stored noun has an id
        del self._writable(_MAPPING[type(item)])[identity]
        self.touched.pop(identity, None)

    def _writable(self, name: str) -> dict[str, Any]:
        mapping = self._copied.get(name)
        if mapping is None:
            mapping = dict(self._maps[name])
            self._copied[name] = mapping
            self._maps[name] = mapping
        return mapping

    # --- telling

    def emit(self, type_: str, item: msgspec.Struct) -> None:
        """Tell what happened to an object, as it now is."""
        self._append(type_, item, None)

    def updated(self, item: msgspec.Struct) -> None:
        """Tell an object's changes since it was last told, if there are any."""
        identity = item.id  # type: ignore[attr-defined]  # every stored noun has an id
        last = self._told.get(identity) or self._before.get(identity)
        if last is None or last is item:
            return
        previous = previous_attributes(last, item)
        if previous:
            self._append(f"{EVENT_PREFIX[type(item)]}.updated", item, previous)

    def stage(self, message: Message) -> None:
        """Have an e-mail sent, once what caused it is committed."""
        self.messages.append(message)

    def _append(self, type_: str, item: msgspec.Struct, previous: Mapping[str, Any] | None) -> None:
        self._told[item.id] = item  # type: ignore[attr-defined]  # every stored noun has an id
        self.events.append(Event(type_, self.now, self.customer.id, item, previous, self.cause))

    def end_step(self) -> None:
        """Tell what is still untold; what changes from here on is a further version.

        A command is one step, each wake-up is one. So it makes no difference how many wake-ups share a turn.
        """
        untold = [
            item
            for identity in self.touched
            if (item := self._current(identity)) is not None
            and item is not self._told.get(identity)
            and type(item) in EVENT_PREFIX
        ]
        # Not in the order of touching: that may depend on how much of the book was loaded.
        for item in sorted(untold, key=_telling_order) if len(untold) > 1 else untold:
            self.updated(item)
        self.touched.clear()
        self._versions.clear()

    def decision(self, result: msgspec.Struct | None = None) -> Decision:
        """Tell what is still untold and close the turn."""
        self.end_step()
        book = msgspec.structs.replace(self.book, customer=self.customer, **self._copied)
        return Decision(
            book=book,
            events=tuple(self.events),
            charges=tuple(self.charges),
            refunds=tuple(self.refunds_started),
            messages=tuple(self.messages),
            result=result,
        )

    def latest(self, item: Stored) -> Stored:
        """The object as it now is in the book; itself when it is not, or no longer, in it."""
        identity = item.id  # type: ignore[attr-defined]  # every stored noun has an id
        mapping: Mapping[str, Any] = {self.customer.id: self.customer}
        if not isinstance(item, Customer) and type(item) in _MAPPING:
            mapping = self._maps[_MAPPING[type(item)]]
        found: Stored = mapping.get(identity, item)
        return found

    def undoing(self, action: Callable[[], T]) -> T:
        """Carry out an action that leaves no trace when it is refused: its refusal is raised again."""
        kept = {name: _copy(getattr(self, name)) for name in self.__slots__}
        try:
            return action()
        except DomainError:
            for name, value in kept.items():
                setattr(self, name, value)
            self._copied = {name: dict(mapping) for name, mapping in kept["_copied"].items()}
            self._maps = {**kept["_maps"], **self._copied}
            raise

    def take_over(self, other: Turn) -> None:
        """Become what another turn on the same book has come to."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def _current(self, identity: str) -> msgspec.Struct | None:
        if identity == self.customer.id:
            return self.customer
        for mapping in self._copied.values():
            if identity in mapping:
                found: msgspec.Struct = mapping[identity]
                return found
        return None
