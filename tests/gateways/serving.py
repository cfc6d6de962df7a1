"""Gateways served in this process, and a wire between them and the engine that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from billing.gateway.v1 import gateway_pb2 as pb
from billing.gateway.v1.gateway_pb2_grpc import PaymentGatewayServicer, add_PaymentGatewayServicer_to_server
from billing_server.domain.commands import ChargeOutcome
from examples.payment_gateway.processor import Processor

Context = grpc.aio.ServicerContext[Any, Any]
KNOWN_SECONDS_MAX: Final = 120.0
CLOSE_SECONDS_MAX: Final = 30.0


class Server:
    """A server of one gateway on a port of its own."""

    def __init__(self, servicer: PaymentGatewayServicer, port: int = 0, tls: grpc.ServerCredentials | None = None):
        # Without it, two servers share a port for a moment when one follows the other.
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_PaymentGatewayServicer_to_server(servicer, self._server)
        address = f"127.0.0.1:{port}"
        if tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, tls)
        self.target = f"localhost:{self.port}"

    async def __aenter__(self) -> Server:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """Stop at once; calls under way break."""
        await self._server.stop(None)


class ScriptedGateway(PaymentGatewayServicer):
    """Answers everything by one result or one status, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.charge_result = pb.ChargeResult()
        self.refund_result = pb.RefundResult()
        self.status: grpc.StatusCode | None = None
        self.details = "because"
        self.open = asyncio.Event()
        self.open.set()

    async def _heard(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        await self.open.wait()
        if self.status is not None:
            await context.abort(self.status, self.details)

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        await self._heard(request, context)
        return self.charge_result

    async def GetCharge(self, request: pb.GetChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        await self._heard(request, context)
        return self.charge_result

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResult:  # noqa: N802  the contract's name
        await self._heard(request, context)
        return self.refund_result

    async def GetRefund(self, request: pb.GetRefundRequest, context: Context) -> pb.RefundResult:  # noqa: N802  the contract's name
        await self._heard(request, context)
        return self.refund_result


class GatedProcessor(Processor):
    """The example's processor, counting the charges that it is asked for, and waiting with them for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        self.charges: list[str] = []

    async def charge(self, key: str, request: pb.ChargeRequest) -> pb.ChargeResult:
        self.charges.append(key)
        self.reached.set()
        await self.gate.wait()
        return await super().charge(key, request)


class Wire:
    """A TCP connection's middle. `cut` breaks all that go through it, as a dying machine or network does."""

    def __init__(self) -> None:
        self.target = ""
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection, now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    @contextlib.asynccontextmanager
    async def to(self, port: int) -> AsyncIterator[Wire]:
        """Connect the far end to a port of this machine; `target` is the near end."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.cut()
            server.close()
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await server.wait_closed()


async def once_known(ask: Callable[[], Awaitable[ChargeOutcome]]) -> ChargeOutcome:
    """The first answer that tells something: connections take a moment to come back."""
    async with asyncio.timeout(KNOWN_SECONDS_MAX):
        while (outcome := await ask()).state == "unknown":  # noqa: ASYNC110  # only the gateway knows when
            await asyncio.sleep(0.05)
    return outcome
