"""One call on its way through the edge: what it asks for, who asks, and what its log lines carry."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

import msgspec

from billing_server.domain.errors import invalid
from billing_server.wire.contract import Method

REQUEST_ID_KEY: Final = "x-request-id"
TRACE_KEY: Final = "traceparent"
IDEMPOTENCY_KEY: Final = "idempotency-key"
AUTHORIZATION_KEY: Final = "authorization"

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_IDEMPOTENCY: Final = re.compile(r"[\x20-\x7e]{1,255}")

Metadata = Iterable[tuple[str, str | bytes]]


class Identity(msgspec.Struct, frozen=True):
    """Whom an API key stands for. `secret_hash` is what the store finds the key by."""

    account_id: str
    key_id: str
    scopes: frozenset[str]
    secret_hash: bytes

    def may(self, scope: str) -> bool:
        """Whether the key holds a scope, by name or by the wildcard."""
        return scope in self.scopes or "*" in self.scopes


class Call:
    """A call as its layers see it. `identity` is known once it is authenticated."""

    __slots__ = ("_identity", "idempotency_key", "metadata", "method", "request_id", "trace_id")

    def __init__(self, method: Method, metadata: Metadata) -> None:
        self.method = method
        self.metadata = {key: value for key, value in metadata if isinstance(value, str)}
        self.request_id = _accepted_request_id(self.metadata.get(REQUEST_ID_KEY))
        trace = _TRACE.fullmatch(self.metadata.get(TRACE_KEY, ""))
        self.trace_id = None if trace is None else trace[1]
        self.idempotency_key: str | None = None
        self._identity: Identity | None = None

    @property
    def name(self) -> str:
        """The method's full name, such as "billing.v1.InvoiceService/PayInvoice"."""
        return self.method.path[1:]

    @property
    def identity(self) -> Identity:
        """Who calls; only after authentication."""
        if self._identity is None:
            raise AssertionError(f"{self.name} is not authenticated yet")
        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def account_id(self) -> str:
        """The account that the call is about: the one that the key belongs to."""
        return self.identity.account_id

    def log_fields(self) -> dict[str, str]:
        """What the call's log lines carry: method, request id, trace, account. Never a secret."""
        fields = {"method": self.name, "request_id": self.request_id}
        if self.trace_id is not None:
            fields["trace_id"] = self.trace_id
        if self._identity is not None:
            fields["account"] = self._identity.account_id
            fields["api_key"] = self._identity.key_id
        return fields

    def take_idempotency_key(self) -> None:
        """Read the idempotency key of a call that changes something. Raises InvalidArgument."""
        key = self.metadata.get(IDEMPOTENCY_KEY)
        if key is None or not self.method.mutates:
            return
        self.idempotency_key = check_idempotency_key(key, IDEMPOTENCY_KEY)


def check_idempotency_key(key: str, field: str) -> str:
    """The key, if it may be one. Raises InvalidArgument, which names the field that it came in."""
    if _IDEMPOTENCY.fullmatch(key) is None:
        raise invalid(field, "parameter_invalid", "must be 1 to 255 printable ASCII characters")
    return key


def _accepted_request_id(given: str | None) -> str:
    """The caller's own id for the request, where it is one; a new one otherwise."""
    if given is not None and _REQUEST_ID.fullmatch(given) is not None:
        return given
    return f"req_{secrets.token_hex(12)}"


RUNNING: ContextVar[Call] = ContextVar("RUNNING")
"""The call that is being worked on: log lines carry its `log_fields`."""
