"""How this client connects: TLS, keepalive, message sizes, and the gRPC service config it publishes.

`service_config()` is for clients in other languages: the methods that only read, and how they are retried;
`billing service-config` prints it. This client retries by itself, changes included, because only it knows their
idempotency keys; gRPC's own retries are off so that the two do not multiply.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from billing_client.credentials import is_loopback
from billing_client.methods import SERVICES, changes_nothing

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest response taken: a page of 1000 invoices with many lines passes gRPC's own 4 MiB."""

KEEPALIVE_SECONDS = 60
KEEPALIVE_TIMEOUT_SECONDS = 10

_READ_TIMEOUT_SECONDS = 30
_RETRY: dict[str, Any] = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates, as PEM: authorities to trust instead of the system's, and those of the client for mTLS."""

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None


def open_channel(
    target: str,
    tls: Tls | bool | None,
    interceptors: Sequence[grpc.aio.ClientInterceptor],
) -> grpc.aio.Channel:
    """A channel to HOST:PORT. `tls` None means TLS with the system's authorities except on loopback."""
    if tls is None:
        tls = not is_loopback(target)
    options = channel_options()
    if tls is False:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    certificates = Tls() if tls is True else tls
    credentials = grpc.ssl_channel_credentials(
        root_certificates=certificates.root_certificates,
        private_key=certificates.private_key,
        certificate_chain=certificates.certificate_chain,
    )
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def channel_options() -> list[tuple[str, Any]]:
    """Channel arguments: a server that restarts is found again within two seconds."""
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.enable_retries", 0),
    ]


def service_config() -> dict[str, Any]:
    """The service config for clients without retries of their own: deadlines, and retries of what only reads."""
    reading = [
        {"service": service.full_name, "method": method.name}
        for service in SERVICES
        for method in service.methods
        if changes_nothing(method) and not method.server_streaming
    ]
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {"name": reading, "timeout": f"{_READ_TIMEOUT_SECONDS}s", "retryPolicy": _RETRY},
        ],
    }


def service_config_text() -> str:
    """`service_config()` as JSON for people and files."""
    return json.dumps(service_config(), indent=2) + "\n"
