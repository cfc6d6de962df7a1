"""Reflection serves the comments, and finds every service, method, message, field and enum value by name."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection import SERVICE_NAME
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from billing_server.wire.contract import METHODS
from tests.serving import Caller


async def _files_of(caller: Caller, symbol: str) -> list[FileDescriptorProto]:
    ask: Any = caller.channel.stream_stream(f"/{SERVICE_NAME}/ServerReflectionInfo")
    call: Any = ask(iter([ServerReflectionRequest(file_containing_symbol=symbol).SerializeToString()]))
    answer = ServerReflectionResponse.FromString(await call.read())
    call.cancel()
    found = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(file) for file in found]


async def test_every_method_is_found_with_its_comment(caller: Caller) -> None:
    for path in METHODS:
        symbol = path.removeprefix("/").replace("/", ".")
        file = (await _files_of(caller, symbol))[0]
        comments = " ".join(entry.leading_comments for entry in file.source_code_info.location)
        assert "grpcurl" in comments, symbol


async def test_fields_and_values_are_found(caller: Caller) -> None:
    for symbol in (
        "billing.v1.Subscription.cancel_at",
        "billing.v1.SUBSCRIPTION_STATUS_PAST_DUE",
        "billing.v1.ErrorReason",
        "grpc.health.v1.Health",
        "google.protobuf.Timestamp",
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    ):
        assert await _files_of(caller, symbol), symbol
    assert not await _files_of(caller, "billing.v1.Nothing")
