"""The memory of the built-in test gateway: what it was asked, and what it did, by idempotency key.

It is kept in PostgreSQL so that the gateway answers a repeated key as it did the first time, from any process
and after any restart; real gateways do the same.
"""

from __future__ import annotations

import msgspec

from billing_server.store.rows import Rows


class GatewayRow(msgspec.Struct, frozen=True, kw_only=True):
    """What happened under one key. `effects` is how often money moved, `created` real time in seconds."""

    key: str
    fingerprint: bytes
    outcome: bytes
    effects: int
    created: int


class RememberedRow(msgspec.Struct, frozen=True, kw_only=True):
    """The first row written under a key, and how often it was asked for. 1: just now, for the first time."""

    row: GatewayRow
    asked: int


GATEWAY_ROWS = Rows(GatewayRow, "test_gateway", "test_gateway_charges", "test_gateway_row", keys=frozenset({"key"}))
