"""The conformance check passes the example, and catches gateways that break their contract."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from billing.gateway.v1 import gateway_pb2 as pb
from examples.payment_gateway import conformance
from examples.payment_gateway.conformance import CHECKS, Options, check
from examples.payment_gateway.journal import Journal
from examples.payment_gateway.processor import Processor
from examples.payment_gateway.service import ExampleGateway
from tests.gateways.serving import Context, Server

NAMES = {one.__name__ for one in CHECKS}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite3")
    yield opened
    opened.close()


async def _problems(service: ExampleGateway, key_file: Path | None = None) -> dict[str, str | None]:
    options = Options(token="demo_ok", declining_token="demo_lost_card", key_file=key_file)
    async with Server(service) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            problems = await check(channel, options)
        await service.drain()
    return problems


async def test_the_example_keeps_its_contract_also_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal(tmp_path / "journal.sqlite3")
        problems = await _problems(ExampleGateway(journal, Processor(0.002)), tmp_path / "keys.json")
        assert problems == dict.fromkeys(NAMES)
        journal.close()


class NoDeduplication(ExampleGateway):
    """Each request is a new one to it."""

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        fresh = pb.ChargeRequest()
        fresh.CopyFrom(request)
        fresh.idempotency_key = uuid.uuid4().hex
        return await super().Charge(fresh, context)


class ForgetsBeforeItAnswers(ExampleGateway):
    """Remembers a charge when it is done, not before; so two at once are two."""

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        known = self._journal.find("charge", request.account, request.idempotency_key)
        if known is not None and known.result is not None:
            return pb.ChargeResult.FromString(known.result)
        await asyncio.sleep(0.002)
        result = pb.ChargeResult(status=pb.CHARGE_STATUS_SUCCEEDED, reference=uuid.uuid4().hex)
        entry = self._journal.begin("charge", request.account, request.idempotency_key, b"", None)
        self._journal.finish(entry, result.SerializeToString(), result.reference)
        return result


class KnowsEverything(ExampleGateway):
    """Takes every charge for one that failed."""

    async def GetCharge(self, request: pb.GetChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        return pb.ChargeResult(status=pb.CHARGE_STATUS_FAILED, code="card_declined", message="no")


class DeclinesByError(ExampleGateway):
    """A declined card is an error to it."""

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResult:  # noqa: N802  the contract's name
        result = await super().Charge(request, context)
        if result.status == pb.CHARGE_STATUS_FAILED:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, result.message)
        return result


class GivesBackTwice(ExampleGateway):
    """Does not look at what is left of a charge."""

    def _refusal(self, account: str, request: pb.RefundRequest) -> str | None:
        return None


PLANTED: list[tuple[type[ExampleGateway], set[str]]] = [
    (NoDeduplication, {"repeated_key", "concurrent_key", "charge_succeeds", "key_with_other_request"}),
    (ForgetsBeforeItAnswers, {"concurrent_key"}),
    (KnowsEverything, {"unknown_charge", "charge_succeeds"}),
    (DeclinesByError, {"declined"}),
    (GivesBackTwice, {"refund_within_charge"}),
]


@pytest.mark.parametrize(("planted", "caught"), PLANTED, ids=[planted.__name__ for planted, _ in PLANTED])
async def test_a_gateway_that_breaks_its_contract_is_caught(
    journal: Journal, planted: type[ExampleGateway], caught: set[str]
) -> None:
    problems = await _problems(planted(journal, Processor(0.001)))
    assert caught <= {name for name, problem in problems.items() if problem}


async def test_a_gateway_that_loses_its_memory_is_caught(tmp_path: Path) -> None:
    for name, expected in (("first", None), ("second", "NOT_FOUND")):
        journal = Journal(tmp_path / name)
        problems = await _problems(ExampleGateway(journal, Processor()), tmp_path / "keys.json")
        journal.close()
        assert (problems["remembers"] or "").startswith(expected or "")
        assert (problems["remembers"] is None) == (expected is None)


async def test_the_command_tells_and_exits_by_what_it_found(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = []
    for service in (ExampleGateway(journal, Processor()), GivesBackTwice(journal, Processor())):
        async with Server(service) as server:
            arguments = [server.target, "--token", "demo_ok", "--declining-token", "demo_declined"]
            statuses.append(await asyncio.to_thread(conformance.main, arguments))
    assert statuses == [0, 1]
    printed = capsys.readouterr().out
    assert printed.count("ok    ") == 2 * (len(CHECKS) - 1) - 1
    assert "BROKEN No more can be given back than was charged.\n       the charge was given back twice" in printed
