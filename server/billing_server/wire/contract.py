"""What the protos say about methods and refusals, read from their options.

The options stand in the protos so that other languages and `grpcurl describe` have them too; the server obeys
the same words.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from billing.v1 import (
    account_service_pb2,
    automation_service_pb2,
    catalog_service_pb2,
    customer_service_pb2,
    errors_pb2,
    event_service_pb2,
    invoice_service_pb2,
    meter_service_pb2,
    options_pb2,
    payment_service_pb2,
    schedule_service_pb2,
    subscription_service_pb2,
    test_clock_service_pb2,
    webhook_service_pb2,
)

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (
        account_service_pb2,
        automation_service_pb2,
        catalog_service_pb2,
        customer_service_pb2,
        event_service_pb2,
        invoice_service_pb2,
        meter_service_pb2,
        payment_service_pb2,
        schedule_service_pb2,
        subscription_service_pb2,
        test_clock_service_pb2,
        webhook_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The services of `billing.v1`."""

_REASON_PREFIX = "ERROR_REASON_"


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One method: its path as gRPC names it, the scope it needs, and whether it changes anything.

    `streams` says that it answers by a stream, `gathers` that it is asked by one.
    """

    path: str
    scope: str
    mutates: bool
    streams: bool
    gathers: bool
    request_type: type[Message]
    response_type: type[Message]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One error reason: its name in `domain.errors`, its gRPC status code, what caused it and the way out."""

    name: str
    grpc_code: str
    cause: str
    way_out: str


def _method(service: ServiceDescriptor, method: MethodDescriptor) -> Method:
    options = method.GetOptions()
    return Method(
        path=f"/{service.full_name}/{method.name}",
        scope=options.Extensions[options_pb2.scope],
        mutates=options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS,
        streams=method.server_streaming,
        gathers=method.client_streaming,
        request_type=GetMessageClass(method.input_type),
        response_type=GetMessageClass(method.output_type),
    )


def _reasons() -> dict[str, Reason]:
    found = {}
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values:
        if value.number == 0:
            continue
        description = value.GetOptions().Extensions[options_pb2.description]
        name = value.name.removeprefix(_REASON_PREFIX).lower()
        found[name] = Reason(
            name=name,
            grpc_code=description.grpc_code,
            cause=description.cause,
            way_out=description.way_out,
        )
    return found


METHODS: Mapping[str, Method] = {
    found.path: found for service in SERVICES for found in (_method(service, method) for method in service.methods)
}
"""Every method by its path, such as "/billing.v1.InvoiceService/PayInvoice"."""

REASONS: Mapping[str, Reason] = _reasons()
"""Every error reason by its name, such as "card_declined"."""
