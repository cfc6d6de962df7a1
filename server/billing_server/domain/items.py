"""The items of a subscription: checked against the catalog, new or changed (semantics 1 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from billing_server.domain.catalog import Price, Recurring
from billing_server.domain.commands import ItemChange, ItemParams
from billing_server.domain.errors import InvalidArgument, ResourceMissing, Violation, WrongState, invalid
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.schedule import PhaseItem
from billing_server.domain.subscription import SubscriptionItem
from billing_server.domain.turn import Turn

ITEMS_MAX = 20
"""Items per subscription (semantics 1)."""


def new_items(turn: Turn, params: Sequence[ItemParams | PhaseItem]) -> tuple[SubscriptionItem, ...]:
    """The items of a new subscription, or those that a phase of a schedule will have."""
    items = []
    for index, entry in enumerate(params):
        price = _recurring_price(turn, entry.price, f"items[{index}].price")
        items.append(
            SubscriptionItem(
                id=turn.new_id("si"),
                created=turn.now,
                price=price.id,
                quantity=_quantity(price, entry.quantity, f"items[{index}].quantity"),
                metadata=initial_metadata(entry.metadata),
            )
        )
    _check_together(turn, items, {item.id: f"items[{index}]" for index, item in enumerate(items)})
    return tuple(items)


def changed_items(
    turn: Turn, current: Sequence[SubscriptionItem], changes: Sequence[ItemChange]
) -> tuple[SubscriptionItem, ...]:
    """The items after a change: by id changed or deleted, without an id added; the others stay."""
    items = {item.id: item for item in current}
    named: dict[str, str] = {}
    for index, change in enumerate(changes):
        field = f"items[{index}]"
        if change.id is None:
            named[_add(turn, items, change, field)] = field
            continue
        if change.id in named:
            raise invalid(f"{field}.id", "parameters_exclusive", "the same item is changed twice; name it once")
        named[change.id] = field
        if change.id not in items:
            raise ResourceMissing("subscription_item", change.id, field=f"{field}.id")
        if change.deleted:
            del items[change.id]
        else:
            items[change.id] = _changed(turn, items[change.id], change, field)
    _check_together(turn, list(items.values()), named)
    return tuple(items.values())


def _add(turn: Turn, items: dict[str, SubscriptionItem], change: ItemChange, field: str) -> str:
    """Add an item; the answer is its id."""
    if change.deleted:
        raise invalid(f"{field}.id", "parameter_missing", "name the item that is to be deleted")
    if change.price is None:
        raise invalid(f"{field}.price", "parameter_missing", "a new item needs a price; to change an item give its id")
    price = _recurring_price(turn, change.price, f"{field}.price")
    item = SubscriptionItem(
        id=turn.new_id("si"),
        created=turn.now,
        price=price.id,
        quantity=_quantity(price, change.quantity, f"{field}.quantity"),
        metadata={} if change.metadata is UNSET else initial_metadata(change.metadata),
    )
    items[item.id] = item
    return item.id


def _changed(turn: Turn, item: SubscriptionItem, change: ItemChange, field: str) -> SubscriptionItem:
    """A new price without a quantity resets the quantity to 1 (semantics 5)."""
    price_changes = change.price is not None and change.price != item.price
    price = (
        _recurring_price(turn, str(change.price), f"{field}.price") if price_changes else turn.catalog.price(item.price)
    )
    quantity = item.quantity
    if price_changes or change.quantity is not None:
        quantity = _quantity(price, change.quantity, f"{field}.quantity")
    metadata = item.metadata if change.metadata is UNSET else merged_metadata(item.metadata, change.metadata)
    return msgspec.structs.replace(item, price=price.id, quantity=quantity, metadata=metadata)


def _check_together(turn: Turn, items: Sequence[SubscriptionItem], asked: Mapping[str, str]) -> None:
    """Refuse items that cannot be billed by one subscription.

    `asked` says by which field of the request an item was asked for. One that is only there already is not to blame:
    of two that do not go together, the one that was asked for is.
    """
    if not items:
        raise invalid("items", "parameter_invalid_empty", "a subscription needs at least one item; to end it cancel it")
    if len(items) > ITEMS_MAX:
        raise invalid("items", "parameter_invalid", f"a subscription has at most {ITEMS_MAX} items")
    first = turn.catalog.price(items[0].price)
    seen: dict[str, SubscriptionItem] = {}
    violations = []

    def field(item: SubscriptionItem, other: SubscriptionItem) -> str:
        place = asked.get(item.id, asked.get(other.id))
        return "items" if place is None else f"{place}.price"

    for item in items:
        price = turn.catalog.price(item.price)
        if item.price in seen:
            violations.append(
                Violation(
                    field(item, seen[item.price]),
                    "parameters_exclusive",
                    f"the price '{item.price}' stands twice; use one item with the sum of the quantities",
                )
            )
        seen[item.price] = item
        if price.currency != first.currency:
            violations.append(
                Violation(
                    field(item, items[0]),
                    "currency_mismatch",
                    f"all items share one currency: {price.currency} beside {first.currency}",
                )
            )
        if _cycle(price) != _cycle(first):
            violations.append(
                Violation(
                    field(item, items[0]),
                    "interval_mismatch",
                    "all items of a subscription share interval and interval_count; use a second subscription",
                )
            )
    if violations:
        raise InvalidArgument(*violations)


def recurring(price: Price) -> Recurring:
    """The recurrence of a price that is known to recur."""
    if price.recurring is None:
        raise AssertionError(f"price {price.id} does not recur")
    return price.recurring


def is_free(turn: Turn, items: Sequence[SubscriptionItem]) -> bool:
    """Whether no quantity of these items would ever cost anything."""
    return all(_free(turn.catalog.price(item.price)) for item in items)


def _free(price: Price) -> bool:
    if price.billing_scheme == "per_unit":
        return not price.unit_amount
    return all(not tier.unit_amount and not tier.flat_amount for tier in price.tiers)


def _cycle(price: Price) -> tuple[str, int]:
    return recurring(price).interval, recurring(price).interval_count


def _recurring_price(turn: Turn, price_id: str, field: str) -> Price:
    price = turn.catalog.price(price_id, field)
    if price.recurring is None:
        raise invalid(
            field,
            "price_type_invalid",
            "an item needs a recurring price; bill one_time prices by add_invoice_items",
        )
    if not turn.by_time and not (price.active and turn.catalog.products[price.product].active):
        raise WrongState(
            "price_inactive",
            f"the price '{price_id}' or its product is not active; activate it or use another",
            field=field,
        )
    return price


def _quantity(price: Price, quantity: int | None, field: str) -> int | None:
    if price.metered:
        if quantity is not None:
            raise invalid(field, "parameter_invalid", "metered prices are billed by usage and take no quantity")
        return None
    return 1 if quantity is None else quantity
