"""Pages: how many objects, and tokens that say where the next page begins.

A token is bound to the query that gave it, and means nothing to another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from google.protobuf.message import Message

from billing_server.domain.errors import invalid

SIZE_DEFAULT: Final = 50
SIZE_MAX: Final = 1_000
BYTES_MAX: Final = 3_500_000
"""A page that would be larger ends earlier: clients accept 4 MiB unless they are told otherwise."""

_DIGEST_BYTES: Final = 12

CursorInteger: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number within a token: whoever makes one up must not get it past PostgreSQL's bigint."""

T = TypeVar("T")


def page_size(request: Any) -> int:
    """How many objects the page may hold. Raises InvalidArgument."""
    size: int = request.page_size
    if not 0 <= size <= SIZE_MAX:
        raise invalid("page_size", "parameter_invalid_integer", f"must be 1 to {SIZE_MAX}, or 0 for {SIZE_DEFAULT}")
    return size or SIZE_DEFAULT


def make_token(path: str, request: Message, cursor: object) -> str:
    """The token of the page behind a cursor; empty without one."""
    if cursor is None:
        return ""
    return base64.urlsafe_b64encode(_query(path, request) + msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def read_token(path: str, request: Any, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """The cursor of the request's token; None on the first page. Raises InvalidArgument."""
    token: str = request.page_token
    if not token:
        return None
    try:
        content = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        cursor = decoder.decode(content[_DIGEST_BYTES:])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise invalid("page_token", "page_token_invalid", "is no token of a page") from None
    if content[:_DIGEST_BYTES] != _query(path, request):
        raise invalid("page_token", "page_token_invalid", "belongs to a request with other filters")
    return cursor


def fitting(sizes: Iterable[int]) -> int:
    """How many messages of these sizes a page takes; at least the first."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > BYTES_MAX:
            break
        count += 1
    return count


def _query(path: str, request: Message) -> bytes:
    """A digest of the method and its filters."""
    query = type(request)()
    query.CopyFrom(request)
    for field in ("page_token", "page_size"):
        query.ClearField(field)
    return hashlib.sha256(path.encode() + b"\0" + query.SerializeToString(deterministic=True)).digest()[:_DIGEST_BYTES]
