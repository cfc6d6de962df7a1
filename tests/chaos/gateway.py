"""A payment gateway as a process of its own, with a durable ledger and bad manners.

It loses requests before they have an effect, loses answers after it, answers late and so in another order, takes
requests twice, and says that it is still deciding. Which of them happens to a call follows from the seed, the key
and how often the call was made for it. A token says what becomes of charges made with it, one word per attempt of
the invoice, the last word for all that follow: `decline,succeed`. The answer to a charge with the token `silent` is
always lost, until it is asked for again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Final

import grpc

from billing.gateway.v1 import gateway_pb2 as pb
from billing.gateway.v1.gateway_pb2_grpc import PaymentGatewayServicer, add_PaymentGatewayServicer_to_server
from tests.chaos.ledger import Entry, Kind, Ledger

Context = grpc.aio.ServicerContext[Any, Any]

FAULTS: Final = {
    "the request is lost": 0.04,
    "the answer is lost": 0.12,
    "the answer never comes": 0.005,
    "late": 0.06,
    "twice": 0.04,
    "still deciding": 0.03,
}
"""What goes wrong with a call, and how often."""

LATE_SECONDS: Final = 1.5
NEVER_SECONDS: Final = 60.0
LATENCY_SECONDS_MAX: Final = 0.03

_RESULTS: Final = {
    "succeed": pb.ChargeResult(status=pb.CHARGE_STATUS_SUCCEEDED),
    "silent": pb.ChargeResult(status=pb.CHARGE_STATUS_SUCCEEDED),
    "decline": pb.ChargeResult(
        status=pb.CHARGE_STATUS_FAILED, code="card_declined", decline_code="insufficient_funds", message="no money"
    ),
    "decline_for_good": pb.ChargeResult(
        status=pb.CHARGE_STATUS_FAILED, code="card_declined", decline_code="lost_card", message="the card is lost"
    ),
    "authenticate": pb.ChargeResult(status=pb.CHARGE_STATUS_REQUIRES_ACTION),
}


class Gateway(PaymentGatewayServicer):
    """Moves money at most once for a key, and is hard to get an answer from. A `seed` of None: good manners."""

    def __init__(self, ledger: Ledger, seed: int | None) -> None:
        self._ledger = ledger
        self._seed = seed
        self._times: Counter[str] = Counter()
        self._under_way: dict[asyncio.Task[Entry], str] = {}

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        """Charge once for the key."""
        entry = await self._carry_out("charge", request, context)
        return pb.ChargeResult.FromString(entry.result)

    async def GetCharge(self, request: pb.GetChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        """Tell what became of a charge."""
        if await self._is_deciding("GetCharge", request.idempotency_key, context):
            return pb.ChargeResult(status=pb.CHARGE_STATUS_PROCESSING)
        return pb.ChargeResult.FromString((await self._known("charge", request.idempotency_key, context)).result)

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResult:  # noqa: N802  the contract's name
        """Give money back once for the key."""
        entry = await self._carry_out("refund", request, context)
        return pb.RefundResult.FromString(entry.result)

    async def GetRefund(self, request: pb.GetRefundRequest, context: Context) -> pb.RefundResult:  # noqa: N802  the contract's name
        """Tell what became of a refund."""
        if await self._is_deciding("GetRefund", request.idempotency_key, context):
            return pb.RefundResult(status=pb.REFUND_STATUS_PROCESSING)
        return pb.RefundResult.FromString((await self._known("refund", request.idempotency_key, context)).result)

    # --- manners

    def _fault(self, call: str, key: str) -> tuple[str | None, random.Random]:
        """What goes wrong with this call, and the dice for the rest of it."""
        self._times[f"{call}:{key}"] += 1
        dice = random.Random(f"{self._seed}:{call}:{key}:{self._times[f'{call}:{key}']}")
        if self._seed is None:
            return None, dice
        throw = dice.random()
        for fault, share in FAULTS.items():
            if throw < share:
                return fault, dice
            throw -= share
        return None, dice

    async def _carry_out(self, kind: Kind, request: Any, context: Context) -> Entry:
        fault, dice = self._fault(kind, request.idempotency_key)
        if self._seed is not None and kind == "charge" and request.token == "silent":
            fault = "the answer is lost" if self._times[f"{kind}:{request.idempotency_key}"] == 1 else fault
        if fault == "the request is lost":
            await context.abort(grpc.StatusCode.UNAVAILABLE, fault)
        await asyncio.sleep(dice.uniform(0, LATENCY_SECONDS_MAX))
        # Whoever asked may go away; what has begun is done.
        task = asyncio.create_task(self._effect(kind, request, before_seconds=LATE_SECONDS * (fault == "late")))
        self._under_way[task] = request.idempotency_key
        task.add_done_callback(self._under_way.pop)
        entry = await asyncio.shield(task)
        if fault == "twice":
            entry = await self._effect(kind, request, before_seconds=0.0)
        if fault == "the answer never comes":
            await asyncio.sleep(NEVER_SECONDS)
        if fault in ("the answer is lost", "still deciding"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, fault)
        return entry

    async def _effect(self, kind: Kind, request: Any, *, before_seconds: float) -> Entry:
        await asyncio.sleep(before_seconds)
        return self._ledger.enter(_charge(request) if kind == "charge" else self._refund(request))

    async def _is_deciding(self, call: str, key: str, context: Context) -> bool:
        fault, _ = self._fault(call, key)
        if fault in ("the request is lost", "the answer is lost"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, fault)
        if fault == "late":
            await asyncio.sleep(LATE_SECONDS)
        return fault == "still deciding" or key in self._under_way.values()

    async def _known(self, kind: Kind, key: str, context: Context) -> Entry:
        entry = self._ledger.find(kind, key)
        if entry is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {kind} with the key {key}")
        return entry

    def _refund(self, request: pb.RefundRequest) -> Entry:
        charge = self._ledger.find("charge", request.charge_idempotency_key or request.charge_reference[3:])
        if charge is None or not charge.moved:
            self._ledger.note(f"the refund {request.idempotency_key} is of a charge that moved no money")
        result = pb.RefundResult(status=pb.REFUND_STATUS_SUCCEEDED, reference=f"re_{request.idempotency_key}")
        return Entry(
            kind="refund",
            key=request.idempotency_key,
            charge_key="" if charge is None else charge.key,
            invoice="" if charge is None else charge.invoice,
            attempt=0 if charge is None else charge.attempt,
            amount=request.amount,
            moved=True,
            request=request.SerializeToString(deterministic=True),
            result=result.SerializeToString(deterministic=True),
        )


def _charge(request: pb.ChargeRequest) -> Entry:
    words = request.token.split(",")
    word = words[min(max(request.attempt, 1), len(words)) - 1]
    if word == "authenticate" and request.authenticated:
        word = "succeed"
    result = pb.ChargeResult()
    result.CopyFrom(_RESULTS[word])
    if result.status == pb.CHARGE_STATUS_SUCCEEDED:
        result.reference = f"ch_{request.idempotency_key}"
    return Entry(
        kind="charge",
        key=request.idempotency_key,
        charge_key="",
        invoice=request.invoice,
        attempt=request.attempt,
        amount=request.amount,
        moved=result.status == pb.CHARGE_STATUS_SUCCEEDED,
        request=request.SerializeToString(deterministic=True),
        result=result.SerializeToString(deterministic=True),
    )


async def serve(listen: str, ledger_file: Path, seed: int | None) -> None:
    """Serve until the process is asked to stop, or killed."""
    ledger = Ledger(ledger_file)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_PaymentGatewayServicer_to_server(Gateway(ledger, seed), server)
    server.add_insecure_port(listen)
    await server.start()
    print("serving", flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(None)
    ledger.close()


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.gateway", description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=None, help="of the bad manners; without it, they are good")
    options = parser.parse_args()
    asyncio.run(serve(options.listen, options.ledger, options.seed))


if __name__ == "__main__":
    main()
