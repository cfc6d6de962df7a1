"""What the load knows of the account that it works on: its prices, clocks and customers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.account_model_pb2 import RETRY_POLICY_KIND_CUSTOM, RetryPolicy
from billing.v1.account_service_pb2 import UpdateSettingsRequest
from billing.v1.automation_model_pb2 import (
    AUTOMATION_ACTION_TYPE_CANCEL_SUBSCRIPTION,
    AUTOMATION_ACTION_TYPE_MARK_INVOICE_UNCOLLECTIBLE,
    AUTOMATION_ACTION_TYPE_START_RETRY_POLICY,
    AUTOMATION_TRIGGER_SUBSCRIPTION_PAYMENT_FAILS,
    AutomationAction,
)
from billing.v1.automation_service_pb2 import CreateAutomationFromRecipeRequest, CreateAutomationRequest
from billing.v1.catalog_model_pb2 import INTERVAL_MONTH, INTERVAL_WEEK, Recurring
from billing.v1.catalog_service_pb2 import CreatePriceRequest, CreateProductRequest
from billing.v1.test_clock_service_pb2 import CreateTestClockRequest
from tests.chaos.calls import Calls
from tests.chaos.listeners import Audience

CLOCKS: Final = 8
START: Final = 1_767_225_600
"""2026-01-01T00:00:00Z, where test clocks stand at first."""


@dataclass
class Buyer:
    """A customer, and what they are known to have."""

    id: str
    clock: str
    subscriptions: list[str] = field(default_factory=list)


@dataclass
class Shop:
    """Made by `open_shop`. `times` are the test clocks and where they stand; the `neighbour` is another account's."""

    audience: Audience
    neighbour: Audience
    prices: list[str]
    times: dict[str, int]
    moving: set[str] = field(default_factory=set)
    buyers: list[Buyer] = field(default_factory=list)

    @property
    def calls(self) -> Calls:
        """Calls by the shop's account."""
        return self.audience.calls

    def clock(self, dice: random.Random) -> str:
        """One of the test clocks, or "" for real time."""
        return dice.choice([*self.times, "", "", ""])

    def buyer(self, dice: random.Random) -> Buyer | None:
        """Any customer; of late ones rather than of old ones, so that lives become long."""
        return dice.choice(self.buyers[-60:]) if self.buyers else None


async def open_shop(audience: Audience, neighbour: Audience, dice: random.Random) -> Shop:
    """Prices, test clocks and webhook endpoints, made in peace."""
    calls = audience.calls
    for one in (audience, neighbour):
        await one.subscribe(dice)
    product = await calls.change(dice, "catalog", "CreateProduct", CreateProductRequest(name="Plan"))
    prices = []
    for amount, interval in ((1500, INTERVAL_MONTH), (4900, INTERVAL_MONTH), (700, INTERVAL_WEEK)):
        price = CreatePriceRequest(
            product=product.id, currency="usd", unit_amount=str(amount), recurring=Recurring(interval=interval)
        )
        prices.append((await calls.change(dice, "catalog", "CreatePrice", price)).id)
    await _automate(calls, dice)
    # In real time, too, what is billed is charged while the storm lasts.
    at_once = UpdateSettingsRequest(finalization_delay_seconds=0)
    await calls.change(dice, "account", "UpdateSettings", at_once)
    times: dict[str, int] = {}
    for number in range(CLOCKS):
        clock: Any = CreateTestClockRequest(name=f"clock {number}", frozen_time=Timestamp(seconds=START))
        times[(await calls.change(dice, "test_clocks", "CreateTestClock", clock)).id] = START
    return Shop(audience, neighbour, prices, times)


async def _automate(calls: Calls, dice: random.Random) -> None:
    """Automations that runs begin of: a credit for new customers, dunning, letters to those who leave."""
    for recipe in ("new_customer_credit", "cancellation_confirmation"):
        made = CreateAutomationFromRecipeRequest(recipe=recipe)
        await calls.change(dice, "automations", "CreateAutomationFromRecipe", made)
    dunning = CreateAutomationRequest(
        name="Dunning",
        trigger=AUTOMATION_TRIGGER_SUBSCRIPTION_PAYMENT_FAILS,
        actions=[
            AutomationAction(
                type=AUTOMATION_ACTION_TYPE_START_RETRY_POLICY,
                retry_policy=RetryPolicy(kind=RETRY_POLICY_KIND_CUSTOM, retry_days=[2, 3]),
            ),
            AutomationAction(type=AUTOMATION_ACTION_TYPE_CANCEL_SUBSCRIPTION, delay_seconds=86_400),
            AutomationAction(type=AUTOMATION_ACTION_TYPE_MARK_INVOICE_UNCOLLECTIBLE),
        ],
    )
    await calls.change(dice, "automations", "CreateAutomation", dunning)
