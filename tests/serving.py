"""A served engine for tests: the real server on a free loopback port, and callers with accounts of their own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from billing.v1 import (
    account_service_pb2_grpc,
    automation_service_pb2_grpc,
    catalog_service_pb2_grpc,
    customer_service_pb2_grpc,
    event_service_pb2_grpc,
    invoice_service_pb2_grpc,
    meter_service_pb2_grpc,
    payment_service_pb2_grpc,
    schedule_service_pb2_grpc,
    subscription_service_pb2_grpc,
    test_clock_service_pb2_grpc,
    webhook_service_pb2_grpc,
)
from billing_server.bootstrap import Server
from billing_server.config import Config

_ASKED_MAX: Final = 20

Answer = TypeVar("Answer")
Detail = TypeVar("Detail", bound=Message)
Options = Sequence[tuple[str, int]]

_PORTS: Final = range(15_000, 32_000)
"""Below those that the system gives to connections, and to listeners that take any."""

_DICE: Final = random.Random()
_given: Final[set[int]] = set()

_CLOSE_SECONDS_MAX: Final = 120.0


@contextlib.asynccontextmanager
async def serving(
    database_url: str, data_directory: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """A server on a migrated database, drained at the end. `settings` are environment variables."""
    environment = {
        "BILLING_LISTEN": "127.0.0.1:0",
        "BILLING_DATABASE_URL": database_url,
        "BILLING_DATA_DIR": str(data_directory),
        "BILLING_DRAIN_SECONDS": "5",
        **(settings or {}),
    }
    server = await Server.start(Config.from_environment(environment), database_url)
    try:
        yield server
    finally:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await server.close()
        except TimeoutError:
            raise AssertionError(f"the server did not end within {_CLOSE_SECONDS_MAX:g} seconds") from None


def hurry(reader: Caller, monkeypatch: pytest.MonkeyPatch, *, seconds: float, after: int = 0) -> None:
    """Have the server of a reader give up this one, and nobody else, when it takes nothing for so long.

    That holds from its stream's first message on, or `after` so many. A pause of the machine must not end the others.
    """
    chain = reader.server.chain
    write, patience, (key,) = chain._write, chain.write_seconds_max, reader.login
    written = 0

    async def hurried(context: Any, message: bytes) -> None:
        nonlocal written
        own = key in (context.invocation_metadata() or ())
        written += own
        chain.write_seconds_max = seconds if own and written > after else patience
        await write(context, message)

    monkeypatch.setattr(chain, "write_seconds_max", patience)
    monkeypatch.setattr(chain, "_write", hurried)


def free_port() -> int:
    """A port that nobody listens on just now, and that nobody is given before it is listened on."""
    while True:
        port = _DICE.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


class Caller:
    """Stubs of all services with one account's API key."""

    def __init__(self, server: Server, account_id: str, key_id: str, secret: str, options: Options = ()) -> None:
        self.server = server
        self.account_id = account_id
        self.key_id = key_id
        self.secret = secret
        self.channel = grpc.aio.insecure_channel(
            str(server.address), options=[("grpc.use_local_subchannel_pool", 1), *options], interceptors=[]
        )
        self.accounts = account_service_pb2_grpc.AccountServiceStub(self.channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)
        self.customers = customer_service_pb2_grpc.CustomerServiceStub(self.channel)
        self.events = event_service_pb2_grpc.EventServiceStub(self.channel)
        self.invoices = invoice_service_pb2_grpc.InvoiceServiceStub(self.channel)
        self.payments = payment_service_pb2_grpc.PaymentServiceStub(self.channel)
        self.schedules = schedule_service_pb2_grpc.SubscriptionScheduleServiceStub(self.channel)
        self.automations = automation_service_pb2_grpc.AutomationServiceStub(self.channel)
        self.meters = meter_service_pb2_grpc.MeterServiceStub(self.channel)
        self.subscriptions = subscription_service_pb2_grpc.SubscriptionServiceStub(self.channel)
        self.test_clocks = test_clock_service_pb2_grpc.TestClockServiceStub(self.channel)
        self.webhooks = webhook_service_pb2_grpc.WebhookServiceStub(self.channel)

    @property
    def login(self) -> tuple[tuple[str, str], ...]:
        """The metadata that authenticates a call."""
        return (("authorization", f"Bearer {self.secret}"),)

    def metadata(self, **more: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a call: the key, and `idempotency_key="…"` and the like with dashes for underscores."""
        return (*self.login, *((name.replace("_", "-"), value) for name, value in more.items()))

    async def raw(self, path: str, request: bytes, metadata: Sequence[tuple[str, str]] | None = None) -> bytes:
        """Send any bytes to a unary method, without a stub."""
        call: Any = self.channel.unary_unary(path)
        response: bytes = await call(request, metadata=self.login if metadata is None else metadata, timeout=60)
        return response

    async def close(self) -> None:
        """Give up the connection."""
        await self.channel.close()


async def new_caller(
    server: Server, scopes: Sequence[str] = ("*",), account_id: str | None = None, options: Options = ()
) -> Caller:
    """A caller with a key of its own, for a new account unless one is named."""
    engine = server.engine
    if account_id is None:
        account_id = (await engine.create_account(f"test {uuid.uuid4().hex[:8]}")).id
    key, secret = await engine.create_api_key(account_id, "test", scopes)
    return Caller(server, account_id, key.id, secret, options)


def status_of(error: grpc.aio.AioRpcError) -> Status:
    """The status with its details that came with a refusal."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return Status.FromString(value)
    raise AssertionError(f"a refusal without details: {error}")


def detail_of(error: grpc.aio.AioRpcError, detail_type: type[Detail]) -> Detail:
    """The detail of this type that came with a refusal."""
    for packed in status_of(error).details:
        detail = detail_type()
        if packed.Unpack(detail):
            return detail
    raise AssertionError(f"no {detail_type.__name__} in {status_of(error)}")


def info_of(error: grpc.aio.AioRpcError) -> ErrorInfo:
    """Reason and metadata of a refusal."""
    return detail_of(error, ErrorInfo)


def lost_while_sending(error: grpc.aio.AioRpcError) -> bool:
    """Whether gRPC's client has made an error up: it loses a refusal that arrives while it is still sending."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"


async def answered(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """What a call that sends a stream of messages comes to; asked again when gRPC's client has lost its refusal."""
    task = asyncio.current_task()
    for _ in range(_ASKED_MAX):
        try:
            return await ask()
        except grpc.aio.AioRpcError as error:
            if not lost_while_sending(error):
                raise
        except asyncio.CancelledError:
            # When the refusal arrives while the end of the messages is being sent, the client cancels the call.
            if task is None or task.cancelling():
                raise
    raise AssertionError(f"no answer of the server came through, {_ASKED_MAX} times")


@contextlib.contextmanager
def refused(code: grpc.StatusCode, reason: str) -> Iterator[list[grpc.aio.AioRpcError]]:
    """Expect a refusal; the list holds it afterwards."""
    caught: list[grpc.aio.AioRpcError] = []
    try:
        yield caught
    except grpc.aio.AioRpcError as error:
        assert (error.code(), info_of(error).reason) == (code, reason), error
        caught.append(error)
    else:
        raise AssertionError(f"not refused with {reason}")
