"""A small world to tell scenarios in: an account, a test clock, customers with cards, and time that moves.

Requests are written as plain fields: instants as seconds or ISO text, enum values as the words of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import (
    account_service_pb2,
    automation_service_pb2,
    catalog_service_pb2,
    customer_service_pb2,
    event_model_pb2,
    invoice_service_pb2,
    meter_service_pb2,
    payment_service_pb2,
    schedule_service_pb2,
    subscription_service_pb2,
    test_clock_service_pb2,
    webhook_service_pb2,
)
from billing_client import BillingClient

OK = "pm_card_visa"
BAD = "pm_card_chargeCustomerFail"

_SERVICES = {
    "account": account_service_pb2,
    "automations": automation_service_pb2,
    "catalog": catalog_service_pb2,
    "customers": customer_service_pb2,
    "invoices": invoice_service_pb2,
    "meters": meter_service_pb2,
    "payments": payment_service_pb2,
    "subscriptions": subscription_service_pb2,
    "schedules": schedule_service_pb2,
    "test_clocks": test_clock_service_pb2,
    "webhooks": webhook_service_pb2,
}


def at(text: str) -> int:
    """Seconds of an ISO time in UTC: "2025-02-01" or "2025-02-01T01:00"."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def word(message: Message, field: str) -> str:
    """An enum value as the spec writes it."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    enum = descriptor.enum_type
    assert enum is not None
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[getattr(message, field)].name.removeprefix(prefix).lower()


def fill(message: Message, fields: Mapping[str, Any]) -> Message:
    """Set the fields of a request."""
    for name, value in fields.items():
        descriptor = message.DESCRIPTOR.fields_by_name[name]
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            getattr(message, name).update(value)
        elif isinstance(value, list | tuple):
            for entry in value:
                if isinstance(entry, Mapping):
                    fill(getattr(message, name).add(), entry)
                else:
                    getattr(message, name).append(_scalar(descriptor, entry))
        elif isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif (
            descriptor.message_type is not None and descriptor.message_type.full_name == Timestamp.DESCRIPTOR.full_name
        ):
            getattr(message, name).FromSeconds(at(value) if isinstance(value, str) else value)
        else:
            setattr(message, name, _scalar(descriptor, value))
    return message


def _scalar(descriptor: Any, value: Any) -> Any:
    if descriptor.enum_type is not None and isinstance(value, str):
        prefix = descriptor.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return descriptor.enum_type.values_by_name[prefix + value.upper()].number
    return value


class World:
    """One account on one test clock."""

    def __init__(self, client: BillingClient, clock: str, now: int) -> None:
        self.client = client
        self.clock = clock
        self.now = now
        self._product = ""
        self._seen = 0

    @classmethod
    async def begin(cls, client: BillingClient, start: str | int) -> World:
        """A world whose clock stands at `start`."""
        now = at(start) if isinstance(start, str) else start
        world = cls(client, "", now)
        world.clock = (await world.call("test_clocks", "CreateTestClock", frozen_time=now)).id
        return world

    async def call(self, service: str, method: str, *, call_metadata: Any = None, **fields: Any) -> Any:
        """Call an RPC with these fields."""
        request = fill(getattr(_SERVICES[service], f"{method}Request")(), fields)
        return await getattr(getattr(self.client, service), method)(request, metadata=call_metadata)

    # --- catalog and customers

    async def product(self, name: str = "Gold") -> str:
        return str((await self.call("catalog", "CreateProduct", name=name)).id)

    async def price(
        self, amount: int, interval: str = "month", *, product: str | None = None, currency: str = "usd", **fields: Any
    ) -> str:
        """A recurring price of so many minor units."""
        if product is None:
            self._product = self._product or await self.product()
            product = self._product
        recurring = {"interval": interval, "interval_count": 1} | fields.pop("recurring", {})
        made = await self.call(
            "catalog",
            "CreatePrice",
            product=product,
            currency=currency,
            unit_amount=str(amount),
            recurring=recurring,
            **fields,
        )
        return str(made.id)

    async def one_time(self, amount: int) -> str:
        self._product = self._product or await self.product()
        made = await self.call("catalog", "CreatePrice", product=self._product, currency="usd", unit_amount=str(amount))
        return str(made.id)

    async def meter(self, event_name: str = "calls", formula: str = "sum", **fields: Any) -> str:
        """A meter that counts events of this name."""
        made = await self.call(
            "meters", "CreateMeter", display_name=event_name, event_name=event_name, formula=formula, **fields
        )
        return str(made.id)

    async def metered(self, meter: str, amount: int = 10, interval: str = "month", **fields: Any) -> str:
        """A price of so many minor units for each unit of usage."""
        return await self.price(
            amount,
            interval,
            recurring={"usage_type": "metered", "meter": meter} | fields.pop("recurring", {}),
            **fields,
        )

    async def use(
        self, customer: str, value: int = 1, at_time: str | int | None = None, *, event_name: str = "calls", **more: Any
    ) -> Any:
        """Report usage, now or at another time."""
        event = {"event_name": event_name, "customer": customer, "value": value, **more}
        if at_time is not None:
            event["timestamp"] = at_time
        return await self.call("meters", "ReportMeterEvent", event=event)

    async def usage(self, meter: str, customer: str, start: str, end: str, window: str | None = None) -> Any:
        """What a customer used within a span of time."""
        wanted = {"meter": meter, "customer": customer, "range": {"start": start, "end": end}}
        return await self.call("meters", "GetUsageSummary", **wanted, **({"window": window} if window else {}))

    async def customer(self, card: str | None = OK, **fields: Any) -> str:
        """A customer on the clock, with a card as default."""
        made = await self.call("customers", "CreateCustomer", test_clock=self.clock, **fields)
        if card is not None:
            await self.card(made.id, card)
        return str(made.id)

    async def card(self, customer: str, token: str) -> str:
        """Attach a card and make it the default."""
        made = await self.call("customers", "AttachPaymentMethod", customer=customer, token=token, set_default=True)
        return str(made.id)

    async def the_customer(self, customer: str) -> Any:
        return await self.call("customers", "GetCustomer", id=customer)

    # --- subscriptions and invoices

    async def subscribe(self, customer: str, *prices: str, **fields: Any) -> Any:
        return await self.call(
            "subscriptions",
            "CreateSubscription",
            customer=customer,
            items=fields.pop("items", [{"price": price} for price in prices]),
            **fields,
        )

    async def update(self, subscription: str, **fields: Any) -> Any:
        return await self.call("subscriptions", "UpdateSubscription", id=subscription, **fields)

    async def subscription(self, subscription: str) -> Any:
        return await self.call("subscriptions", "GetSubscription", id=subscription)

    async def status(self, subscription: str) -> str:
        return word(await self.subscription(subscription), "status")

    async def invoices(self, subscription: str) -> Sequence[Any]:
        """The invoices of a subscription, oldest first."""
        found = await self.call("invoices", "ListInvoices", subscription=subscription, page_size=1000)
        return list(reversed(found.invoices))

    async def invoice(self, invoice: str) -> Any:
        return await self.call("invoices", "GetInvoice", id=invoice)

    async def latest(self, subscription: str) -> Any:
        return (await self.invoices(subscription))[-1]

    async def attempts(self, invoice: str) -> Sequence[Any]:
        """The payment attempts of an invoice, oldest first."""
        found = await self.call("payments", "ListPaymentAttempts", invoice=invoice, page_size=1000)
        return sorted(found.payment_attempts, key=lambda attempt: attempt.number)

    # --- automations

    async def automate(
        self,
        trigger: str,
        *actions: Mapping[str, Any],
        conditions: Sequence[Mapping[str, Any]] = (),
        name: str = "Automation",
        **fields: Any,
    ) -> Any:
        """An automation with these actions."""
        return await self.call(
            "automations",
            "CreateAutomation",
            name=name,
            trigger=trigger,
            actions=list(actions),
            conditions=list(conditions),
            **fields,
        )

    async def recipe(self, recipe: str, **parameters: Any) -> Any:
        """An automation by a recipe."""
        return await self.call("automations", "CreateAutomationFromRecipe", recipe=recipe, parameters=parameters)

    async def runs(self, **filters: Any) -> Sequence[Any]:
        """The automation runs of the account, oldest first."""
        found = await self.call("automations", "ListAutomationRuns", page_size=1000, **filters)
        return list(reversed(found.automation_runs))

    async def backtest(self, **request: Any) -> tuple[list[Any], Any]:
        """The runs that a backtest finds, and its sums."""
        wanted = automation_service_pb2.BacktestAutomationRequest()
        fill(wanted, request)
        runs: list[Any] = []
        last = None
        async for message in self.client.backtest_automation(wanted):
            runs += message.runs
            last = message
        assert last is not None
        assert last.done
        return runs, last.summary

    # --- time and events

    async def advance(self, to: str | int) -> None:
        """Move the clock."""
        self.now = at(to) if isinstance(to, str) else to
        async for _ in self.client.advance_test_clock(self.clock, self.now):
            pass

    async def events(self, *types: str) -> list[event_model_pb2.Event]:
        """All events of these types so far, in order."""
        return [event async for event in self.client.events(after_position=0, types=types, stop_when_caught_up=True)]

    async def news(self) -> list[str]:
        """The types of the events since the last call, in order."""
        found = []
        async for event in self.client.events(after_position=self._seen, stop_when_caught_up=True):
            self._seen = event.position
            found.append(event.type)
        return found

    async def settings(self, **fields: Any) -> None:
        await self.call("account", "UpdateSettings", **fields)


async def base(
    client: BillingClient, *, then: str | None = BAD, amount: int = 3100, **settings: Any
) -> tuple[World, str, str]:
    """The "Base" of the spec: (world, customer, subscription), paid on Jan 1, its card replaced on Jan 20."""
    world = await World.begin(client, "2025-01-01")
    if settings:
        await world.settings(**settings)
    customer = await world.customer()
    subscription = (await world.subscribe(customer, await world.price(amount))).id
    if then is not None:
        await world.advance("2025-01-20")
        await world.card(customer, then)
    return world, customer, subscription
