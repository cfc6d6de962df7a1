"""Conditions and actions of automations as they are typed: a kind, then its parameters.

subscription_interval,interval=yearly
invoice_amount,more_than=500.00
start_retry_policy,smart=8/two_months
cancel_subscription,after=7d
send_team_email,to=ops@example.com,memo=What the e-mail says, commas included
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import typer

from billing.v1.account_model_pb2 import RetryPolicy, RetryPolicyKind, RetryWindow
from billing.v1.automation_model_pb2 import (
    AutomationAction,
    AutomationActionType,
    AutomationBillingInterval,
    AutomationCondition,
    AutomationConditionType,
)
from billing_client.command_line.options import enum_value, money

CONDITION: Final = "--condition"
ACTION: Final = "--action"

_LENGTH: Final = re.compile(r"(\d{1,9})(s|min|h|d|w)?")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

Setter = Callable[[Any, str, str], None]
"""Sets a parameter from its text; the third argument is the account's default currency."""


def seconds(text: str, option: str) -> int:
    """A length of time such as 7d, 36h or 90min; a bare number is seconds."""
    matched = _LENGTH.fullmatch(text)
    if matched is None:
        raise typer.BadParameter(f"{text!r} is no length of time: write 90s, 15min, 36h, 7d or 2w.", param_hint=option)
    return int(matched[1]) * _SECONDS[matched[2] or "s"]


def condition(text: str, currency: str) -> AutomationCondition:
    """A condition as it was typed."""
    kind, parameters = _split(text)
    made = AutomationCondition(type=enum_value(AutomationConditionType, kind, CONDITION))
    _fill(made, parameters, _CONDITION_WORDS, CONDITION, currency)
    return made


def action(text: str, currency: str) -> AutomationAction:
    """An action as it was typed."""
    kind, parameters = _split(text)
    made = AutomationAction(type=enum_value(AutomationActionType, kind, ACTION))
    _fill(made, parameters, _ACTION_WORDS, ACTION, currency)
    if made.HasField("amount"):
        # The currency may be typed behind the amount, so amounts are read last.
        typed = next(value for word, value in parameters if word == "amount")
        made.currency = made.currency or currency
        made.amount = money(typed, made.currency, ACTION)
    return made


def retry_policy(text: str, option: str) -> RetryPolicy:
    """A policy: days such as 3/5/7, or a number of smart tries and their window, such as 8/two_months."""
    if any(character.isalpha() for character in text):
        return _smart(text, option)
    days = [_count(day, option) for day in text.split("/")] if text else []
    return RetryPolicy(kind=RetryPolicyKind.RETRY_POLICY_KIND_CUSTOM, retry_days=days)


def _smart(text: str, option: str) -> RetryPolicy:
    tries, _, window = text.partition("/")
    return RetryPolicy(
        kind=RetryPolicyKind.RETRY_POLICY_KIND_SMART,
        max_retries=_count(tries, option),
        window=enum_value(RetryWindow, window, option),
    )


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The kind, and names and texts of the parameters; a memo is all that follows it."""
    kind, _, rest = text.partition(",")
    found = []
    while rest:
        word, _, rest = rest.partition("=")
        value, rest = (rest, "") if word.strip() == "memo" else _partition(rest)
        found.append((word.strip(), value))
    return kind, found


def _partition(text: str) -> tuple[str, str]:
    value, _, rest = text.partition(",")
    return value, rest


def _fill(
    made: Any, parameters: Sequence[tuple[str, str]], words: Mapping[str, Setter], option: str, currency: str
) -> None:
    for word, value in parameters:
        setter = words.get(word)
        if setter is None:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(words)}.", param_hint=option)
        setter(made, value, currency)


def _count(text: str, option: str) -> int:
    if not text.isdigit():
        raise typer.BadParameter(f"{text!r} is not a whole number.", param_hint=option)
    return int(text)


def _text(name: str) -> Setter:
    def setter(made: Any, value: str, _currency: str) -> None:
        setattr(made, name, value)

    return setter


def _texts(name: str) -> Setter:
    """Several values with + in between."""

    def setter(made: Any, value: str, _currency: str) -> None:
        getattr(made, name).extend(value.split("+"))

    return setter


def _add_recipient(made: Any, value: str, _currency: str) -> None:
    """One address, which may have a + of its own; the parameter may be repeated."""
    made.recipients.append(value)


def _bound(name: str) -> Setter:
    def setter(made: Any, value: str, currency: str) -> None:
        setattr(made, name, money(value, currency, CONDITION))

    return setter


def _set_interval(made: Any, value: str, _currency: str) -> None:
    made.interval = enum_value(AutomationBillingInterval, value, CONDITION)


def _set_delay(made: Any, value: str, _currency: str) -> None:
    made.delay_seconds = seconds(value, ACTION)


def _set_before_due(made: Any, value: str, _currency: str) -> None:
    made.before_due_seconds = seconds(value, ACTION)


def _set_days(made: Any, value: str, _currency: str) -> None:
    days = [_count(day, ACTION) for day in value.split("/")] if value else []
    made.retry_policy.CopyFrom(RetryPolicy(kind=RetryPolicyKind.RETRY_POLICY_KIND_CUSTOM, retry_days=days))


def _set_smart(made: Any, value: str, _currency: str) -> None:
    made.retry_policy.CopyFrom(_smart(value, ACTION))


def _set_quantity(made: Any, value: str, _currency: str) -> None:
    made.quantity = _count(value, ACTION)


def _note_amount(made: Any, _value: str, _currency: str) -> None:
    made.amount = 0


_CONDITION_WORDS: Final[Mapping[str, Setter]] = {
    "key": _text("key"),
    "value": _text("value"),
    "more_than": _bound("more_than"),
    "less_than": _bound("less_than"),
    "interval": _set_interval,
    "products": _texts("products"),
    "prices": _texts("prices"),
    "segments": _texts("segments"),
}
_ACTION_WORDS: Final[Mapping[str, Setter]] = {
    "after": _set_delay,
    "before_due": _set_before_due,
    "days": _set_days,
    "smart": _set_smart,
    "to": _add_recipient,
    "memo": _text("memo"),
    "survey": _text("survey_url"),
    "price": _text("price"),
    "quantity": _set_quantity,
    "amount": _note_amount,
    "currency": _text("currency"),
}
