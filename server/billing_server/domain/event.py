"""Events: what happened, in the order in which it happened (semantics 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

CauseKind = Literal["rpc", "timer", "gateway"]

Attributes = Mapping[str, Any]


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What made an event happen: an RPC (with its idempotency key), the passing of time, or a gateway's word."""

    kind: CauseKind
    method: str | None = None
    idempotency_key: str | None = None
    request_id: str | None = None


class Event(msgspec.Struct, frozen=True):
    """A fact about one object: its type, the object as it then was, and what it was before.

    `created` is engine or test-clock time. `previous_attributes` is None but for `*.updated`.
    """

    type: str
    created: int
    customer: str | None
    object: msgspec.Struct
    previous_attributes: Attributes | None
    cause: Cause


def previous_attributes(old: msgspec.Struct, new: msgspec.Struct) -> dict[str, Any]:
    """The attributes that differ, with their old values: arrays whole, nested objects only changed keys."""
    changed: dict[str, Any] = {}
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before is after or before == after:
            continue
        if isinstance(before, msgspec.Struct) and type(before) is type(after):
            changed[name] = previous_attributes(before, after)
        elif isinstance(before, dict) and isinstance(after, dict):
            changed[name] = {
                key: before.get(key) for key in (*before, *after) if before.get(key) != after.get(key)
            }
        else:
            changed[name] = before
    return changed
