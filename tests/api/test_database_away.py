"""While the database is away callers are told to come back, health says so, and afterwards all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from billing.v1.customer_service_pb2 import CreateCustomerRequest, GetCustomerRequest
from billing.v1.event_model_pb2 import EventBatch
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing_server.bootstrap import Server
from billing_server.embedded_postgres import EmbeddedPostgres
from billing_server.store.migrate import migrate
from tests.conftest import POSTGRES_SETTINGS, temporary_data_directory
from tests.serving import Caller, detail_of, new_caller, refused, serving

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    with temporary_data_directory() as directory, EmbeddedPostgres(directory, settings=POSTGRES_SETTINGS) as started:
        await migrate(started.database_url)
        yield started


async def test_callers_are_told_to_come_back(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres.database_url, tmp_path) as server:
        server.event_streams.poll_seconds = 0.3
        caller = await new_caller(server)
        customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
        stream = caller.events.StreamEvents(StreamEventsRequest(), metadata=caller.login)
        await stream.read()
        await asyncio.to_thread(postgres.stop)
        get, create = GetCustomerRequest(id=customer.id), CreateCustomerRequest(name="Bo")
        with refused(UNAVAILABLE, "UNAVAILABLE") as caught:
            await caller.customers.GetCustomer(get, metadata=caller.login, timeout=120)
        assert detail_of(caught[0], RetryInfo).retry_delay.seconds
        with refused(UNAVAILABLE, "UNAVAILABLE"):
            await caller.customers.CreateCustomer(create, metadata=caller.metadata(idempotency_key="k"), timeout=120)
        with refused(UNAVAILABLE, "UNAVAILABLE"):
            while await stream.read() is not grpc.aio.EOF:
                pass
        await _until(server, failing=True)
        await asyncio.to_thread(postgres.start)
        await _until(server, failing=False)
        assert await caller.customers.GetCustomer(get, metadata=caller.login) == customer
        await caller.customers.CreateCustomer(create, metadata=caller.metadata(idempotency_key="k"))
        assert await _names(caller) == ["Ada", "Bo"]
        await caller.close()


async def _until(server: Server, *, failing: bool) -> None:
    async with asyncio.timeout(60):
        while server.engine.timekeeper.failing != failing:  # noqa: ASYNC110  # nothing tells of the change
            await asyncio.sleep(0.05)


async def _names(caller: Caller) -> list[str]:
    """The names in the log, as a new stream tells them."""
    stream = caller.events.StreamEvents(StreamEventsRequest(), metadata=caller.login)
    names = []
    while True:
        batch = await stream.read()
        assert isinstance(batch, EventBatch)
        names += [event.customer_object.name for event in batch.events]
        if batch.caught_up:
            stream.cancel()
            return names
