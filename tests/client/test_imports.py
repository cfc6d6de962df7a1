"""Importing subscriptions: streams that are taken up again, and files of lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest

from billing.v1.errors_pb2 import (
    ERROR_REASON_CARD_DECLINED,
    ERROR_REASON_IDEMPOTENCY_KEY_IN_USE,
    ERROR_REASON_RESOURCE_MISSING,
)
from billing.v1.subscription_model_pb2 import Subscription
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRefusal,
    CreateSubscriptionRequest,
    CreateSubscriptionResult,
    CreateSubscriptionsRequest,
    CreateSubscriptionsResponse,
    CreateSubscriptionViolation,
    SubscriptionToCreate,
)
from billing_client import BillingClient
from billing_client.command_line.subscription_imports import LineError, read_lines
from billing_client.errors import InvalidArgument
from tests.client.fake_server import Context, FakeServer, refuse
from tests.client.test_command_line import run


def _wanted(count: int) -> list[SubscriptionToCreate]:
    return [
        SubscriptionToCreate(idempotency_key=f"k{number}", request=CreateSubscriptionRequest(customer=f"cus_{number}"))
        for number in range(count)
    ]


def _answer(message: CreateSubscriptionsRequest) -> CreateSubscriptionsResponse:
    """Everything is created, but for customers called cus_none."""
    results = []
    for one in message.subscriptions:
        if one.request.customer == "cus_none":
            violation = CreateSubscriptionViolation(field="customer", description="no such customer")
            refusal = CreateSubscriptionRefusal(
                reason=ERROR_REASON_RESOURCE_MISSING, message="missing", violations=[violation]
            )
            results.append(CreateSubscriptionResult(refusal=refusal))
        else:
            results.append(CreateSubscriptionResult(subscription=Subscription(id=f"sub_{one.idempotency_key}")))
    return CreateSubscriptionsResponse(results=results)


class _Server:
    """Answers messages, and breaks its first streams off after some answers each."""

    def __init__(self, fake: FakeServer, breaks_after: Sequence[int] = ()) -> None:
        self._breaks_after = list(breaks_after)
        self.streams: list[list[str]] = []
        fake.conversing("CreateSubscriptions", self._serve)

    async def _serve(
        self, messages: AsyncIterator[CreateSubscriptionsRequest], context: Context
    ) -> AsyncIterator[CreateSubscriptionsResponse]:
        seen: list[str] = []
        self.streams.append(seen)
        left = self._breaks_after.pop(0) if self._breaks_after else None
        async for message in messages:
            if left == 0:
                await refuse(context, grpc.StatusCode.UNAVAILABLE, "about to stop", "UNAVAILABLE")
            left = None if left is None else left - 1
            seen += [one.idempotency_key for one in message.subscriptions]
            yield _answer(message)


async def test_a_broken_stream_is_taken_up_where_answers_end(fake: FakeServer, client: BillingClient) -> None:
    server = _Server(fake, [0, 2, 1])
    await fake.start()
    wanted = _wanted(650)
    told = [(one.idempotency_key, result.subscription.id) async for one, result in client.create_subscriptions(wanted)]
    assert told == [(f"k{number}", f"sub_k{number}") for number in range(650)]
    assert [len(seen) for seen in server.streams] == [0, 200, 100, 350]
    assert [seen[0] for seen in server.streams[1:]] == ["k0", "k200", "k300"]


async def test_a_stream_that_is_refused_is_not_sent_again(fake: FakeServer, client: BillingClient) -> None:
    async def handler(
        messages: AsyncIterator[CreateSubscriptionsRequest], context: Context
    ) -> AsyncIterator[CreateSubscriptionsResponse]:
        async for _ in messages:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too many", "PARAMETER_INVALID")
            yield CreateSubscriptionsResponse()

    fake.conversing("CreateSubscriptions", handler)
    await fake.start()
    with pytest.raises(InvalidArgument):
        async for _ in client.create_subscriptions(_wanted(1)):
            raise AssertionError("there is no answer")
    assert len(fake.calls) == 1


@pytest.mark.parametrize("declined", [False, True])
async def test_what_is_still_under_way_is_asked_for_again_by_itself(
    fake: FakeServer, client: BillingClient, declined: bool
) -> None:
    async def handler(
        messages: AsyncIterator[CreateSubscriptionsRequest], _context: Context
    ) -> AsyncIterator[CreateSubscriptionsResponse]:
        async for _ in messages:
            refusal = CreateSubscriptionRefusal(reason=ERROR_REASON_IDEMPOTENCY_KEY_IN_USE)
            refusal.retry_after.seconds = 2
            yield CreateSubscriptionsResponse(results=[CreateSubscriptionResult(refusal=refusal)])

    async def single(request: CreateSubscriptionRequest, context: Context) -> Subscription:
        if declined:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "declined", "CARD_DECLINED")
        return Subscription(id=f"sub_of_{request.customer}")

    fake.conversing("CreateSubscriptions", handler)
    fake.unary("CreateSubscription", single)
    await fake.start()
    (result,) = [result async for _, result in client.create_subscriptions(_wanted(1))]
    if declined:
        assert result.refusal.reason == ERROR_REASON_CARD_DECLINED
    else:
        assert result.subscription.id == "sub_of_cus_0"
    assert fake.keys("idempotency-key") == ["", "k0"]


# --- the command


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "import.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_lines_become_requests_whose_keys_stay_the_same(tmp_path: Path) -> None:
    line = '{"customer": "cus_1", "items": [{"price": "price_1", "quantity": "2"}]}'
    mended = '{"customer": "cus_2", "items": [{"price": "price_1"}]}'
    first = list(read_lines(_file(tmp_path, line, "", '{"customer": "cus_9", "idempotency_key": "old-9"}', line)))
    again = list(read_lines(_file(tmp_path, mended, line, line)))
    assert [number for number, _ in first] == [1, 3, 4]
    keys = [one.idempotency_key for _, one in first]
    assert keys[1] == "old-9"
    assert len(set(keys)) == 3
    assert {keys[0], keys[2]} < {one.idempotency_key for _, one in again}
    assert first[0][1].request.items[0].quantity == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: "),
        ('["customer"]', "line 2 is no JSON object"),
        ('{"costumer": "cus_1"}', "costumer"),
        ('{"customer": "cus_1", "idempotency_key": 7}', "line 2: "),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(LineError, match=told):
        list(read_lines(_file(tmp_path, '{"customer": "cus_1"}', line)))


async def test_the_command_tells_what_became_of_each_line(fake: FakeServer, tmp_path: Path) -> None:
    _Server(fake)
    await fake.start()
    file = _file(tmp_path, '{"customer": "cus_1", "idempotency_key": "a"}', '{"customer": "cus_none"}')
    shown = await run(fake, "subscriptions", "import", str(file))
    assert shown.exit_code == 1
    assert "Subscriptions there: 1. Lines refused: 1." in shown.stdout
    assert "Line 2: customer: no such customer (resource_missing)" in shown.stderr
    machine = await run(fake, "--json", "subscriptions", "import", str(file))
    lines = [json.loads(line) for line in machine.stdout.splitlines()]
    assert lines[0] == {"line": 1, "idempotency_key": "a", "subscription": {"id": "sub_a"}}
    assert lines[1]["refusal"]["reason"] == "ERROR_REASON_RESOURCE_MISSING"
    good = await run(fake, "subscriptions", "import", str(_file(tmp_path, '{"customer": "cus_1"}')))
    assert good.exit_code == 0


async def test_nothing_is_sent_of_a_file_with_a_broken_line(fake: FakeServer, tmp_path: Path) -> None:
    _Server(fake)
    await fake.start()
    shown = await run(fake, "subscriptions", "import", str(_file(tmp_path, '{"customer": "cus_1"}', "{")))
    assert shown.exit_code == 2
    assert "line 2" in shown.stderr
    assert fake.calls == []
