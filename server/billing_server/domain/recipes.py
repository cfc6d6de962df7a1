"""Recipes: named automations that are common, each with a few parameters (semantics 8.6).

A recipe says what to create; what it creates is judged like any other automation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from billing_server.domain.account import Settings
from billing_server.domain.automation import Action, Condition, Trigger
from billing_server.domain.calendar import DAY
from billing_server.domain.dunning import SMART_RETRIES_MAX, RetryPolicy
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.domain.money import format_amount

ANNUAL_DUNNING: Final = "annual_subscription_dunning"
HIGH_VALUE_OVERDUE: Final = "high_value_overdue_notice"
CANCELLATION_CONFIRMATION: Final = "cancellation_confirmation"
NEW_CUSTOMER_CREDIT: Final = "new_customer_credit"

_DUNNING_POLICY: Final = RetryPolicy(kind="smart", max_retries=SMART_RETRIES_MAX, window="two_months")
_GRACE_SECONDS: Final = 7 * DAY
_HIGH_VALUE: Final = 50_000
_CREDIT: Final = 1_000


class RecipeParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe may be told; each takes some of these, and refuses the others.

    `more_than` and `amount` are minor units, of the account's default currency and of `currency`.
    """

    retry_policy: RetryPolicy | None = None
    grace_seconds: int | None = None
    more_than: int | None = None
    recipients: tuple[str, ...] = ()
    memo: str | None = None
    conditions: tuple[Condition, ...] = ()
    survey_url: str | None = None
    price: str | None = None
    amount: int | None = None
    currency: str | None = None


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a recipe: a field of `RecipeParameters`, what it is for, and its default in words."""

    name: str
    description: str
    required: bool = False
    default: str | None = None


Build = Callable[[RecipeParameters, Settings], tuple[tuple[Condition, ...], tuple[Action, ...]]]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A named automation: its trigger, its parameters, and how they make conditions and actions."""

    name: str
    title: str
    description: str
    trigger: Trigger
    parameters: tuple[Parameter, ...]
    build: Build


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe makes of its parameters."""

    title: str
    trigger: Trigger
    conditions: tuple[Condition, ...]
    actions: tuple[Action, ...]


def _dunning(given: RecipeParameters, _settings: Settings) -> tuple[tuple[Condition, ...], tuple[Action, ...]]:
    grace = _GRACE_SECONDS if given.grace_seconds is None else given.grace_seconds
    return (Condition(type="subscription_interval", interval="yearly"),), (
        Action(type="start_retry_policy", retry_policy=given.retry_policy or _DUNNING_POLICY),
        Action(type="cancel_subscription", delay_seconds=grace),
        Action(type="mark_invoice_uncollectible"),
    )


def _overdue_notice(given: RecipeParameters, settings: Settings) -> tuple[tuple[Condition, ...], tuple[Action, ...]]:
    more_than = _HIGH_VALUE if given.more_than is None else given.more_than
    memo = given.memo or f"An invoice over {format_amount(more_than, settings.default_currency)} is overdue."
    return (Condition(type="invoice_amount", more_than=more_than),), (
        Action(type="send_team_email", recipients=given.recipients, memo=memo),
    )


def _confirmation(given: RecipeParameters, _settings: Settings) -> tuple[tuple[Condition, ...], tuple[Action, ...]]:
    return given.conditions, (Action(type="send_cancellation_email", survey_url=given.survey_url),)


def _credit(given: RecipeParameters, settings: Settings) -> tuple[tuple[Condition, ...], tuple[Action, ...]]:
    credit = Action(
        type="credit_customer_balance",
        amount=_CREDIT if given.amount is None else given.amount,
        currency=given.currency or settings.default_currency,
    )
    if given.price is None:
        return given.conditions, (credit,)
    return given.conditions, (Action(type="create_subscription", price=given.price), credit)


_FILTERS: Final = Parameter(name="conditions", description="Further conditions, which must go with the trigger.")

RECIPES: Final[Mapping[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name=ANNUAL_DUNNING,
            title="Annual subscription dunning",
            description=(
                "When the payment of a yearly subscription fails, tries again for two months, leaves some days for "
                "talking to the customer, then cancels the subscription and gives up the invoice."
            ),
            trigger="subscription_payment_fails",
            parameters=(
                Parameter(
                    name="retry_policy",
                    description="When the payment is tried again.",
                    default="smart, 8 tries within two months",
                ),
                Parameter(
                    name="grace_seconds",
                    description="From the last try to the cancellation.",
                    default=f"{_GRACE_SECONDS} (7 days)",
                ),
            ),
            build=_dunning,
        ),
        Recipe(
            name=HIGH_VALUE_OVERDUE,
            title="Notify collections of high-value late invoices",
            description="When an invoice over an amount is overdue, tells people of the company by e-mail.",
            trigger="invoice_overdue",
            parameters=(
                Parameter(
                    name="recipients",
                    description="E-mail addresses on the company's domain or among its team users.",
                    required=True,
                ),
                Parameter(
                    name="more_than",
                    description="The amount above which it tells, in minor units of the default currency.",
                    default=str(_HIGH_VALUE),
                ),
                Parameter(
                    name="memo",
                    description="What the e-mail says.",
                    default="An invoice over that amount is overdue.",
                ),
            ),
            build=_overdue_notice,
        ),
        Recipe(
            name=CANCELLATION_CONFIRMATION,
            title="Subscription cancellation confirmation",
            description=(
                "When a subscription has ended, confirms that to the customer by e-mail, with its details, the date, "
                "and a link to a survey where one is given."
            ),
            trigger="subscription_canceled",
            parameters=(
                Parameter(name="survey_url", description="Where the customer may say why; an https address."),
                _FILTERS,
            ),
            build=_confirmation,
        ),
        Recipe(
            name=NEW_CUSTOMER_CREDIT,
            title="New customer spend credit",
            description="Gives a new customer a credit to spend, and a subscription where a price is given.",
            trigger="customer_created",
            parameters=(
                Parameter(
                    name="amount",
                    description="The credit, in minor units of the currency.",
                    default=str(_CREDIT),
                ),
                Parameter(
                    name="currency", description="The credit's currency.", default="the account's default currency"
                ),
                Parameter(name="price", description="Id of a recurring price to subscribe the customer to."),
                _FILTERS,
            ),
            build=_credit,
        ),
    )
}
"""All recipes by name."""


def definition(name: str, given: RecipeParameters, settings: Settings) -> Definition:
    """What a recipe makes of the parameters that it was given.

    Raises:
        InvalidArgument: with all violations: no such recipe, parameters that it does not take or that are missing.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise InvalidArgument(Violation("recipe", "parameter_unknown", f"must be one of {', '.join(RECIPES)}"))
    _check_given(recipe, given)
    conditions, actions = recipe.build(given, settings)
    return Definition(title=recipe.title, trigger=recipe.trigger, conditions=conditions, actions=actions)


def _check_given(recipe: Recipe, given: RecipeParameters) -> None:
    taken = {parameter.name: parameter.required for parameter in recipe.parameters}
    violations = []
    for field in given.__struct_fields__:
        there = getattr(given, field) not in (None, ())
        if there and field not in taken:
            takes = f"{recipe.name} takes {', '.join(taken)}"
            violations.append(Violation(f"parameters.{field}", "parameter_unknown", f"{takes}; leave it out"))
        elif not there and taken.get(field):
            violations.append(Violation(f"parameters.{field}", "parameter_missing", f"{recipe.name} needs it"))
    if violations:
        raise InvalidArgument(*violations)
