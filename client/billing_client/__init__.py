"""Async Python client of the billing engine, and the `billing` command line built on it.

    from billing_client import BillingClient

`BillingClient` holds the connection; `billing_client.errors` draws the tree of what may go wrong; requests and
responses are the generated messages of `billing.v1`.
"""

from __future__ import annotations

from billing_client.calls import idempotency_key
from billing_client.channel import Tls
from billing_client.client import BillingClient
from billing_client.consumers import ConsumerStream, Delivery
from billing_client.errors import (
    AlreadyExists,
    ApiKeyMissing,
    BillingError,
    ClockStuck,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgument,
    LimitReached,
    NotFound,
    PaymentFailed,
    PermissionDenied,
    PositionOutOfRange,
    ServerFailed,
    Unauthenticated,
    Unsupported,
    Violation,
    WrongState,
)
from billing_client.events import EventStream
from billing_client.retry import RetryPolicy

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "ApiKeyMissing",
    "BillingClient",
    "BillingError",
    "ClockStuck",
    "Conflict",
    "ConnectionFailed",
    "ConsumerStream",
    "DeadlineExceeded",
    "Delivery",
    "EventStream",
    "InvalidArgument",
    "LimitReached",
    "NotFound",
    "PaymentFailed",
    "PermissionDenied",
    "PositionOutOfRange",
    "RetryPolicy",
    "ServerFailed",
    "Tls",
    "Unauthenticated",
    "Unsupported",
    "Violation",
    "WrongState",
    "idempotency_key",
]
