"""Deadlines and callers that go away: what was begun is finished whole, and the server's maximum holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from billing.v1.customer_service_pb2 import CreateCustomerRequest, ListCustomersRequest
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing.v1.subscription_model_pb2 import SUBSCRIPTION_STATUS_ACTIVE, Subscription
from billing.v1.subscription_service_pb2 import GetSubscriptionRequest, ListSubscriptionsRequest
from billing_server.bootstrap import Server
from tests.api.held_answers import HeldAnswers
from tests.api.world import subscribed
from tests.serving import Caller, new_caller, refused, serving

_LISTS_UNDER_WAY = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
    "AND query LIKE '%FROM subscriptions WHERE account_id = $1%ORDER BY created DESC, id DESC LIMIT $2%' "
    "AND pid <> pg_backend_pid()"
)
"""How many pages of subscriptions are being read."""


async def settled(caller: Caller, customer: str) -> Subscription:
    """The customer's only subscription, once its first payment has come in."""
    async with asyncio.timeout(60):
        while True:
            request = ListSubscriptionsRequest(customer=customer)
            listed = await caller.subscriptions.ListSubscriptions(request, metadata=caller.login)
            if listed.subscriptions and listed.subscriptions[0].status == SUBSCRIPTION_STATUS_ACTIVE:
                assert len(listed.subscriptions) == 1
                return listed.subscriptions[0]
            await asyncio.sleep(0.1)


async def nothing_listed(administrator: asyncpg.Connection) -> None:
    """Wait until no page of subscriptions is being read."""
    async with asyncio.timeout(60):
        while True:
            # Within a transaction PostgreSQL would tell again and again what it has told at first.
            await administrator.execute("SELECT pg_stat_clear_snapshot()")
            if not await administrator.fetchval(_LISTS_UNDER_WAY):
                return
            await asyncio.sleep(0.02)


async def test_a_caller_that_goes_away_leaves_the_whole_effect(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = HeldAnswers(server, monkeypatch)
    customer, _, request = await subscribed(caller)
    metadata = caller.metadata(idempotency_key="gone")
    call = caller.subscriptions.CreateSubscription(request, metadata=metadata)
    await answers.until_charged(customer)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    answers.release()
    made = await settled(caller, customer)
    again = await caller.subscriptions.CreateSubscription(request, metadata=metadata)
    assert (again.id, again.status) == (made.id, made.status)


async def test_a_deadline_that_passes_leaves_the_whole_effect(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = HeldAnswers(server, monkeypatch)
    customer = ""
    for seconds in (0.5, 5, 20):
        customer, _, request = await subscribed(caller)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.subscriptions.CreateSubscription(request, metadata=caller.login, timeout=seconds)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        if customer in answers.customers:
            break
        # The machine stood still: the deadline passed before anything was begun. Another customer has more time.
    answers.release()
    await settled(caller, customer)


async def test_the_server_has_a_deadline_of_its_own(
    database_url: str, tmp_path: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database_url, tmp_path, {"BILLING_MAX_DEADLINE_SECONDS": "1"}) as strict:
        answers = HeldAnswers(strict, monkeypatch)
        _, _, request = await subscribed(caller)
        elsewhere = await new_caller(strict, account_id=caller.account_id)
        for timeout in (None, 60.0):
            request.metadata["timeout"] = str(timeout)
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"):
                await elsewhere.subscriptions.CreateSubscription(request, metadata=elsewhere.login, timeout=timeout)
        answers.release()
        await elsewhere.close()


async def test_draining_finishes_what_is_under_way(
    database_url: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database_url, tmp_path, {"BILLING_DRAIN_SECONDS": "60"}) as draining:
        answers = HeldAnswers(draining, monkeypatch)
        caller = await new_caller(draining)
        customer, _, request = await subscribed(caller)
        stream = caller.events.StreamEvents(StreamEventsRequest(), metadata=caller.login)
        await stream.read()
        creating = asyncio.ensure_future(
            caller.subscriptions.CreateSubscription(request, metadata=caller.login, timeout=120)
        )
        await answers.until_charged(customer)
        closing = asyncio.create_task(draining.close())
        with refused(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"):
            while True:
                assert await stream.read() is not grpc.aio.EOF
        assert not creating.done()
        answers.release()
        assert (await creating).status == SUBSCRIPTION_STATUS_ACTIVE
        await closing
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.customers.ListCustomers(ListCustomersRequest(), metadata=caller.login, timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await caller.close()
    elsewhere = await new_caller(server, account_id=caller.account_id)
    await settled(elsewhere, customer)
    await elsewhere.close()


async def test_each_reader_has_a_deadline_of_its_own(caller: Caller, database_url: str) -> None:
    """Reads of an account share queries. While a table cannot be read, each caller waits for as long as it wants to,
    and a list that nobody waits for any more is broken off."""
    _, _, creation = await subscribed(caller)
    made = await caller.subscriptions.CreateSubscription(creation, metadata=caller.login)
    get, listing = GetSubscriptionRequest(id=made.id), ListSubscriptionsRequest()
    administrator = await asyncpg.connect(database_url)
    try:
        async with administrator.transaction():
            await administrator.execute("LOCK TABLE subscriptions IN ACCESS EXCLUSIVE MODE")
            patient = [
                asyncio.ensure_future(caller.subscriptions.GetSubscription(get, metadata=caller.login, timeout=120))
                for _ in range(3)
            ]
            hasty: list[grpc.aio.UnaryUnaryCall[Any, Any]] = [
                caller.subscriptions.GetSubscription(get, metadata=caller.login, timeout=2),
                caller.subscriptions.ListSubscriptions(listing, metadata=caller.login, timeout=2),
            ]
            for call in hasty:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await nothing_listed(administrator)
            assert not any(call.done() for call in patient)
        assert await asyncio.gather(*patient) == [made] * 3
    finally:
        await administrator.close()


async def test_too_many_calls_at_once_are_told_to_come_back(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.limits, "calls_max", 0)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT"):
        await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
