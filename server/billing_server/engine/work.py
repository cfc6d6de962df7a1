"""What goes through the door: commands with their callers, and what comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from billing_server.domain.commands import Command
from billing_server.domain.errors import DomainError
from billing_server.domain.event import Cause
from billing_server.domain.payment import PaymentAttempt, Refund


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and how the answer is kept for a repetition of the same request.

    `encode` and `encode_refusal` turn the result (as it is seen at a moment), or the refusal after a charge was
    tried, into what is stored beside the idempotency key. Nothing is stored without a key.
    """

    method: str
    request_id: str | None = None
    idempotency_key: str | None = None
    request_hash: bytes = b""
    encode: Callable[[msgspec.Struct, int], bytes] | None = None
    encode_refusal: Callable[[DomainError], bytes] | None = None

    @property
    def cause(self) -> Cause:
        """The cause of the events that the caller's command makes."""
        return Cause(kind="rpc", method=self.method, idempotency_key=self.idempotency_key, request_id=self.request_id)


class Answer(msgspec.Struct, frozen=True):
    """The result of a command, or the stored answer to an earlier request with the same idempotency key.

    `now` is the moment at which the result is seen: real time, or that of its customer's test clock.
    """

    result: msgspec.Struct | None
    replay: bytes | None = None
    now: int | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one piece of work: its result, and what the gateway must be asked before it is final.

    `replay` is the stored answer of an earlier request with the same key. `unfinished` names the attempt on
    which an earlier request with the same key still depended.
    """

    now: int = 0
    result: msgspec.Struct | None = None
    charges: tuple[PaymentAttempt, ...] = ()
    refunds: tuple[Refund, ...] = ()
    replay: bytes | None = None
    unfinished: str | None = None
    refusal: DomainError | None = None

    @property
    def settled(self) -> bool:
        """Whether nobody has to be asked any more."""
        return self.replay is not None or not (self.unfinished or self.charges or self.refunds)


class Origin(msgspec.Struct, frozen=True):
    """The request that a settlement concludes: its command, its caller, and its result before the charge."""

    command: Command
    caller: Caller | None
    result: msgspec.Struct | None


Promise: TypeAlias = "asyncio.Future[Answered]"


class Work:
    """One command on its way through the door."""

    __slots__ = ("caller", "cause", "command", "origin", "promise")

    def __init__(
        self,
        command: Command,
        cause: Cause,
        promise: Promise,
        *,
        caller: Caller | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.command = command
        self.cause = cause
        self.promise = promise
        self.caller = caller
        self.origin = origin

    @property
    def key(self) -> str | None:
        """The idempotency key whose answer this work gives or concludes."""
        if self.caller is not None:
            return self.caller.idempotency_key
        if self.origin is not None and self.origin.caller is not None:
            return self.origin.caller.idempotency_key
        return None

    def give(self, answered: Answered) -> None:
        """Tell who waits; whoever has gone away in the meantime changes nothing."""
        if not self.promise.done():
            self.promise.set_result(answered)

    def fail(self, error: BaseException) -> None:
        """Tell who waits that it did not work."""
        if not self.promise.done():
            self.promise.set_exception(error)


class Woken(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch of wake-ups led to. `horizon` is how far time has come in all books that were due.

    `books` counts those that were claimed, `parked` those of them that failed and were put aside, `unfinished` those
    in which time stopped before usage that has to be loaded first: they are due again at once. `late` tells of each
    book of real time for how many seconds it had been due.
    """

    books: int = 0
    parked: int = 0
    unfinished: int = 0
    events: int = 0
    horizon: int = 0
    late: tuple[int, ...] = ()
    charges: tuple[PaymentAttempt, ...] = ()
    refunds: tuple[Refund, ...] = ()


OnLocked = Callable[[], None]
"""Is told that a batch holds all locks of its books: from now on it works."""

OnClaimed = Callable[[int], None]
"""Is told how many books a batch has found due and locked."""


def nobody_asks() -> None:
    """Whether a batch has its locks matters to nobody."""


def nobody_waits(_claimed: int) -> None:
    """What a batch has found matters to nobody before its end."""
