"""Every field of every request that names an object: what others have is as if it were not there (promise 22).

Generated from the descriptors. A new field of text must be told apart here: it names an object of a kind, or none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from billing_server.bootstrap import Server
from billing_server.wire.contract import METHODS
from tests.api.world import REQUESTS, World, build, call, path_of, request_of, unknown_ids
from tests.serving import Caller, new_caller, status_of

NAMING: Final = {
    "automation": "automation",
    "consumer": "consumer",
    "customer": "customer",
    "default_payment_method": "payment_method",
    "default_price": "price",
    "endpoint": "webhook_endpoint",
    "event": "event",
    "from_subscription": "subscription",
    "ids": "automation",
    "invoice": "invoice",
    "meter": "meter",
    "object_id": "customer",
    "object_ids": "customer",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "price": "price",
    "prices": "price",
    "product": "product",
    "products": "product",
    "subscription": "subscription",
    "test_clock": "clock",
}
"""What fields of these names name; `id` names the method's own kind, which the requests of `world` do."""

PLAIN: Final = frozenset(
    {
        "billing_email",
        "billing_name",
        "billing_page_url",
        "brand",
        "cancellation_comment",
        "cancellation_policy_url",
        "city",
        "comment",
        "company_domain",
        "company_name",
        "country",
        "currency",
        "default_currency",
        "description",
        "display_name",
        "email",
        "etag",
        "event_name",
        "event_types",
        "fingerprint",
        "footer",
        "id",
        "idempotency_key",
        "identifier",
        "invoice_prefix",
        "key",
        "last4",
        "line1",
        "line2",
        "lookup_key",
        "lookup_keys",
        "memo",
        "name",
        "nickname",
        "page_token",
        "phone",
        "postal_code",
        "preferred_locale",
        "reason",
        "recipe",
        "recipients",
        "scopes",
        "segments",
        "state",
        "statement_descriptor",
        "survey_url",
        "team_users",
        "token",
        "types",
        "unit_amount",
        "unit_label",
        "url",
        "value",
    }
)
"""Names of fields of text that name no object."""

FILTERING: Final = ("List", "Stream", "Backtest", "Consume", "ReportMeterEvents", "CreateSubscriptions")
"""Methods that answer what is known of something unknown, which is nothing, or refuse it among others."""

Path = tuple[FieldDescriptor, ...]


def _texts(descriptor: Any, path: Path = (), within: tuple[Any, ...] = ()) -> Iterator[Path]:
    """The paths of all fields of text; messages that hold themselves are entered once."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None:
            if field.type == FieldDescriptor.TYPE_STRING:
                yield (*path, field)
        elif not inner.GetOptions().map_entry and not inner.full_name.startswith("google.") and inner not in within:
            yield from _texts(inner, (*path, field), (*within, inner))


def _naming() -> Iterator[tuple[str, Path]]:
    # A new consumer filters by any customer; its name is taken when it is asked for a second time.
    for name in sorted(REQUESTS.keys() - {"EventService/CreateConsumer"}):
        for path in _texts(METHODS[path_of(name)].request_type.DESCRIPTOR):
            if path[-1].name in NAMING:
                yield name, path


CASES: Final = [
    pytest.param(name, path, id=f"{name}.{'.'.join(field.name for field in path)}") for name, path in _naming()
]


def test_every_field_of_text_is_told_apart() -> None:
    names = {path[-1].name for method in METHODS.values() for path in _texts(method.request_type.DESCRIPTOR)}
    assert names <= NAMING.keys() | PLAIN, "say which objects they name, in NAMING, or that they name none, in PLAIN"


def test_enough_is_asked() -> None:
    assert len(CASES) > 90


@pytest.fixture(scope="module")
async def strange(server: Server) -> AsyncIterator[tuple[Caller, World, World]]:
    """Somebody with one of everything, what they have, and what somebody else has."""
    other = await new_caller(server)
    theirs = await build(other)
    await other.close()
    stranger = await new_caller(server)
    yield stranger, await build(stranger), theirs
    await stranger.close()


@pytest.mark.parametrize(("name", "path"), CASES)
async def test_what_others_have_is_as_unknown(strange: tuple[Caller, World, World], name: str, path: Path) -> None:
    stranger, own, theirs = strange
    told = [await _told(stranger, name, own, path, ids) for ids in (theirs, unknown_ids(stranger))]
    assert told[0] == told[1]
    accepted = told[0][0] == "OK"
    assert not accepted or any(name.partition("/")[2].startswith(verb) for verb in FILTERING), "it was accepted"


async def _told(stranger: Caller, name: str, own: World, path: Path, ids: World) -> tuple[object, ...]:
    """What the method says when one field of an otherwise good request names something else."""
    kind = NAMING[path[-1].name]
    # Ids of other kinds are made of the same suffix.
    suffix = ids[kind].partition("_")[2]
    request = request_of(name, own)
    _set(request, path, ids[kind])
    try:
        answer = await call(stranger, name, request.SerializeToString(), stranger.login)
        return ("OK", answer.replace(suffix.encode(), b"ID"))
    except grpc.aio.AioRpcError as error:
        return (error.code(), f"{error.details()} {status_of(error)}".replace(suffix, "ID"))


def _set(message: Message, path: Path, value: str) -> None:
    """Set a field, making the messages on the way."""
    holder: Any = message
    for field in path[:-1]:
        inner = getattr(holder, field.name)
        if field.is_repeated:
            holder = inner[0] if inner else inner.add()
        else:
            inner.SetInParent()
            holder = inner
    last = path[-1]
    if last.is_repeated:
        del getattr(holder, last.name)[:]
        getattr(holder, last.name).append(value)
    else:
        setattr(holder, last.name, value)
