"""Health, reflection and channelz: without a key, and true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from billing_server.api.server import SERVICE_NAMES
from billing_server.bootstrap import Server
from billing_server.config import Config
from tests.serving import serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.asynccontextmanager
async def health(server: Server) -> AsyncIterator[Any]:
    """A stub of the health service, whose types leave its methods out."""
    async with grpc.aio.insecure_channel(str(server.address)) as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def health_of(server: Server, service: str = "") -> int:
    async with health(server) as stub:
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)).status)


async def test_every_service_is_healthy_and_unknown_ones_are_not_found(server: Server) -> None:
    for name in ("", *SERVICE_NAMES):
        assert await health_of(server, name) == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_of(server, "billing.v1.NoService")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_timekeeper(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(server.engine.store, "due_accounts", lambda *_: fail())
    async with health(server) as stub:
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAMES[0]), timeout=60)
        assert [(await watch.read()).status for _ in range(2)] == [SERVING, NOT_SERVING]
        monkeypatch.undo()
        assert (await watch.read()).status == SERVING


async def test_a_draining_server_says_so_first(database_url: str, tmp_path: Path) -> None:
    async with serving(database_url, tmp_path) as server, health(server) as stub:
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        first = await watch.read()
        closing = asyncio.create_task(server.close())
        second = await watch.read()
        await closing
    assert (first.status, second.status) == (SERVING, NOT_SERVING)


async def test_reflection_shows_all_services(server: Server) -> None:
    def services() -> set[str]:
        with grpc.insecure_channel(str(server.address)) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert set(SERVICE_NAMES) < await asyncio.to_thread(services)


def test_reflection_is_off_where_others_can_reach_the_server() -> None:
    settings = {"BILLING_LISTEN": "0.0.0.0:1", "BILLING_ALLOW_PLAINTEXT": "true"}
    assert not Config.from_environment(settings).reflection
