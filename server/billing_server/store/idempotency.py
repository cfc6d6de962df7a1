"""How answers to commands are remembered, so that a repeated command gets the same answer."""

from __future__ import annotations

from typing import Literal

import msgspec

from billing_server.store.rows import Rows


class IdempotencyRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one key: the request it came with, and the answer once there is one.

    `in_progress` commands wait for a payment; `resource` then names the object that they are about.
    `created` is real time in seconds.
    """

    key: str
    method: str
    request_hash: bytes
    state: Literal["in_progress", "complete"]
    resource: str | None = None
    response: bytes | None = None
    created: int


IDEMPOTENCY = Rows(IdempotencyRow, "idempotency", "idempotency_keys", "idempotency_key_row", keys=frozenset({"key"}))
