"""Every method of the contract, by its descriptors: keys, scopes, other accounts' objects."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from billing_server.bootstrap import Server
from billing_server.wire.contract import METHODS
from tests.api.world import REQUESTS, World, build, names_others, path_of, request_of
from tests.serving import Caller, info_of, new_caller, status_of

UNKNOWN_OF = {
    "customer": "cus",
    "payment_method": "pm",
    "price": "price",
    "subscription": "sub",
    "schedule": "sub_sched",
    "item": "si",
    "invoice": "in",
    "draft": "in",
    "invoice_item": "ii",
    "credit_note": "cn",
    "payment_intent": "pi",
    "attempt": "pa",
    "refund": "re",
    "clock": "clock",
    "meter": "mtr",
    "automation": "bauto",
    "automation_run": "bautorun",
    "event": "evt",
    "webhook_endpoint": "we",
    "webhook_delivery": "wd",
    "api_key": "key",
    "product": "prod",
}


async def call(caller: Caller, name: str, request: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """Call any method with bytes; of a stream, the first message."""
    path = path_of(name)
    if METHODS[path].gathers:
        gathering: Any = caller.channel.stream_unary(path)
        response: bytes = await gathering(iter([request]), metadata=metadata, timeout=20)
        return response
    if not METHODS[path].streams:
        return await caller.raw(path, request, metadata)
    stub: Any = caller.channel.unary_stream(path)
    stream = stub(request, metadata=metadata, timeout=20)
    try:
        first = await stream.read()
    finally:
        stream.cancel()
    assert isinstance(first, bytes), f"{name} ended without a message: {await stream.code()}"
    return first


async def refusal(
    caller: Caller, name: str, request: bytes, metadata: tuple[tuple[str, str], ...]
) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(caller, name, request, metadata)
    return caught.value


@pytest.fixture(scope="module")
async def owner(server: Server) -> AsyncIterator[Caller]:
    made = await new_caller(server)
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def world(owner: Caller) -> World:
    return await build(owner)


def test_every_method_has_a_request() -> None:
    assert {path_of(name) for name in REQUESTS} == set(METHODS)


@pytest.mark.parametrize("name", REQUESTS)
async def test_no_method_answers_without_a_key(owner: Caller, world: World, name: str) -> None:
    request = request_of(name, world).SerializeToString()
    for metadata in ((), (("authorization", "Bearer sk_wrong"),), (("authorization", f"Basic {owner.secret}"),)):
        error = await refusal(owner, name, request, metadata)
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        assert info_of(error).reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_method_needs_its_scope(server: Server, owner: Caller, world: World, name: str) -> None:
    needed = METHODS[path_of(name)].scope
    others = sorted({method.scope for method in METHODS.values()} - {needed})
    lacking = await new_caller(server, others, owner.account_id)
    try:
        error = await refusal(lacking, name, request_of(name, world).SerializeToString(), lacking.login)
    finally:
        await lacking.close()
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    assert info_of(error).reason == "SCOPE_MISSING"
    assert needed in (error.details() or "")


@pytest.mark.parametrize("name", [name for name in REQUESTS if names_others(name)])
async def test_objects_of_others_are_as_unknown_ones(server: Server, world: World, name: str) -> None:
    stranger = await new_caller(server)
    unknown = {thing: f"{prefix}_0000000000000000000000" for thing, prefix in UNKNOWN_OF.items()}
    unknown["webhook_delivery"] = f"wd_{0:034d}"
    unknown["event"] = f"evt_{stranger.account_id[-10:]}000000099999"
    try:
        told = [await _told(stranger, name, ids) for ids in (world, unknown)]
    finally:
        await stranger.close()
    assert told[0] == told[1]


async def _told(stranger: Caller, name: str, ids: World) -> tuple[object, ...]:
    """All that a method tells, without the ids that were asked for."""
    request = request_of(name, ids).SerializeToString()
    try:
        return ("OK", await call(stranger, name, request, stranger.login))
    except grpc.aio.AioRpcError as error:
        details = str(status_of(error))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        hidden = re.sub("|".join(map(re.escape, ids.values())), "ID", f"{error.details()} {details}")
        return (error.code(), hidden)


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_method_answers_with_its_scope_alone(server: Server, name: str) -> None:
    """Each on an account of its own, since some destroy what others need."""
    owner = await new_caller(server)
    world = await build(owner)
    scoped = await new_caller(server, [METHODS[path_of(name)].scope], owner.account_id)
    try:
        await call(scoped, name, request_of(name, world).SerializeToString(), scoped.login)
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    finally:
        await owner.close()
        await scoped.close()
