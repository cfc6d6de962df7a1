"""How e-mail messages are stored and listed, claimed for sending, and settled."""

from __future__ import annotations

from typing import Final

import msgspec

from billing_server.domain.message import Message, MessageKind, MessageState
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

MESSAGES: Final = Rows(Message, "message", "messages", "message_row")


class MessageFilter(Filter[Message], frozen=True, kw_only=True):
    """Which messages to list."""

    customer: str | None = None
    kind: MessageKind | None = None
    state: MessageState | None = None


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a try to send a message.

    `attempts` is that of the message when it was claimed: whoever lost the claim meanwhile changes nothing. `wait`
    is how many seconds until the next try; None when the message is settled, well or (with an error) for good.
    """

    id: str
    attempts: int
    error: str | None = None
    wait: int | None = None
