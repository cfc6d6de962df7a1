"""Callers who mean harm, against a server of its own: memory stays bounded, and others are served (promise 23).

A process of its own, because it is its memory that is looked at.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from billing.v1.customer_service_pb2 import CreateCustomerRequest, ListCustomersRequest
from billing.v1.customer_service_pb2_grpc import CustomerServiceStub
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing.v1.event_service_pb2_grpc import EventServiceStub
from tests.conftest import temporary_data_directory
from tests.start.test_server import Process, running

CREATE: Final = "/billing.v1.CustomerService/CreateCustomer"
GROWTH_KIB_MAX: Final = 24 * 1024
"""More memory than this for one kind of harm is a leak, or a bomb that went off."""

STREAMS: Final = 3_000
"""Opened one after the other, some at a time. What each leaves behind would be seen after a few hundred."""

HARM_SECONDS_MAX: Final = 600
"""Nobody opens and leaves for so long, unless something hangs."""


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    with temporary_data_directory() as directory, running(directory) as started:
        started.wait_until_serving()
        yield started


@pytest.fixture
def target(process: Process) -> str:
    found = re.search(r"^Serving on (\S+)\.$", process.text, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
async def channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield opened


def memory_kib(process: Process) -> int:
    """What the server holds in memory."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def login(process: Process) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {process.key}"),)


async def still_serves(channel: grpc.aio.Channel, process: Process) -> None:
    """Others are answered, and soon."""
    stub = CustomerServiceStub(channel)
    await stub.ListCustomers(ListCustomersRequest(page_size=1), metadata=login(process), timeout=30)


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


@pytest.mark.parametrize("megabytes", [5, 64, 256])
async def test_a_compressed_bomb_is_refused_unopened(
    process: Process, channel: grpc.aio.Channel, megabytes: int
) -> None:
    before = memory_kib(process)
    call: Any = channel.unary_unary(CREATE)
    bomb = bytes(megabytes << 20)
    code = await refused(call(bomb, metadata=login(process), timeout=60, compression=grpc.Compression.Gzip))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert memory_kib(process) - before < GROWTH_KIB_MAX
    await still_serves(channel, process)


async def test_messages_in_messages_in_messages_are_refused(process: Process, channel: grpc.aio.Channel) -> None:
    """Groups that open 100,000 times, in a field that nobody knows; parsers that recurse would end here."""
    call: Any = channel.unary_unary(CREATE)
    nested = b"\xa3\x06" * 100_000
    assert await refused(call(nested, metadata=login(process), timeout=60)) == grpc.StatusCode.INVALID_ARGUMENT
    await still_serves(channel, process)


async def test_a_map_with_very_many_entries_is_refused(process: Process, channel: grpc.aio.Channel) -> None:
    before = memory_kib(process)
    request = CreateCustomerRequest(name="Ada", metadata={str(number): "x" for number in range(200_000)})
    code = await refused(CustomerServiceStub(channel).CreateCustomer(request, metadata=login(process), timeout=60))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert memory_kib(process) - before < 4 * GROWTH_KIB_MAX
    await still_serves(channel, process)


async def test_long_metadata_is_refused(process: Process, channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary(CREATE)
    for value in ("x" * 12_000, "x" * 200_000):
        many = (*login(process), ("idempotency-key", value), ("x-other", value))
        code = await refused(call(b"", metadata=many, timeout=60))
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT), code
    await still_serves(channel, process)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00" * 50,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)) * 40,
        # A header block that goes on for ever.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        + b"\x00\x40\x00\x01\x00\x00\x00\x00\x01" * 3,
    ],
    ids=["silence", "half a greeting", "another protocol", "TLS", "noise", "endless headers"],
)
async def test_connections_that_go_nowhere_cost_little(
    process: Process, channel: grpc.aio.Channel, target: str, said: bytes
) -> None:
    before = memory_kib(process)
    host, _, port = target.rpartition(":")
    open_ones = []
    try:
        for _ in range(200):
            connection = socket.create_connection((host, int(port)), timeout=60)
            open_ones.append(connection)
            connection.sendall(said)
        await still_serves(channel, process)
        assert memory_kib(process) - before < GROWTH_KIB_MAX
    finally:
        for connection in open_ones:
            connection.close()
    await still_serves(channel, process)


async def test_streams_that_come_and_go_leave_nothing_behind(process: Process, channel: grpc.aio.Channel) -> None:
    stub = EventServiceStub(channel)
    await _open_and_leave(stub, process, STREAMS // 3)
    before = memory_kib(process)
    await _open_and_leave(stub, process, STREAMS)
    assert memory_kib(process) - before < GROWTH_KIB_MAX // 4
    await still_serves(channel, process)


async def _open_and_leave(stub: Any, process: Process, number: int) -> None:
    """Open streams, thirty at a time; leave each at another moment."""

    async def one(turn: int) -> None:
        call = stub.StreamEvents(StreamEventsRequest(batch_max=1), metadata=login(process))
        if turn % 3:
            await call.read()
        call.cancel()
        await asyncio.gather(call.code(), return_exceptions=True)

    async with asyncio.timeout(HARM_SECONDS_MAX):
        for first in range(0, number, 30):
            await asyncio.gather(*(one(turn) for turn in range(first, first + 30)))


async def test_calls_that_are_given_up_leave_nothing_behind(process: Process, channel: grpc.aio.Channel) -> None:
    stub = CustomerServiceStub(channel)

    async def one(turn: int) -> None:
        call = stub.ListCustomers(ListCustomersRequest(), metadata=login(process), timeout=0.001 * (turn % 5) or None)
        await asyncio.sleep(0.0005 * (turn % 4))
        call.cancel()
        await asyncio.gather(call.code(), return_exceptions=True)

    async def very_many(number: int) -> None:
        async with asyncio.timeout(HARM_SECONDS_MAX):
            for first in range(0, number, 30):
                await asyncio.gather(*(one(turn) for turn in range(first, first + 30)))

    await very_many(300)
    before = memory_kib(process)
    await very_many(600)
    assert memory_kib(process) - before < GROWTH_KIB_MAX // 4
    await still_serves(channel, process)
