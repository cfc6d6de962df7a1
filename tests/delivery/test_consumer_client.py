"""The client's consumers and the command line's, against a served engine that restarts and connections that break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import CreateConsumerRequest
from billing_client import BillingClient, BillingError, Delivery
from billing_client.command_line.main import app, hoist
from billing_server.bootstrap import Server
from billing_server.delivery import consuming as connections
from tests.delivery.clock import ConnectionsClock
from tests.delivery.consuming import consumer_of, eventually, parked_of, until_settled, write_log
from tests.serving import Caller, free_port, new_caller, serving

CREATE = CreateConsumerRequest()


@pytest.fixture
async def client(server: Server, caller: Caller) -> AsyncIterator[BillingClient]:
    """A client of the caller's account."""
    async with BillingClient(str(server.address), caller.secret) as made:
        yield made


async def test_what_is_acknowledged_does_not_come_again(caller: Caller, client: BillingClient) -> None:
    await write_log(caller.server.engine, caller.account_id, ["cus_a", "cus_b", "cus_a"])
    seen: list[int] = []
    async with client.consume("crm", create=CREATE, stop_when_caught_up=True) as deliveries:
        async for delivery in deliveries:
            seen.append(delivery.event.position)
            if delivery.event.position < 3:
                delivery.ack()
    assert seen == [1, 2, 3]
    async with client.consume("crm", stop_when_caught_up=True) as deliveries:
        again = [delivery async for delivery in deliveries]
        assert [(delivery.event.position, delivery.redelivered) for delivery in again] == [(3, True)]
        again[0].ack()
        await deliveries.finish()
    assert (await consumer_of(caller)).progress.lag == 0


async def test_a_handler_that_fails_has_its_event_parked_in_the_end(caller: Caller, client: BillingClient) -> None:
    await write_log(caller.server.engine, caller.account_id, ["cus_a", "cus_b"])
    handled: list[int] = []

    async def handler(event: Event) -> None:
        if event.customer == "cus_a":
            raise LookupError("no such contact")
        handled.append(event.position)

    deliveries = client.consume("crm", create=CreateConsumerRequest(tries_max=2))
    handling = asyncio.create_task(deliveries.handle(handler))
    await eventually(lambda: bool(handled))
    await until_settled(caller)
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    (parked,) = await parked_of(caller)
    assert (parked.position, parked.tries, parked.reason) == (1, 2, "LookupError: no such contact")
    assert handled == [2]


async def test_slow_work_goes_on_as_long_as_there_is_progress(
    caller: Caller, client: BillingClient, clock: ConnectionsClock
) -> None:
    await write_log(caller.server.engine, caller.account_id, [f"cus_{number}" for number in range(20)])
    create = CreateConsumerRequest(ack_timeout_seconds=2)
    seen: list[int] = []
    async with client.consume("crm", create=create, stop_when_caught_up=True) as deliveries:
        async for delivery in deliveries:
            await asyncio.sleep(0.15)
            seen.append(delivery.event.position)
            delivery.ack()
        await deliveries.finish()
    assert seen == list(range(1, 21))


async def test_a_stream_is_taken_up_again_after_a_restart(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MEETING_SECONDS", 0.5)
    settings = {"BILLING_LISTEN": f"127.0.0.1:{free_port()}"}
    async with serving(database_url, tmp_path, settings) as first:
        caller = await new_caller(first)
        await write_log(first.engine, caller.account_id, ["cus_a", "cus_a"])
        client = BillingClient(str(first.address), caller.secret)
        deliveries = client.consume("crm", create=CREATE)
        got: list[Delivery] = [await anext(deliveries) for _ in range(2)]
        got[0].ack()
    await caller.close()
    async with serving(database_url, tmp_path, settings) as second:
        # The second event is acknowledged where it was not delivered: it is the same consumer's.
        got[1].ack()
        await write_log(second.engine, caller.account_id, ["cus_b"])
        positions = set[int]()
        async with asyncio.timeout(60):
            while 3 not in positions:
                delivery = await anext(deliveries)
                positions.add(delivery.event.position)
                delivery.ack()
        assert deliveries.reconnects == 1
        await deliveries.finish()
        caller = await new_caller(second, account_id=caller.account_id)
        assert (await consumer_of(caller)).progress.lag == 0
        await caller.close()
    await client.close()


async def test_a_consumer_that_is_missing_is_told(client: BillingClient) -> None:
    with pytest.raises(BillingError, match="no consumer"):
        await anext(client.consume("crm"))


async def billing(caller: Caller, *arguments: str) -> str:
    """What the command line prints."""
    command = hoist(["--target", str(caller.server.address), "--api-key", caller.secret, *arguments])
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, command))
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_the_command_line_consumes_and_manages(caller: Caller) -> None:
    await write_log(caller.server.engine, caller.account_id, ["cus_a", "cus_b"])
    made = json.loads(await billing(caller, "--json", "consumers", "create", "crm", "--tries-max", "1"))
    assert (made["name"], made["tries_max"]) == ("crm", 1)
    lines = (await billing(caller, "--json", "events", "consume", "crm")).splitlines()
    assert [json.loads(line)["position"] for line in lines] == ["1", "2"]
    assert await billing(caller, "--json", "events", "consume", "crm") == ""
    await billing(caller, "consumers", "seek", "crm", "--after", "1")
    assert "made.up" in await billing(caller, "events", "consume", "crm")
    await billing(caller, "consumers", "update", "crm", "--ack-timeout", "60")
    assert "crm" in await billing(caller, "consumers", "list")
    assert "60" in await billing(caller, "consumers", "show", "crm")
    assert json.loads(await billing(caller, "--json", "consumers", "retry", "crm")) == {}
    assert json.loads(await billing(caller, "--json", "consumers", "drop", "crm", "7")) == {}
    await billing(caller, "consumers", "parked", "crm")
    await billing(caller, "consumers", "delete", "crm")
    assert await billing(caller, "--json", "consumers", "list") == ""
