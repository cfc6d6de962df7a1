"""CreateSubscriptions: many by one stream, in order, each by itself, and none twice however often it is run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import grpc
import pytest

from billing.v1 import errors_pb2 as reasons
from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest
from billing.v1.payment_service_pb2 import ListPaymentAttemptsRequest
from billing.v1.subscription_model_pb2 import (
    PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE,
    SUBSCRIPTION_STATUS_ACTIVE,
    SUBSCRIPTION_STATUS_INCOMPLETE,
)
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRequest,
    CreateSubscriptionResult,
    CreateSubscriptionsRequest,
    CreateSubscriptionsResponse,
    ItemParams,
    ListSubscriptionsRequest,
    SubscriptionToCreate,
)
from billing_server.api.bulk_creation import SUBSCRIPTIONS_MAX
from billing_server.bootstrap import Server
from billing_server.engine.work import OnLocked, Work
from tests.api.world import new_price, subscribed
from tests.serving import Caller, new_caller, refused


async def _customers(caller: Caller, count: int, token: str | None = "pm_card_visa") -> list[str]:
    async def customer() -> str:
        made = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
        if token is not None:
            request = AttachPaymentMethodRequest(customer=made.id, token=token, set_default=True)
            await caller.customers.AttachPaymentMethod(request, metadata=caller.login)
        return made.id

    return list(await asyncio.gather(*(customer() for _ in range(count))))


def _wanted(key: str, customer: str, price: str, **more: object) -> SubscriptionToCreate:
    request = CreateSubscriptionRequest(customer=customer, items=[ItemParams(price=price)], **more)  # type: ignore[arg-type]  # fields of the request
    return SubscriptionToCreate(idempotency_key=key, request=request)


def _messages(wanted: Sequence[SubscriptionToCreate], size: int) -> list[CreateSubscriptionsRequest]:
    return [
        CreateSubscriptionsRequest(subscriptions=wanted[start : start + size]) for start in range(0, len(wanted), size)
    ]


async def _create(caller: Caller, messages: Iterable[CreateSubscriptionsRequest]) -> list[CreateSubscriptionResult]:
    """All results, one after the other."""
    stream = caller.subscriptions.CreateSubscriptions(iter(messages), metadata=caller.login, timeout=120)
    return [result async for answer in stream for result in answer.results]


async def _listed(caller: Caller) -> list[str]:
    """The customers of all subscriptions."""
    found = await caller.subscriptions.ListSubscriptions(
        ListSubscriptionsRequest(page_size=1000), metadata=caller.login
    )
    return sorted(subscription.customer for subscription in found.subscriptions)


async def _charges(caller: Caller) -> int:
    """How many charges of the account's attempts the gateway has made."""
    attempts = await caller.payments.ListPaymentAttempts(
        ListPaymentAttemptsRequest(page_size=1000), metadata=caller.login
    )
    rows = await caller.server.engine.store.find_charges(
        caller.account_id, [attempt.id for attempt in attempts.payment_attempts]
    )
    return sum(remembered.row.effects for remembered in rows.values())


async def test_many_are_created_in_order_and_share_transactions(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers, price = await _customers(caller, 60), await new_price(caller)
    wanted = [_wanted(f"old-{number}", customer, price) for number, customer in enumerate(customers)]
    batches: list[int] = []
    execute = server.engine.group._execute

    async def counted(account_id: str, batch: Sequence[Work], on_locked: OnLocked) -> None:
        if account_id == caller.account_id:
            batches.append(len(batch))
        await execute(account_id, batch, on_locked)

    monkeypatch.setattr(server.engine.group, "_execute", counted)
    results = await _create(caller, _messages(wanted, 25))
    assert [result.subscription.customer for result in results] == customers
    assert {result.subscription.status for result in results} == {SUBSCRIPTION_STATUS_ACTIVE}
    assert await _listed(caller) == sorted(customers)
    assert await _charges(caller) == 60
    # Each takes two pieces of work: it, and what became of its charge.
    assert sum(batches) == 120
    assert len(batches) <= 30


async def test_what_is_wrong_with_one_harms_no_other(server: Server, caller: Caller) -> None:
    good, declined, unpaid = [
        (await _customers(caller, 1, token))[0] for token in ("pm_card_visa", "pm_card_visa_chargeDeclined", None)
    ]
    price = await new_price(caller)
    other = await new_caller(server)
    theirs = (await _customers(other, 1))[0]
    await other.close()
    strict = {"payment_behavior": PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE}
    wanted = [
        _wanted("a", good, price),
        _wanted("", good, price),
        _wanted("b", theirs, price),
        _wanted("c", "cus_nobody", price),
        _wanted("d", good, "price_nothing"),
        _wanted("e", declined, price),
        _wanted("f", declined, price, **strict),
        _wanted("é", good, price),
        SubscriptionToCreate(idempotency_key="g"),
        _wanted("h", unpaid, price),
        _wanted("i", good, price, trial_period_days=9_999),
    ]
    results = await _create(caller, _messages(wanted, 100))
    created = {number: result.subscription for number, result in enumerate(results) if result.HasField("subscription")}
    assert {number: subscription.status for number, subscription in created.items()} == {
        0: SUBSCRIPTION_STATUS_ACTIVE,
        5: SUBSCRIPTION_STATUS_INCOMPLETE,
        9: SUBSCRIPTION_STATUS_INCOMPLETE,
    }
    told = {
        number: (result.refusal.reason, [violation.field for violation in result.refusal.violations])
        for number, result in enumerate(results)
        if result.HasField("refusal")
    }
    assert told == {
        1: (reasons.ERROR_REASON_PARAMETER_MISSING, ["idempotency_key"]),
        2: (reasons.ERROR_REASON_RESOURCE_MISSING, ["customer"]),
        3: (reasons.ERROR_REASON_RESOURCE_MISSING, ["customer"]),
        4: (reasons.ERROR_REASON_RESOURCE_MISSING, ["items[0].price"]),
        6: (reasons.ERROR_REASON_CARD_DECLINED, []),
        7: (reasons.ERROR_REASON_PARAMETER_INVALID, ["idempotency_key"]),
        8: (reasons.ERROR_REASON_PARAMETER_MISSING, ["customer"]),
        10: (reasons.ERROR_REASON_PARAMETER_INVALID_INTEGER, ["trial_period_days"]),
    }
    assert results[6].refusal.decline_code == "generic_decline"
    assert all(result.refusal.message for result in results if result.HasField("refusal"))
    hidden = results[2].refusal.message.replace(theirs, "cus_nobody")
    assert hidden == results[3].refusal.message
    assert await _listed(caller) == sorted([good, declined, unpaid])


async def test_a_key_stands_for_one_request_in_both_methods(caller: Caller) -> None:
    customer, price, request = await subscribed(caller)
    called = await caller.subscriptions.CreateSubscription(request, metadata=caller.metadata(idempotency_key="k"))
    again, other, fresh = await _create(
        caller,
        [
            CreateSubscriptionsRequest(subscriptions=[SubscriptionToCreate(idempotency_key="k", request=request)]),
            CreateSubscriptionsRequest(subscriptions=[_wanted("k", customer, price, description="other")]),
            CreateSubscriptionsRequest(subscriptions=[SubscriptionToCreate(idempotency_key="n", request=request)]),
        ],
    )
    assert again.subscription == called
    assert other.refusal.reason == reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH
    assert fresh.subscription.id != called.id
    repeated = await caller.subscriptions.CreateSubscription(request, metadata=caller.metadata(idempotency_key="n"))
    assert repeated == fresh.subscription
    assert len(await _listed(caller)) == 2


async def test_a_key_stands_once_in_a_message(caller: Caller) -> None:
    customer, price, _ = await subscribed(caller)
    wanted = [_wanted(key, customer, price) for key in ("k", "l", "k")]
    results = await _create(caller, _messages(wanted, 3))
    assert [result.HasField("subscription") for result in results] == [False, True, False]
    assert {results[0].refusal.reason, results[2].refusal.reason} == {reasons.ERROR_REASON_PARAMETER_INVALID}
    assert await _listed(caller) == [customer]


@pytest.mark.parametrize("answers_read", [0, 1, 3])
async def test_an_import_that_broke_off_is_run_again_without_anything_twice(caller: Caller, answers_read: int) -> None:
    customers, price = await _customers(caller, 40), await new_price(caller)
    wanted = [_wanted(f"old-{number}", customer, price) for number, customer in enumerate(customers)]
    messages = _messages(wanted, 8)
    sent = asyncio.Event()

    async def sending() -> AsyncIterator[CreateSubscriptionsRequest]:
        for message in messages:
            yield message
            sent.set()

    broken = caller.subscriptions.CreateSubscriptions(sending(), metadata=caller.login, timeout=120)
    first: list[CreateSubscriptionResult] = []
    for _ in range(answers_read):
        answer = await broken.read()
        assert isinstance(answer, CreateSubscriptionsResponse)
        first += answer.results
    await sent.wait()
    broken.cancel()
    results = await _rerun(caller, messages)
    assert [result.subscription.customer for result in results] == customers
    assert [result.subscription.id for result in first] == [result.subscription.id for result in results[: len(first)]]
    assert await _listed(caller) == sorted(customers)
    assert await _charges(caller) == 40


async def _rerun(caller: Caller, messages: Sequence[CreateSubscriptionsRequest]) -> list[CreateSubscriptionResult]:
    """Run an import until nothing of an earlier run is under way any more."""
    async with asyncio.timeout(60):
        while True:
            results = await _create(caller, messages)
            if all(result.refusal.reason != reasons.ERROR_REASON_IDEMPOTENCY_KEY_IN_USE for result in results):
                return results


async def test_what_was_refused_is_tried_anew(caller: Caller) -> None:
    customer, price = (await _customers(caller, 1, None))[0], await new_price(caller)
    wanted = [_wanted("k", customer, price, default_payment_method="pm_none")]
    (first,) = await _create(caller, _messages(wanted, 1))
    assert first.refusal.reason == reasons.ERROR_REASON_RESOURCE_MISSING
    wanted[0].request.ClearField("default_payment_method")
    (second,) = await _create(caller, _messages(wanted, 1))
    assert second.subscription.customer == customer


@pytest.mark.parametrize("count", [0, SUBSCRIPTIONS_MAX + 1])
async def test_a_message_of_the_wrong_size_ends_the_stream_after_what_came_before(caller: Caller, count: int) -> None:
    customer, price, _ = await subscribed(caller)
    wrong = [_wanted(f"{number}", customer, price) for number in range(count)]
    messages = [
        CreateSubscriptionsRequest(subscriptions=[_wanted("before", customer, price)]),
        CreateSubscriptionsRequest(subscriptions=wrong),
    ]
    stream = caller.subscriptions.CreateSubscriptions(iter(messages), metadata=caller.login, timeout=120)
    sizes = []
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_INVALID"):
        async for answer in stream:
            sizes.append(len(answer.results))  # noqa: PERF401  # what came before the refusal is wanted
    assert sizes == [1]
    assert await _listed(caller) == [customer]
