"""Bulk creation: subscriptions brought over by one stream of CreateSubscriptions, beside the bare insert."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import asyncpg

from bench import floors, served
from bench.calls import new_customers, new_price
from bench.measure import Figure, parent_of, processor_seconds
from billing.v1.subscription_model_pb2 import PRORATION_BEHAVIOR_NONE, SUBSCRIPTION_STATUS_ACTIVE
from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest, SubscriptionToCreate
from billing_client import BillingClient

_DAY_SECONDS = 86_400
_RENEWS_IN_DAYS = 20
_CREATION = "CreateSubscriptions, one stream"


async def bulk(url: str, customers: int, repeat: int) -> list[Figure]:
    """One subscription for each customer, `repeat` times: paid elsewhere until its next renewal, then paid at once."""
    brought = Figure(f"{_CREATION}, paid elsewhere until renewal", "the bare insert, 64 a transaction", aim=0.5)
    paid = Figure(f"{_CREATION}, paid at once", "")
    async with served.engine(url) as server, BillingClient(server.target, server.key) as client:
        price = await new_price(client)
        connection = await asyncpg.connect(url)
        account = await connection.fetchval("SELECT account_id FROM accounts")
        pids = (server.pid, parent_of(await connection.fetchval("SELECT pg_backend_pid()")))
        for run in range(repeat):
            ids = await new_customers(client, customers)
            (before,) = await floors.one(connection, "SELECT position FROM event_heads WHERE account_id = $1", account)
            created = await _created(client, _wanted(ids, price, f"brought-{run}", charged=False), pids)
            floor = await floors.creations_by_64(connection, account, created.names, before)
            brought.add(created.rate, floor, **created.costs)
            created = await _created(client, _wanted(ids, price, f"paid-{run}", charged=True), pids)
            paid.add(created.rate, **created.costs)
        await _check(connection, customers * repeat)
        await connection.close()
    return [brought, paid]


def _wanted(customers: Iterable[str], price: str, run: str, *, charged: bool) -> Iterator[SubscriptionToCreate]:
    renewal = int(time.time()) + _RENEWS_IN_DAYS * _DAY_SECONDS
    for number, customer in enumerate(customers):
        request = CreateSubscriptionRequest(customer=customer)
        request.items.add(price=price)
        if not charged:
            request.billing_cycle_anchor.seconds = renewal
            request.proration_behavior = PRORATION_BEHAVIOR_NONE
        yield SubscriptionToCreate(idempotency_key=f"{run}-{number}", request=request)


@dataclass(frozen=True)
class _Created:
    """How many were created a second, the processor time of each, and its subscription, customer and key."""

    rate: float
    costs: dict[str, float]
    names: list[tuple[str, str, str]]


async def _created(client: BillingClient, wanted: Iterator[SubscriptionToCreate], pids: tuple[int, int]) -> _Created:
    names, busy, begun = [], [processor_seconds(pid) for pid in pids], time.perf_counter()
    async for one, result in client.create_subscriptions(wanted):
        if result.subscription.status != SUBSCRIPTION_STATUS_ACTIVE:
            raise SystemExit(f"{one.idempotency_key} is not active: {result}")
        names.append((result.subscription.id, one.request.customer, one.idempotency_key))
    seconds = time.perf_counter() - begun
    engine, postgres = (
        (processor_seconds(pid) - before) / len(names) * 1e6 for pid, before in zip(pids, busy, strict=True)
    )
    return _Created(len(names) / seconds, {"engine_us": engine, "postgres_us": postgres}, names)


async def _check(connection: asyncpg.Connection, count: int) -> None:
    """All are there, half of them paid by one charge each."""
    found = await floors.one(
        connection,
        "SELECT (SELECT count(*) FROM subscriptions WHERE status = 'active'), (SELECT count(*) FROM invoices "
        "WHERE status = 'paid' AND amount_paid = 3100), (SELECT sum(effects) FROM test_gateway_charges)",
    )
    if found != (2 * count, count, count):
        raise SystemExit(f"there should be {2 * count} subscriptions with {count} paid invoices, not {found}")
