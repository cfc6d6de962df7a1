"""Every method of the contract, by its descriptors: keys, scopes, other accounts' objects."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import grpc
import pytest

from billing_server.bootstrap import Server
from billing_server.wire.contract import METHODS
from tests.api.world import REQUESTS, World, build, call, names_others, path_of, request_of, unknown_ids
from tests.serving import Caller, info_of, new_caller, status_of


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
    unknown = unknown_ids(stranger)
    try:
        told = [await _told(stranger, name, ids) for ids in (world, unknown)]
    finally:
        await stranger.close()
    assert told[0] == told[1]


async def _told(stranger: Caller, name: str, ids: World) -> tuple[object, ...]:
    """All that a method tells, without the ids that were asked for."""
    request = request_of(name, ids).SerializeToString()
    asked_for = "|".join(map(re.escape, ids.values()))
    try:
        # Streams refuse one thing among others in their answers.
        answer = await call(stranger, name, request, stranger.login)
        return ("OK", re.sub(asked_for.encode(), b"ID", answer))
    except grpc.aio.AioRpcError as error:
        details = str(status_of(error))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        return (error.code(), re.sub(asked_for, "ID", f"{error.details()} {details}"))


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
