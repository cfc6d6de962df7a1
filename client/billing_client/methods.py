"""What the contract says about its methods: which of them change nothing.

Read from the option `idempotency_level` of the protos, so that a method that is added needs no change here.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from billing.v1 import (
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

SERVICES: Final[tuple[ServiceDescriptor, ...]] = tuple(
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
"""All services of the contract."""


def changes_nothing(method: MethodDescriptor) -> bool:
    """Whether the method only reads."""
    return method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS


READING_METHODS: Final[frozenset[str]] = frozenset(
    f"/{service.full_name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if changes_nothing(method)
)
"""Paths of the methods that only read, such as "/billing.v1.InvoiceService/GetInvoice"."""
