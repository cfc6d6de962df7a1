"""Checks any implementation of `billing.gateway.v1.PaymentGateway` against the duties of its contract.

    python -m examples.payment_gateway.conformance HOST:PORT --token TOKEN [--declining-token TOKEN]

It makes real calls, so real charges: point it at your processor's test mode. Each check prints a line; the exit
status is 1 when one fails. What is asked twice must be answered alike: an answer is told by its status and its
reference, since that is all that can be seen from outside.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import grpc

from billing.gateway.v1 import gateway_pb2 as pb
from billing.gateway.v1.gateway_pb2_grpc import PaymentGatewayStub

CALL_SECONDS = 30.0
SETTLING_SECONDS = 30.0
AT_ONCE = 12
CODES = {
    "card_declined",
    "expired_card",
    "incorrect_cvc",
    "incorrect_number",
    "processing_error",
    "authentication_required",
}
UNDECIDED = {pb.CHARGE_STATUS_UNSPECIFIED, pb.CHARGE_STATUS_PROCESSING}
REFUND_UNDECIDED = {pb.REFUND_STATUS_UNSPECIFIED, pb.REFUND_STATUS_PROCESSING}
Answer = TypeVar("Answer")


class Broken(Exception):
    """The gateway does not keep its contract."""


class Options(NamedTuple):
    """What to check with: tokens that the gateway knows, and a small amount."""

    token: str
    declining_token: str | None = None
    amount: int = 100
    currency: str = "usd"
    key_file: Path | None = None


class Subject:
    """The gateway under test, as the engine sees it: a call that breaks is asked about until it is decided."""

    def __init__(self, channel: grpc.aio.Channel, options: Options) -> None:
        self.stub = PaymentGatewayStub(channel)
        self.options = options
        self.account = "acct_conformance"

    def request(self, token: str | None = None, amount: int | None = None) -> pb.ChargeRequest:
        """A charge with a key of its own."""
        key = f"pa_{uuid.uuid4().hex}"
        return pb.ChargeRequest(
            idempotency_key=key,
            account=self.account,
            customer="cus_conformance",
            invoice=f"in_{key}",
            attempt=1,
            amount=amount or self.options.amount,
            currency=self.options.currency,
            token=token or self.options.token,
            statement_descriptor="CONFORMANCE",
        )

    def refund_request(self, reference: str, amount: int | None = None) -> pb.RefundRequest:
        """A refund with a key of its own."""
        return pb.RefundRequest(
            idempotency_key=f"re_{uuid.uuid4().hex}",
            account=self.account,
            charge_reference=reference,
            amount=amount or self.options.amount,
            currency=self.options.currency,
            reason="requested_by_customer",
        )

    async def charge(self, request: pb.ChargeRequest) -> pb.ChargeResult:
        """Charge, and wait for the outcome."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            result = await self.stub.Charge(request, timeout=CALL_SECONDS)
            if result.status not in UNDECIDED:
                return result
        return await self.settled(request.idempotency_key)

    async def settled(self, key: str) -> pb.ChargeResult:
        """Ask about a charge until it is decided."""
        message = pb.GetChargeRequest(idempotency_key=key, account=self.account)
        return await _until(
            lambda: self.stub.GetCharge(message, timeout=CALL_SECONDS), lambda result: result.status not in UNDECIDED
        )

    async def refund(self, request: pb.RefundRequest) -> pb.RefundResult:
        """Refund, and wait for the outcome."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            result = await self.stub.Refund(request, timeout=CALL_SECONDS)
            if result.status not in REFUND_UNDECIDED:
                return result
        message = pb.GetRefundRequest(idempotency_key=request.idempotency_key, account=self.account)
        return await _until(
            lambda: self.stub.GetRefund(message, timeout=CALL_SECONDS),
            lambda refund: refund.status not in REFUND_UNDECIDED,
        )

    async def charged(self) -> tuple[pb.ChargeRequest, pb.ChargeResult]:
        """A charge that succeeded."""
        request = self.request()
        result = await self.charge(request)
        expect(result.status == pb.CHARGE_STATUS_SUCCEEDED, f"token {request.token} is not charged: {_told(result)}")
        expect(bool(result.reference), "a charge that succeeded has no reference; it could never be refunded")
        return request, result


async def charge_succeeds(subject: Subject) -> None:
    """A charge succeeds, has a reference, and GetCharge tells the same."""
    request, result = await subject.charged()
    _alike([result, await subject.settled(request.idempotency_key)])


async def repeated_key(subject: Subject) -> None:
    """The same request again is answered as at first."""
    request, result = await subject.charged()
    _alike([result, await subject.charge(request), await subject.charge(request)])


async def concurrent_key(subject: Subject) -> None:
    """The same request many times at once is one charge."""
    request = subject.request()
    results = await asyncio.gather(*[subject.charge(request) for _ in range(AT_ONCE)])
    _alike([*results, await subject.settled(request.idempotency_key)])


async def distinct_keys(subject: Subject) -> None:
    """Requests with different keys are different charges, however equal they are otherwise."""
    first = subject.request()
    second = pb.ChargeRequest()
    second.CopyFrom(first)
    second.idempotency_key = f"pa_{uuid.uuid4().hex}"
    results = [await subject.charge(first), await subject.charge(second)]
    expect(len({result.reference for result in results}) == 2, "two keys have one charge between them")


async def key_with_other_request(subject: Subject) -> None:
    """A known key with another amount never makes a second charge."""
    request, result = await subject.charged()
    other = pb.ChargeRequest()
    other.CopyFrom(request)
    other.amount += 1
    try:
        answer = await subject.stub.Charge(other, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        expect(
            error.code() is not grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_ARGUMENT says that no money moved, but for this key it has; ALREADY_EXISTS says what is wrong",
        )
    else:
        _alike([result, answer])
    _alike([result, await subject.settled(request.idempotency_key)])


async def unknown_charge(subject: Subject) -> None:
    """GetCharge of a key that never came is NOT_FOUND."""
    message = pb.GetChargeRequest(idempotency_key=f"pa_{uuid.uuid4().hex}", account=subject.account)
    await _not_found(subject.stub.GetCharge(message, timeout=CALL_SECONDS))


async def unknown_refund(subject: Subject) -> None:
    """GetRefund of a key that never came is NOT_FOUND."""
    message = pb.GetRefundRequest(idempotency_key=f"re_{uuid.uuid4().hex}", account=subject.account)
    await _not_found(subject.stub.GetRefund(message, timeout=CALL_SECONDS))


async def abandoned_call(subject: Subject) -> None:
    """A call that its caller gave up is either one charge or none; sent again, it is one."""
    request = subject.request()
    for timeout_seconds in (0.001, 0.005, 0.02):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await subject.stub.Charge(request, timeout=timeout_seconds)
    result = await subject.charge(request)
    _alike([result, await subject.charge(request), await subject.settled(request.idempotency_key)])


async def declined(subject: Subject) -> None:
    """A decline is an answer, not an error, with a code of the contract; it stays what it is."""
    request = subject.request(token=subject.options.declining_token)
    try:
        result = await subject.stub.Charge(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise Broken(f"a decline must be answered by a result, not by {error.code().name}") from error
    expect(result.status == pb.CHARGE_STATUS_FAILED, f"the declining token is not declined: {_told(result)}")
    expect(result.code in CODES, f"'{result.code}' is no code of the contract")
    expect(bool(result.message), "a decline has no message")
    _alike([result, await subject.charge(request), await subject.settled(request.idempotency_key)])


async def refund_once(subject: Subject) -> None:
    """A refund with one key, sent many times at once and again, is one refund."""
    _, result = await subject.charged()
    request = subject.refund_request(result.reference)
    results = await asyncio.gather(*[subject.refund(request) for _ in range(AT_ONCE)])
    for refund in (*results, await subject.refund(request)):
        expect(refund.status == pb.REFUND_STATUS_SUCCEEDED, f"a refund of the whole charge failed: {refund.message}")
        expect(refund.reference == results[0].reference, "one key has two refunds")


async def refund_within_charge(subject: Subject) -> None:
    """No more can be given back than was charged."""
    _, result = await subject.charged()
    whole = await subject.refund(subject.refund_request(result.reference))
    expect(whole.status == pb.REFUND_STATUS_SUCCEEDED, f"a refund of the whole charge failed: {whole.message}")
    try:
        more = await subject.stub.Refund(subject.refund_request(result.reference), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        expect(
            error.code() is grpc.StatusCode.INVALID_ARGUMENT,
            f"a refund that cannot be is answered by {error.code().name}: the engine would ask about it for ever",
        )
    else:
        expect(more.status == pb.REFUND_STATUS_FAILED, "the charge was given back twice")


async def remembers(subject: Subject) -> None:
    """Charges of an earlier run, before the gateway was restarted, are answered as then."""
    file = subject.options.key_file
    if file is None:
        return
    if file.exists():
        for key, reference in json.loads(file.read_text()).items():
            result = await subject.settled(key)
            expect(result.reference == reference, f"the charge {key} was {reference}, and is now {_told(result)}")
    request, result = await subject.charged()
    file.write_text(json.dumps({request.idempotency_key: result.reference}))


CHECKS: tuple[Callable[[Subject], Awaitable[None]], ...] = (
    charge_succeeds,
    repeated_key,
    concurrent_key,
    distinct_keys,
    key_with_other_request,
    unknown_charge,
    unknown_refund,
    abandoned_call,
    declined,
    refund_once,
    refund_within_charge,
    remembers,
)


async def check(channel: grpc.aio.Channel, options: Options) -> dict[str, str | None]:
    """Make all checks that the options allow; per check None, or what is broken."""
    subject = Subject(channel, options)
    left_out = set()
    if options.declining_token is None:
        left_out.add(declined)
    if options.key_file is None:
        left_out.add(remembers)
    return {one.__name__: await _problem_of(one, subject) for one in CHECKS if one not in left_out}


async def _problem_of(one: Callable[[Subject], Awaitable[None]], subject: Subject) -> str | None:
    try:
        await one(subject)
    except Broken as broken:
        return str(broken)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    except TimeoutError:
        return f"a request was not decided within {SETTLING_SECONDS:.0f} seconds"
    return None


def expect(kept: bool, otherwise: str) -> None:
    """Raise Broken unless the contract is kept."""
    if not kept:
        raise Broken(otherwise)


async def _until(ask: Callable[[], Awaitable[Answer]], decided: Callable[[Answer], bool]) -> Answer:
    """Ask again until it is decided."""
    wait_seconds = 0.05
    async with asyncio.timeout(SETTLING_SECONDS):
        while not decided(answer := await ask()):
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, 2.0)
    return answer


async def _not_found(call: Awaitable[object]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        expect(error.code() is grpc.StatusCode.NOT_FOUND, f"NOT_FOUND is due, not {error.code().name}")
    else:
        raise Broken("something is known of a key that never came")


def _alike(results: list[pb.ChargeResult]) -> None:
    told = sorted({_told(result) for result in results})
    expect(len(told) == 1, f"one key has {len(told)} outcomes: {'; '.join(told)}")


def _told(result: pb.ChargeResult) -> str:
    words = (pb.ChargeStatus.Name(result.status), result.reference, result.code, result.decline_code)
    return " ".join(word for word in words if word)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, check, print; 1 when something is broken."""
    parser = argparse.ArgumentParser(prog="python -m examples.payment_gateway.conformance", description=__doc__)
    parser.add_argument("target", help="HOST:PORT of the gateway")
    parser.add_argument("--token", required=True, help="a token that is charged without questions")
    parser.add_argument("--declining-token", help="a token that is declined")
    parser.add_argument("--amount", type=int, default=100, help="in minor units (default %(default)s)")
    parser.add_argument("--currency", default="usd", help="lower case (default %(default)s)")
    parser.add_argument("--tls-authorities", type=Path, help="PEM file; turns TLS on")
    parser.add_argument(
        "--key-file", type=Path, help="keeps a charge for the next run: restart the gateway, and run again"
    )
    options = parser.parse_args(arguments)
    chosen = Options(options.token, options.declining_token, options.amount, options.currency, options.key_file)
    authorities = None if options.tls_authorities is None else options.tls_authorities.read_bytes()
    problems = asyncio.run(_run(options.target, authorities, chosen))
    for one in CHECKS:
        if one.__name__ in problems:
            problem = problems[one.__name__]
            print(f"{'ok    ' if problem is None else 'BROKEN'} {one.__doc__}")
            if problem is not None:
                print(f"       {problem}")
    return 1 if any(problems.values()) else 0


async def _run(target: str, authorities: bytes | None, options: Options) -> dict[str, str | None]:
    if authorities is None:
        channel = grpc.aio.insecure_channel(target)
    else:
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authorities))
    async with channel:
        return await check(channel, options)


if __name__ == "__main__":
    sys.exit(main())
