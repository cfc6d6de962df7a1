"""What changes of the account's own pages lead to: its settings, products, prices, meters and automations."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from billing_server.domain.account import Account
from billing_server.domain.automation import Automation
from billing_server.domain.automation_pages import AUTOMATION_COMMANDS, AutomationOrder, decide_automations
from billing_server.domain.catalog import Price, Product
from billing_server.domain.commands import (
    Command,
    CreateMeter,
    CreatePrice,
    CreateProduct,
    DeactivateMeter,
    ReactivateMeter,
    UpdateMeter,
    UpdatePrice,
    UpdateProduct,
    UpdateSettings,
)
from billing_server.domain.errors import AlreadyExists, WrongState, invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.event import Cause, Event, previous_attributes
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.meter import Meter, MeterStatus
from billing_server.domain.turn import NewId, Pages

_COPIED_TO_PRODUCT = ("name", "active", "description", "statement_descriptor", "unit_label")
_COPIED_TO_PRICE = (
    "product",
    "currency",
    "active",
    "nickname",
    "billing_scheme",
    "unit_amount",
    "recurring",
    "tiers",
    "tiers_mode",
    "transform_quantity",
    "lookup_key",
    "tax_behavior",
    "currency_options",
)
_COPIED_TO_METER = ("display_name", "event_name", "formula", "event_time_window")
_CHANGEABLE_PRODUCT = (*_COPIED_TO_PRODUCT, "default_price")
_CHANGEABLE_PRICE = ("active", "nickname", "lookup_key", "tax_behavior")

Page = Account | Product | Price | Meter | Automation
"""What stands on an account's pages."""


class PagesDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a command about the pages leads to. Of all but the account, what is new or changed.

    `account` is None when it does not change. `result` is the object the command was about, as it is now.
    """

    account: Account | None = None
    products: tuple[Product, ...] = ()
    prices: tuple[Price, ...] = ()
    meters: tuple[Meter, ...] = ()
    automations: tuple[Automation, ...] = ()
    events: tuple[Event, ...] = ()
    result: Page | AutomationOrder


class _Desk:
    """One decision in the making: the pages as they are, and what has been told of them."""

    __slots__ = ("_cause", "account", "catalog", "events", "new_id", "now")

    def __init__(self, pages: Pages, now: int, new_id: NewId, cause: Cause) -> None:
        self.account = pages.account
        self.catalog = pages.catalog
        self.now = now
        self.new_id = new_id
        self._cause = cause
        self.events: list[Event] = []

    def tell(self, type_: str, item: Page) -> None:
        """Tell what happened to an object, as it now is."""
        self.events.append(Event(type_, self.now, None, item, None, self._cause))

    def created(self, noun: str, item: Page) -> None:
        """Tell of a new object."""
        self.tell(f"{noun}.created", item)

    def updated(self, noun: str, before: Page, after: Page) -> None:
        """Tell what has changed of an object."""
        previous = previous_attributes(before, after)
        self.events.append(Event(f"{noun}.updated", self.now, None, after, previous, self._cause))


PAGE_COMMANDS = (
    UpdateSettings,
    CreateProduct,
    UpdateProduct,
    CreatePrice,
    UpdatePrice,
    CreateMeter,
    UpdateMeter,
    DeactivateMeter,
    ReactivateMeter,
    *AUTOMATION_COMMANDS,
)
"""Commands about the account's pages instead of a customer's book."""


def is_about_pages(command: Command) -> bool:
    """Whether a command is decided here, and not about a customer's book."""
    return isinstance(command, PAGE_COMMANDS)


def decide_pages(pages: Pages, command: Command, *, now: int, new_id: NewId, cause: Cause) -> PagesDecision:
    """What a validated command about the account's pages leads to.

    A change that changes nothing leads to no event and no new version.

    Raises:
        ResourceMissing: what the command names does not exist.
        Conflict: the etag is that of another version.
        AlreadyExists: the lookup key is another price's, or the event name another active meter's.
        WrongState: a default price, or the meter of a new price, would be inactive.
        InvalidArgument: a default price of another product, exchange rates in another currency, or too many
            keys of metadata after a merge.
        LimitReached: there are too many automations.

    See `decide_automations` for what else is refused of these.
    """
    desk = _Desk(pages, now, new_id, cause)
    match command:
        case UpdateSettings():
            return _update_settings(desk, command)
        case CreateProduct():
            return _create_product(desk, command)
        case UpdateProduct():
            return _update_product(desk, command)
        case CreatePrice():
            return _create_price(desk, command)
        case UpdatePrice():
            return _update_price(desk, command)
        case CreateMeter():
            return _create_meter(desk, command)
        case UpdateMeter():
            return _update_meter(desk, command)
        case DeactivateMeter() | ReactivateMeter():
            return _switch_meter(desk, command)
    if isinstance(command, AUTOMATION_COMMANDS):
        decided = decide_automations(pages, command, desk, now=now, new_id=new_id)
        return PagesDecision(automations=decided.automations, events=tuple(desk.events), result=decided.result)
    raise AssertionError(f"{type(command).__name__} is not about the account's pages")


# --- settings


def _update_settings(desk: _Desk, command: UpdateSettings) -> PagesDecision:
    account = desk.account
    check_etag(command.etag, account.version)
    changes = _changes(account.settings, command, account.settings.__struct_fields__)
    if not changes:
        return PagesDecision(result=account)
    _check_exchange_rates(account, changes)
    settings = msgspec.structs.replace(account.settings, **changes)
    after = msgspec.structs.replace(account, settings=settings, version=account.version + 1)
    desk.updated("account", account, after)
    return PagesDecision(account=after, events=tuple(desk.events), result=after)


def _check_exchange_rates(account: Account, changes: dict[str, Any]) -> None:
    """Rates are in the default currency: a new currency needs new rates, and is itself worth 1."""
    currency = changes.get("default_currency", account.settings.default_currency)
    rates = changes.get("exchange_rates", account.settings.exchange_rates)
    if "default_currency" in changes and "exchange_rates" not in changes and rates:
        raise invalid(
            "exchange_rates",
            "parameter_missing",
            f"the rates there are say values in {account.settings.default_currency}; give those in {currency} with it",
        )
    if rates.get(currency, 1) != 1:
        raise invalid(
            f"exchange_rates[{currency}]", "parameter_invalid", f"one {currency} is worth one {currency}; leave it out"
        )


# --- products


def _create_product(desk: _Desk, command: CreateProduct) -> PagesDecision:
    product = Product(
        id=desk.new_id("prod"),
        created=desk.now,
        metadata=initial_metadata(command.metadata),
        **{name: getattr(command, name) for name in _COPIED_TO_PRODUCT},
    )
    desk.created("product", product)
    return PagesDecision(products=(product,), events=tuple(desk.events), result=product)


def _update_product(desk: _Desk, command: UpdateProduct) -> PagesDecision:
    product = desk.catalog.product(command.id, "id")
    check_etag(command.etag, product.version)
    changes = _changes(product, command, _CHANGEABLE_PRODUCT)
    if changes.get("default_price") is not None:
        _check_default_price(desk, product, changes["default_price"])
    if not changes:
        return PagesDecision(result=product)
    after = msgspec.structs.replace(product, version=product.version + 1, **changes)
    desk.updated("product", product, after)
    return PagesDecision(products=(after,), events=tuple(desk.events), result=after)


def _check_default_price(desk: _Desk, product: Product, price_id: str) -> None:
    price = desk.catalog.price(price_id, "default_price")
    if price.product != product.id:
        raise invalid(
            "default_price",
            "parameter_invalid",
            f"must be a price of this product; '{price_id}' is of '{price.product}'",
        )
    if not price.active:
        raise WrongState(
            "price_inactive",
            f"the price '{price_id}' is not active; activate it or choose another",
            subject=price_id,
            field="default_price",
        )


# --- prices


def _create_price(desk: _Desk, command: CreatePrice) -> PagesDecision:
    """Inactive products may get prices: they are made ready before they are offered."""
    desk.catalog.product(command.product)
    if command.recurring is not None and command.recurring.meter is not None:
        _check_meter(desk, command.recurring.meter)
    loser = _take_lookup_key(desk, command.lookup_key, command.transfer_lookup_key)
    price = Price(
        id=desk.new_id("price"),
        created=desk.now,
        type="one_time" if command.recurring is None else "recurring",
        metadata=initial_metadata(command.metadata),
        **{name: getattr(command, name) for name in _COPIED_TO_PRICE},
    )
    desk.created("price", price)
    return PagesDecision(prices=(*loser, price), events=tuple(desk.events), result=price)


def _update_price(desk: _Desk, command: UpdatePrice) -> PagesDecision:
    price = desk.catalog.price(command.id, "id")
    check_etag(command.etag, price.version)
    changes = _changes(price, command, _CHANGEABLE_PRICE)
    if changes.get("active") is False:
        _check_not_default(desk, price)
    loser = _take_lookup_key(desk, changes.get("lookup_key"), command.transfer_lookup_key)
    if not changes:
        return PagesDecision(result=price)
    after = msgspec.structs.replace(price, version=price.version + 1, **changes)
    desk.updated("price", price, after)
    return PagesDecision(prices=(*loser, after), events=tuple(desk.events), result=after)


def _check_not_default(desk: _Desk, price: Price) -> None:
    product = desk.catalog.products.get(price.product)
    if product is not None and product.default_price == price.id:
        raise WrongState(
            "price_in_use",
            f"'{price.id}' is the default price of '{product.id}'; change the product's default_price first",
            subject=price.id,
            field="active",
        )


def _take_lookup_key(desk: _Desk, key: str | None, transfer: bool) -> tuple[Price, ...]:
    """Make a lookup key free: refused while another price has it, active or not, unless it may be taken away."""
    if key is None:
        return ()
    holder = next((price for price in desk.catalog.prices.values() if price.lookup_key == key), None)
    if holder is None:
        return ()
    if not transfer:
        raise AlreadyExists(
            "resource_already_exists",
            f"the price '{holder.id}' has the lookup key '{key}'; take it away by transfer_lookup_key",
            field="lookup_key",
        )
    loser = msgspec.structs.replace(holder, lookup_key=None, version=holder.version + 1)
    desk.updated("price", holder, loser)
    return (loser,)


# --- meters


def _check_meter(desk: _Desk, meter_id: str) -> None:
    """A new price bills a meter that takes events."""
    if desk.catalog.meter(meter_id, "recurring.meter").status != "active":
        raise WrongState(
            "meter_inactive",
            f"the meter '{meter_id}' is inactive; reactivate it or use another",
            subject=meter_id,
            field="recurring.meter",
        )


def _create_meter(desk: _Desk, command: CreateMeter) -> PagesDecision:
    _check_event_name(desk, command.event_name, "event_name")
    meter = Meter(
        id=desk.new_id("mtr"),
        created=desk.now,
        metadata=initial_metadata(command.metadata),
        **{name: getattr(command, name) for name in _COPIED_TO_METER},
    )
    desk.created("billing.meter", meter)
    return PagesDecision(meters=(meter,), events=tuple(desk.events), result=meter)


def _check_event_name(desk: _Desk, event_name: str, field: str) -> None:
    """An event is counted by one meter, so no two active ones share a name."""
    holder = desk.catalog.meters_by_event_name.get(event_name)
    if holder is not None and holder.status == "active":
        raise AlreadyExists(
            "resource_already_exists",
            f"the meter '{holder.id}' counts the events '{event_name}'; deactivate it, or choose another name",
            field=field,
        )


def _update_meter(desk: _Desk, command: UpdateMeter) -> PagesDecision:
    meter = desk.catalog.meter(command.id, "id")
    check_etag(command.etag, meter.version)
    changes = _changes(meter, command, ("display_name",))
    if not changes:
        return PagesDecision(result=meter)
    after = msgspec.structs.replace(meter, version=meter.version + 1, **changes)
    desk.updated("billing.meter", meter, after)
    return PagesDecision(meters=(after,), events=tuple(desk.events), result=after)


def _switch_meter(desk: _Desk, command: DeactivateMeter | ReactivateMeter) -> PagesDecision:
    """Take no more events for a meter, or take them again; switching it twice changes nothing."""
    meter = desk.catalog.meter(command.id, "id")
    wanted: MeterStatus = "inactive" if isinstance(command, DeactivateMeter) else "active"
    if meter.status == wanted:
        return PagesDecision(result=meter)
    if wanted == "active":
        _check_event_name(desk, meter.event_name, "id")
    after = msgspec.structs.replace(
        meter,
        status=wanted,
        deactivated_at=desk.now if wanted == "inactive" else None,
        version=meter.version + 1,
    )
    desk.tell("billing.meter.deactivated" if wanted == "inactive" else "billing.meter.reactivated", after)
    return PagesDecision(meters=(after,), events=tuple(desk.events), result=after)


def _changes(current: msgspec.Struct, command: Command, names: tuple[str, ...]) -> dict[str, Any]:
    """What an update really changes of the named fields and the metadata."""
    wished = {name: getattr(command, name) for name in names if getattr(command, name) is not UNSET}
    metadata = getattr(command, "metadata", UNSET)
    if metadata is not UNSET:
        wished["metadata"] = merged_metadata(getattr(current, "metadata", {}), metadata)
    return {name: value for name, value in wished.items() if value != getattr(current, name)}
