"""The built-in test gateway: moves no money, and otherwise behaves as a good gateway, or as a bad one on request.

What it did is remembered in PostgreSQL under the key of each request, so a repeated key is answered as at
first by any process and after any restart, and money "moves" once. Charges that arrive together are written
by one statement. Payment methods are those of semantics section 11 (see `tokens`); what goes wrong is chosen
by the token or, in tests, by `Faults`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from billing_server.domain.commands import ChargeOutcome, RefundOutcome
from billing_server.domain.customer import Card, PaymentMethodType
from billing_server.domain.errors import invalid
from billing_server.domain.payment import PaymentError
from billing_server.gateways.coalescing import Coalescer
from billing_server.gateways.faults import Call, Fault, Faults
from billing_server.gateways.port import ChargeRequest, RefundRequest
from billing_server.gateways.tokens import GATEWAY_DOWN, METHODS, SUFFIXES, decide, parse

LATE_SECONDS: Final = 3.0
"""How late a `slow` answer is."""

NO_ANSWER: Final = ChargeOutcome(state="unknown")
NO_REFUND_ANSWER: Final = RefundOutcome(state="unknown")
KEY_REUSED: Final = PaymentError(
    type="invalid_request_error",
    code="idempotency_mismatch",
    message="the key was used before, for a different request",
)
"""The error of an outcome that stays `unknown`: whatever the first request did, this one tells nothing."""

_log = logging.getLogger(__name__)


class MemoryRow(Protocol):
    """What the gateway reads back of what happened under one key."""

    @property
    def fingerprint(self) -> bytes: ...
    @property
    def outcome(self) -> bytes: ...


class Remembered(Protocol):
    """The first row of a key, and how often the key came; 1: just now, for the first time."""

    @property
    def row(self) -> MemoryRow: ...
    @property
    def asked(self) -> int: ...


Row = TypeVar("Row")
KeptRow = TypeVar("KeptRow", contravariant=True)
MadeRow = TypeVar("MadeRow", covariant=True)


class Memory(Protocol[KeptRow]):
    """Where the gateway remembers. `billing_server.store` is one; a known key keeps its first row."""

    async def remember_charges(self, account_id: str, rows: Sequence[KeptRow], /) -> Mapping[str, Remembered]: ...
    async def remember_refunds(self, account_id: str, rows: Sequence[KeptRow], /) -> Mapping[str, Remembered]: ...
    async def find_charges(self, account_id: str, keys: Sequence[str], /) -> Mapping[str, Remembered]: ...
    async def find_refunds(self, account_id: str, keys: Sequence[str], /) -> Mapping[str, Remembered]: ...


class MakeRow(Protocol[MadeRow]):
    """Makes what the memory keeps. `effects` is 1 if money moved, else 0; `created` is real time in seconds."""

    def __call__(self, *, key: str, fingerprint: bytes, outcome: bytes, effects: int, created: int) -> MadeRow: ...


class _Charge(msgspec.Struct, frozen=True, array_like=True):
    """A charge as it is remembered: what became of it, and what its refunds are checked against."""

    outcome: ChargeOutcome
    amount: int
    currency: str
    token: str


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_charge: Final = msgspec.msgpack.Decoder(_Charge).decode
_decode_refund: Final = msgspec.msgpack.Decoder(RefundOutcome).decode


class BuiltInGateway(Generic[Row]):
    """A `PaymentGateway` for tests, demonstrations and forecasts.

    `make_row` makes the rows of `memory`. `faults` chooses what goes wrong beside what tokens ask for;
    `late_seconds` is how late slow answers are; `now` tells real time in seconds.
    """

    def __init__(
        self,
        memory: Memory[Row],
        make_row: MakeRow[Row],
        *,
        faults: Faults | None = None,
        late_seconds: float = LATE_SECONDS,
        now: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._make_row = make_row
        self._faults = faults
        self._late_seconds = late_seconds
        self._now = now
        self._charges = Coalescer(memory.remember_charges)
        self._refunds = Coalescer(memory.remember_refunds)
        self._found_charges = Coalescer(memory.find_charges)
        self._found_refunds = Coalescer(memory.find_refunds)

    # --- charges

    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        """Charge once for the key, as the token says. An amount never matters."""
        injected = self._fault("charge", request.key)
        if injected in ("down", "timeout_before_effect"):
            return NO_ANSWER
        behavior = parse(request.token)
        asked_for = None if behavior is None else behavior.fault
        try:
            if asked_for == "timeout_before_effect" and await self._is_lost(request):
                return NO_ANSWER
            fault = injected or asked_for
            outcome = await self._charge_once(request)
            if fault == "duplicate":
                outcome = await self._charge_once(request)
        except TimeoutError:
            return NO_ANSWER
        if fault == "slow":
            await asyncio.sleep(self._late_seconds)
        return NO_ANSWER if fault == "timeout_after_effect" else outcome

    async def get_charge(self, account_id: str, key: str) -> ChargeOutcome:
        """Tell what became of a charge."""
        if await self._gets_no_answer("get_charge", key):
            return NO_ANSWER
        try:
            found = await self._found_charges.submit(account_id, key, key)
        except TimeoutError:
            return NO_ANSWER
        return ChargeOutcome(state="not_found") if found is None else _decode_charge(found.row.outcome).outcome

    async def _is_lost(self, request: ChargeRequest) -> bool:
        """Whether this is the first request of its key, to be lost. Remembered beside the charge itself."""
        key = f"{request.key}#lost"
        row = self._row(key, b"", _encode(_Charge(NO_ANSWER, request.amount, request.currency, "")), moved=False)
        remembered = await self._charges.submit(request.account_id, key, row)
        return _answered(remembered, key).asked == 1

    async def _charge_once(self, request: ChargeRequest) -> ChargeOutcome:
        charge = _Charge(decide(request), request.amount, request.currency, request.token)
        fingerprint = _fingerprint(request)
        row = self._row(request.key, fingerprint, _encode(charge), moved=charge.outcome.state == "succeeded")
        remembered = _answered(await self._charges.submit(request.account_id, request.key, row), request.key)
        if remembered.row.fingerprint != fingerprint:
            _log.error("key %s came with another charge than at first", request.key)
            return msgspec.structs.replace(NO_ANSWER, error=KEY_REUSED)
        return _decode_charge(remembered.row.outcome).outcome

    # --- refunds

    async def refund(self, request: RefundRequest) -> RefundOutcome:
        """Give back money of a charge that succeeded, once for the key.

        That all refunds of a charge together stay within its amount is the engine's business.
        """
        fault = self._fault("refund", request.key)
        if fault in ("down", "timeout_before_effect"):
            return NO_REFUND_ANSWER
        try:
            outcome = await self._refund_once(request)
            if fault == "duplicate":
                outcome = await self._refund_once(request)
        except TimeoutError:
            return NO_REFUND_ANSWER
        if fault == "slow":
            await asyncio.sleep(self._late_seconds)
        return NO_REFUND_ANSWER if fault == "timeout_after_effect" else outcome

    async def get_refund(self, account_id: str, key: str) -> RefundOutcome:
        """Tell what became of a refund."""
        if await self._gets_no_answer("get_refund", key):
            return NO_REFUND_ANSWER
        try:
            found = await self._found_refunds.submit(account_id, key, key)
        except TimeoutError:
            return NO_REFUND_ANSWER
        return RefundOutcome(state="not_found") if found is None else _decode_refund(found.row.outcome)

    async def _refund_once(self, request: RefundRequest) -> RefundOutcome:
        found = await self._found_charges.submit(request.account_id, request.charge_key, request.charge_key)
        outcome = _decide_refund(request, None if found is None else _decode_charge(found.row.outcome))
        fingerprint = _fingerprint(request)
        row = self._row(request.key, fingerprint, _encode(outcome), moved=outcome.state == "succeeded")
        remembered = _answered(await self._refunds.submit(request.account_id, request.key, row), request.key)
        if remembered.row.fingerprint != fingerprint:
            _log.error("key %s came with another refund than at first", request.key)
            return msgspec.structs.replace(NO_REFUND_ANSWER, failure_message=KEY_REUSED.message)
        return _decode_refund(remembered.row.outcome)

    # --- both

    def describe(self, token: str, method_type: PaymentMethodType) -> Card | None:
        """What may be shown of the token's card. Raises InvalidArgument, naming the tokens that there are."""
        behavior = parse(token)
        if behavior is None:
            raise invalid("token", "parameter_invalid", _known_tokens(token))
        if behavior.method.type != method_type:
            raise invalid(
                "token",
                "parameter_invalid",
                f"'{token}' is of type {behavior.method.type}, not {method_type}; set the type, or use another token",
            )
        return behavior.method.card

    async def close(self) -> None:
        """Wait until all that was asked for is written."""
        for coalescer in (self._charges, self._refunds, self._found_charges, self._found_refunds):
            await coalescer.close()

    def _fault(self, call: Call, key: str) -> Fault | None:
        return None if self._faults is None else self._faults.choose(call, key)

    async def _gets_no_answer(self, call: Call, key: str) -> bool:
        fault = self._fault(call, key)
        if fault == "slow":
            await asyncio.sleep(self._late_seconds)
        return fault in ("down", "timeout_before_effect", "timeout_after_effect")

    def _row(self, key: str, fingerprint: bytes, outcome: bytes, *, moved: bool) -> Row:
        return self._make_row(
            key=key, fingerprint=fingerprint, outcome=outcome, effects=int(moved), created=self._now()
        )


def _answered(remembered: Remembered | None, key: str) -> Remembered:
    if remembered is None:
        raise LookupError(f"the memory of the test gateway gave no answer for key {key}")
    return remembered


def _fingerprint(request: ChargeRequest | RefundRequest) -> bytes:
    """What is equal for equal requests. Metadata is not compared: it has no part in moving money."""
    return hashlib.blake2b(_encode(msgspec.structs.replace(request, metadata={})), digest_size=16).digest()


def _decide_refund(request: RefundRequest, charge: _Charge | None) -> RefundOutcome:
    """Refuse what a gateway would refuse; else the refund succeeds."""
    if charge is None or charge.outcome.state != "succeeded":
        refusal = "there is no successful charge to refund"
    elif request.charge_reference not in (None, charge.outcome.gateway_reference):
        refusal = f"the charge is not called '{request.charge_reference}'"
    elif request.currency != charge.currency:
        refusal = f"the charge was made in {charge.currency}, not in {request.currency}"
    elif not 0 < request.amount <= charge.amount:
        refusal = f"a refund must be above zero and at most the charge's amount of {charge.amount}"
    elif (behavior := parse(charge.token)) is not None and behavior.method.refunds_fail:
        refusal = "the bank refused to take the money back"
    else:
        return RefundOutcome(state="succeeded", gateway_reference="re_" + request.key)
    return RefundOutcome(state="failed", failure_message=refusal)


def _known_tokens(token: str) -> str:
    names = ", ".join(method.name for method in METHODS)
    suffixes = ", ".join(f"_{suffix}" for suffix in (*SUFFIXES, "failFirst1 to _failFirst9"))
    return (
        f"the test gateway knows no payment method '{token}'; use one of {names}, one of them with {suffixes} "
        f"appended, or {GATEWAY_DOWN}"
    )
