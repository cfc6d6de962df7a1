"""Which automation runs: conditions against what happened, and the first automation whose conditions all hold.

Pure reading, shared by the rules, by dry runs and by backtests. Each condition says why it holds or does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from billing_server.domain.account import Settings
from billing_server.domain.automation import SEGMENT_KEY, Automation, Condition, ConditionType, Trigger
from billing_server.domain.catalog import Catalog, Price
from billing_server.domain.customer import Customer
from billing_server.domain.invoice import Invoice
from billing_server.domain.money import format_amount, minor_unit_exponent
from billing_server.domain.pricing import amount_for_quantity
from billing_server.domain.subscription import Subscription


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger is about, and what its conditions are judged by."""

    customer: Customer
    invoice: Invoice | None = None
    subscription: Subscription | None = None
    settings: Settings
    catalog: Catalog


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a condition holds, and why: in words, with the values that were compared."""

    condition: Condition
    holds: bool
    explanation: str


def candidates(automations: Iterable[Automation], trigger: Trigger) -> list[Automation]:
    """The automations that a trigger may start, in the order in which they are asked."""
    able = [found for found in automations if found.trigger == trigger and found.enabled and not found.deleted]
    return sorted(able, key=lambda found: (found.priority, found.id))


def match(automations: Iterable[Automation], trigger: Trigger, subject: Subject) -> Automation | None:
    """The automation that runs: the first by priority whose conditions all hold; None when there is none."""
    for automation in candidates(automations, trigger):
        if all(evaluate(condition, subject).holds for condition in automation.conditions):
            return automation
    return None


def evaluate(condition: Condition, subject: Subject) -> Evaluation:
    """Whether one condition holds for the subject."""
    holds, explanation = _JUDGES[condition.type](condition, subject)
    return Evaluation(condition=condition, holds=holds, explanation=explanation)


_Verdict = tuple[bool, str]


# --- metadata


def _customer_metadata(condition: Condition, subject: Subject) -> _Verdict:
    return _has_entry("the customer's", subject.customer.metadata, condition)


def _invoice_metadata(condition: Condition, subject: Subject) -> _Verdict:
    if subject.invoice is None:
        return False, "there is no invoice"
    return _has_entry("the invoice's", subject.invoice.metadata, condition)


def _has_entry(whose: str, metadata: Mapping[str, str], condition: Condition) -> _Verdict:
    found = metadata.get(condition.key or "")
    if found is None:
        return False, f"{whose} metadata have no '{condition.key}'"
    return found == condition.value, f"{whose} metadata have '{condition.key}' = '{found}'"


def _customer_segment(condition: Condition, subject: Subject) -> _Verdict:
    segment = subject.customer.metadata.get(SEGMENT_KEY)
    if segment is None:
        return False, f"the customer is in no segment (metadata '{SEGMENT_KEY}')"
    return segment in condition.segments, f"the customer is in the segment '{segment}'"


# --- amounts


def _invoice_amount(condition: Condition, subject: Subject) -> _Verdict:
    if subject.invoice is None:
        return False, "there is no invoice"
    return _within(condition, subject.invoice.amount_due, subject.invoice.currency, subject.settings)


def _subscription_amount(condition: Condition, subject: Subject) -> _Verdict:
    subscription = subject.subscription
    if subscription is None:
        return False, "there is no subscription"
    return _within(condition, period_amount(subscription, subject.catalog), subscription.currency, subject.settings)


def period_amount(subscription: Subscription, catalog: Catalog) -> int:
    """What a whole period of the subscription costs, in minor units of its currency; usage is not known ahead."""
    seen = catalog.in_currency(subscription.currency)
    return sum(
        amount_for_quantity(seen.price(item.price), item.quantity)
        for item in subscription.items
        if item.quantity is not None
    )


def _within(condition: Condition, amount: int, currency: str, settings: Settings) -> _Verdict:
    converted = in_default_currency(amount, currency, settings)
    if converted is None:
        return False, f"there is no exchange rate from {currency} to {settings.default_currency} in the settings"
    above = condition.more_than is None or converted > condition.more_than
    below = condition.less_than is None or converted < condition.less_than
    told = format_amount(amount, currency)
    if currency != settings.default_currency:
        told = f"{told}, worth {converted.normalize():f} minor units of {settings.default_currency}"
    return above and below, f"the amount is {told}"


def in_default_currency(amount: int, currency: str, settings: Settings) -> Decimal | None:
    """An amount of minor units in exact minor units of the account's default currency; None without a rate."""
    default = settings.default_currency
    if currency == default:
        return Decimal(amount)
    rate = settings.exchange_rates.get(currency)
    if rate is None:
        return None
    return (Decimal(amount) * rate).scaleb(minor_unit_exponent(default) - minor_unit_exponent(currency))


# --- what is sold


def _subscription_interval(condition: Condition, subject: Subject) -> _Verdict:
    subscription = subject.subscription
    if subscription is None:
        return False, "there is no subscription"
    interval, count = subscription.interval, subscription.interval_count
    months = {"month": count, "year": 12 * count}.get(interval)
    wanted = 1 if condition.interval == "monthly" else 12
    return months == wanted, f"the subscription is billed every {count} {interval}"


def _product(condition: Condition, subject: Subject) -> _Verdict:
    return _any_of("product", condition.products, [price.product for price in _prices(subject)])


def _price(condition: Condition, subject: Subject) -> _Verdict:
    return _any_of("price", condition.prices, [price.id for price in _prices(subject)])


def _prices(subject: Subject) -> list[Price]:
    """The prices on the invoice; on the subscription when there is no invoice, or none with prices."""
    found = [] if subject.invoice is None else [line.price for line in subject.invoice.lines if line.price is not None]
    if not found and subject.subscription is not None:
        found = [item.price for item in subject.subscription.items]
    return [subject.catalog.price(price) for price in dict.fromkeys(found)]


def _any_of(what: str, wanted: tuple[str, ...], found: list[str]) -> _Verdict:
    there = list(dict.fromkeys(found))
    if not there:
        return False, f"there is no {what}"
    return not set(wanted).isdisjoint(there), f"the {what}s are {', '.join(there)}"


_JUDGES: Final[Mapping[ConditionType, Callable[[Condition, Subject], _Verdict]]] = {
    "customer_metadata": _customer_metadata,
    "customer_segment": _customer_segment,
    "invoice_metadata": _invoice_metadata,
    "invoice_amount": _invoice_amount,
    "subscription_amount": _subscription_amount,
    "subscription_interval": _subscription_interval,
    "product": _product,
    "price": _price,
}
