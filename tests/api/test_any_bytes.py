"""Any bytes in, never INTERNAL out (promise 23): made-up messages and mangled bytes for every method."""

from __future__ import annotations

import os
import random
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from billing.v1.errors_pb2 import ERROR_REASON_INTERNAL, ERROR_REASON_UNSPECIFIED
from billing.v1.event_service_pb2 import ConsumeOpening, ConsumeRequest
from billing_server.wire.contract import METHODS
from tests.api.world import World, build
from tests.serving import Caller, answered, info_of

ROUNDS = int(os.environ.get("BILLING_FUZZ_ROUNDS", "12"))
NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE}
TEXTS = (
    "",
    "x",
    "a\x00b",
    "usd",
    "é" * 300,
    "4242424242424242",
    "cus_",
    "*",
    "-1",
    "1e400",
    "0.5",
    "🧾",
    "%_\\",
    "'; --",
)
NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 253_402_300_799, 10**12)
INTEGERS_OF_32_BITS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM)


class Maker:
    """Makes messages by chance, with ids that exist among nonsense."""

    def __init__(self, seed: str, world: World) -> None:
        self._random = random.Random(seed)
        self._ids = tuple(world.values())

    def fill(self, message: Message, depth: int = 0) -> None:
        """Set some fields of a message."""
        for field in message.DESCRIPTOR.fields:
            likely = 0.9 if depth == 0 and field.name in ("id", "customer", "items", "invoice") else 0.3
            if self._random.random() > likely or depth > 3:
                continue
            self._set(message, field, depth)

    def _set(self, message: Any, field: Any, depth: int) -> None:
        descriptor: Descriptor | None = field.message_type
        if descriptor is not None and descriptor.GetOptions().map_entry:
            for _ in range(self._random.randint(0, 3)):
                getattr(message, field.name)[self._text()] = self._text()
        elif field.is_repeated:
            for _ in range(self._random.choice((0, 1, 2, 30))):
                if descriptor is None:
                    getattr(message, field.name).append(self._scalar(field))
                else:
                    self.fill(getattr(message, field.name).add(), depth + 1)
        elif descriptor is None:
            setattr(message, field.name, self._scalar(field))
        else:
            getattr(message, field.name).SetInParent()
            self.fill(getattr(message, field.name), depth + 1)

    def _scalar(self, field: Any) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text()
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self._random.random() < 0.5
        narrow = field.type in INTEGERS_OF_32_BITS
        return self._random.choice([n for n in NUMBERS if not narrow or -(2**31) <= n < 2**31])

    def _text(self) -> str:
        return self._random.choice(self._ids if self._random.random() < 0.5 else TEXTS)

    def mangled(self, data: bytes) -> bytes:
        """The bytes with some of them changed, or cut off."""
        content = bytearray(data or b"\x0a\x03abc")
        for _ in range(self._random.randint(1, 4)):
            content[self._random.randrange(len(content))] = self._random.randrange(256)
        return bytes(content[: self._random.randint(1, len(content))])


@pytest.mark.parametrize("path", sorted(METHODS))
async def test_no_bytes_break_a_method(caller: Caller, path: str) -> None:
    world = await build(caller)
    others = {thing: identity for thing, identity in world.items() if identity != caller.key_id}
    method = METHODS[path]
    for number in range(ROUNDS):
        maker = Maker(f"{path} {number}", others)
        request = method.request_type()
        maker.fill(request)
        data = request.SerializeToString()
        for sent in (data, maker.mangled(data)):
            if method.request_type is ConsumeRequest:
                opening = ConsumeRequest(opening=ConsumeOpening(consumer=world["consumer"])).SerializeToString()
                await _converse(caller, path, [sent])
                await _converse(caller, path, [opening, sent])
            elif method.gathers and method.streams:
                await _converse(caller, path, [sent, data, sent])
            else:
                await _send(caller, path, sent, streams=method.streams)


async def _converse(caller: Caller, path: str, messages: list[bytes]) -> None:
    stub: Any = caller.channel.stream_stream(path)

    async def converse() -> None:
        async for answer in stub(iter(messages), metadata=caller.login, timeout=60):
            for result in getattr(METHODS[path].response_type.FromString(answer), "results", ()):
                refused = result.HasField("refusal")
                assert not refused or result.refusal.reason not in (ERROR_REASON_UNSPECIFIED, ERROR_REASON_INTERNAL)

    try:
        await answered(converse)
    except grpc.aio.AioRpcError as error:
        assert error.code() not in NEVER, (error, messages)
        assert info_of(error).reason


async def _send(caller: Caller, path: str, data: bytes, *, streams: bool) -> None:
    try:
        if not streams:
            await caller.raw(path, data)
            return
        stub: Any = caller.channel.unary_stream(path)
        stream = stub(data, metadata=caller.login, timeout=60)
        await stream.read()
        stream.cancel()
    except grpc.aio.AioRpcError as error:
        assert error.code() not in NEVER, (error, data)
        assert info_of(error).reason
