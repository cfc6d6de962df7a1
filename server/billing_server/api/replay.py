"""Answers as they are kept beside idempotency keys: one byte that tells which kind, then the message.

A refusal is kept as the status that its caller got, so a repeated request is refused in the same words.
"""

from __future__ import annotations

import hashlib
from typing import Final

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from billing_server.api.refusals import status_of
from billing_server.domain.errors import DomainError

_RESPONSE: Final = b"\x01"
_REFUSAL: Final = b"\x02"


class Refused(Exception):
    """The kept answer is a refusal."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


def request_hash(path: str, request: Message) -> bytes:
    """What is equal for equal requests: method and canonical bytes."""
    return hashlib.sha256(path.encode() + b"\0" + request.SerializeToString(deterministic=True)).digest()


def keep_response(response: bytes) -> bytes:
    """A response as it is kept."""
    return _RESPONSE + response


def keep_refusal(error: DomainError) -> bytes:
    """A refusal as it is kept."""
    return _REFUSAL + status_of(error).SerializeToString()


def replayed(kept: bytes) -> bytes:
    """The serialized response that was kept. Raises Refused with the status of a refusal."""
    if kept[:1] == _REFUSAL:
        raise Refused(Status.FromString(kept[1:]))
    return kept[1:]
