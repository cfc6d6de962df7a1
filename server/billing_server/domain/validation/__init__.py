"""What can be refused of a command without looking at any state: its fields by themselves, and together.

The rules stand in tables, one module for each noun. All violations are told at once, with the path of the
field as in the request ("items[2].quantity"). What depends on the book, the catalog or the customer's time is
judged by the decision itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from billing_server.domain.commands import Command, SettleAttempt, SettleRefund
from billing_server.domain.validation import (
    account,
    automation,
    catalog,
    customer,
    invoice,
    meter,
    schedule,
    subscription,
    webhook,
)
from billing_server.domain.validation.account import check_api_key
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape

__all__ = ["SHAPES", "check_api_key", "validate"]

_OF_THE_ENGINE: Final = (Shape(SettleAttempt), Shape(SettleRefund))

SHAPES: Final[Mapping[type, Shape]] = {
    shape.struct: shape
    for shapes in (
        account.SHAPES,
        catalog.SHAPES,
        meter.SHAPES,
        automation.SHAPES,
        customer.SHAPES,
        subscription.SHAPES,
        schedule.SHAPES,
        invoice.SHAPES,
        webhook.SHAPES,
        _OF_THE_ENGINE,
    )
    for shape in shapes
}
"""The rules of every command. The commands that the engine gives itself obey none: it made them."""


def validate(command: Command, now: int) -> None:
    """Refuse a command that could never succeed, whatever the state.

    `now` is in UTC seconds; times more than a hundred years after it are refused.

    Raises:
        InvalidArgument: with all violations.
    """
    findings = Findings(now)
    SHAPES[type(command)].check(command, findings)
    findings.raise_any()
