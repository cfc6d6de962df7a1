"""The client of the user's own gateway: how answers, statuses and broken connections are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trustme

from billing.gateway.v1 import gateway_pb2 as pb
from billing_server.domain.commands import ChargeOutcome, RefundOutcome
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.payment import PaymentError
from billing_server.gateways.remote import GatewayTls, RemoteGateway
from examples.payment_gateway.journal import Journal
from examples.payment_gateway.service import ExampleGateway
from tests.gateways.samples import charge_request, refund_request
from tests.gateways.serving import GatedProcessor, ScriptedGateway, Server, Wire, once_known

SUCCEEDED = pb.ChargeResult(status=pb.CHARGE_STATUS_SUCCEEDED, reference="ch_1")
PAID = ChargeOutcome(state="succeeded", gateway_reference="ch_1")
CALL_SECONDS_MAX = 120.0
"""Longer than any machine pauses: where a call is to be answered, no deadline may be what ends it."""


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    gateway.charge_result = SUCCEEDED
    yield gateway


@pytest.fixture
async def remote(scripted: ScriptedGateway) -> AsyncIterator[RemoteGateway]:
    async with Server(scripted) as server:
        gateway = RemoteGateway(server.target, timeout_seconds=CALL_SECONDS_MAX)
        yield gateway
        await gateway.close()


# --- what is sent


async def test_a_charge_is_sent_whole(scripted: ScriptedGateway, remote: RemoteGateway) -> None:
    request = charge_request(
        "acct_1",
        key="pa_1",
        attempt=3,
        authenticated=True,
        statement_descriptor="SOCKS",
        metadata={"order": "7"},
        token="tok_1",
    )
    assert await remote.charge(request) == PAID
    assert scripted.requests == [
        pb.ChargeRequest(
            idempotency_key="pa_1",
            account="acct_1",
            customer="cus_1",
            invoice="in_1",
            attempt=3,
            amount=1999,
            currency="usd",
            token="tok_1",
            off_session=True,
            authenticated=True,
            statement_descriptor="SOCKS",
            metadata={"order": "7"},
        )
    ]
    assert {field.name for field in pb.ChargeRequest.DESCRIPTOR.fields} == {
        field.name for field, _ in scripted.requests[0].ListFields()
    }


async def test_a_refund_is_sent_whole(scripted: ScriptedGateway, remote: RemoteGateway) -> None:
    scripted.refund_result = pb.RefundResult(status=pb.REFUND_STATUS_SUCCEEDED, reference="rf_1")
    charge = charge_request("acct_1", key="pa_1")
    request = refund_request(charge, key="re_1", charge_reference="ch_1", metadata={"case": "9"})
    assert await remote.refund(request) == RefundOutcome(state="succeeded", gateway_reference="rf_1")
    assert scripted.requests == [
        pb.RefundRequest(
            idempotency_key="re_1",
            account="acct_1",
            charge_reference="ch_1",
            amount=1999,
            currency="usd",
            reason="requested_by_customer",
            metadata={"case": "9"},
        )
    ]


async def test_a_charge_without_a_reference_is_refunded_by_its_key(
    scripted: ScriptedGateway, remote: RemoteGateway
) -> None:
    await remote.refund(refund_request(charge_request("acct_1", key="pa_1")))
    assert scripted.requests[0].charge_reference == "pa_1"


async def test_questions_name_account_and_key(scripted: ScriptedGateway, remote: RemoteGateway) -> None:
    await remote.get_charge("acct_1", "pa_1")
    await remote.get_refund("acct_1", "re_1")
    assert scripted.requests == [
        pb.GetChargeRequest(idempotency_key="pa_1", account="acct_1"),
        pb.GetRefundRequest(idempotency_key="re_1", account="acct_1"),
    ]


# --- how results are read


def _failed(code: str, decline_code: str | None, message: str) -> ChargeOutcome:
    return ChargeOutcome(state="failed", error=PaymentError(code=code, decline_code=decline_code, message=message))


CHARGE_RESULTS = [
    (SUCCEEDED, PAID),
    (pb.ChargeResult(status=pb.CHARGE_STATUS_SUCCEEDED), ChargeOutcome(state="succeeded")),
    (
        pb.ChargeResult(status=pb.CHARGE_STATUS_FAILED, code="card_declined", decline_code="lost_card", message="lost"),
        _failed("card_declined", "lost_card", "lost"),
    ),
    (
        pb.ChargeResult(status=pb.CHARGE_STATUS_FAILED, code="expired_card"),
        _failed("expired_card", None, "the payment gateway declined the charge"),
    ),
    (
        pb.ChargeResult(status=pb.CHARGE_STATUS_FAILED, code="insufficient_funds", message="empty"),
        _failed("card_declined", "insufficient_funds", "empty"),
    ),
    (
        pb.ChargeResult(status=pb.CHARGE_STATUS_FAILED, message="no\0 " + "x" * 1000),
        _failed("card_declined", None, "no " + "x" * 497),
    ),
    (pb.ChargeResult(), ChargeOutcome(state="unknown")),
    (pb.ChargeResult(status=pb.CHARGE_STATUS_PROCESSING), ChargeOutcome(state="unknown")),
    (pb.ChargeResult.FromString(b"\x08\x4d"), ChargeOutcome(state="unknown")),
]


@pytest.mark.parametrize(("result", "outcome"), CHARGE_RESULTS)
async def test_results_of_charges(
    scripted: ScriptedGateway, remote: RemoteGateway, result: pb.ChargeResult, outcome: ChargeOutcome
) -> None:
    scripted.charge_result = result
    assert await remote.charge(charge_request("acct_1")) == outcome
    assert await remote.get_charge("acct_1", "pa_1") == outcome


async def test_authentication_is_a_decline_when_the_customer_is_absent(
    scripted: ScriptedGateway, remote: RemoteGateway
) -> None:
    scripted.charge_result = pb.ChargeResult(status=pb.CHARGE_STATUS_REQUIRES_ACTION)
    present = await remote.charge(charge_request("acct_1", off_session=False))
    assert present == ChargeOutcome(state="requires_action")
    absent = await remote.charge(charge_request("acct_1", off_session=True))
    assert absent.state == "requires_action"
    assert absent.error is not None
    assert (absent.error.code, absent.error.decline_code) == ("authentication_required",) * 2
    assert await remote.get_charge("acct_1", "pa_1") == present
    scripted.charge_result = pb.ChargeResult(status=pb.CHARGE_STATUS_REQUIRES_ACTION, code="authentication_required")
    asked = await remote.get_charge("acct_1", "pa_1")
    assert asked.error == absent.error


REFUND_RESULTS = [
    (
        pb.RefundResult(status=pb.REFUND_STATUS_SUCCEEDED, reference="rf_1"),
        RefundOutcome(state="succeeded", gateway_reference="rf_1"),
    ),
    (
        pb.RefundResult(status=pb.REFUND_STATUS_FAILED, message="closed"),
        RefundOutcome(state="failed", failure_message="closed"),
    ),
    (
        pb.RefundResult(status=pb.REFUND_STATUS_FAILED),
        RefundOutcome(state="failed", failure_message="the payment gateway could not give the money back"),
    ),
    (pb.RefundResult(), RefundOutcome(state="unknown")),
    (pb.RefundResult(status=pb.REFUND_STATUS_PROCESSING), RefundOutcome(state="unknown")),
]


@pytest.mark.parametrize(("result", "outcome"), REFUND_RESULTS)
async def test_results_of_refunds(
    scripted: ScriptedGateway, remote: RemoteGateway, result: pb.RefundResult, outcome: RefundOutcome
) -> None:
    scripted.refund_result = result
    assert await remote.refund(refund_request(charge_request("acct_1"))) == outcome
    assert await remote.get_refund("acct_1", "re_1") == outcome


# --- how statuses are read


STATUSES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status.name)
async def test_a_status_says_nothing_of_money_unless_the_contract_says_so(
    scripted: ScriptedGateway, remote: RemoteGateway, status: grpc.StatusCode
) -> None:
    scripted.status = status
    changing = "failed" if status is grpc.StatusCode.INVALID_ARGUMENT else "unknown"
    asking = "not_found" if status is grpc.StatusCode.NOT_FOUND else "unknown"
    charged = await remote.charge(charge_request("acct_1"))
    refunded = await remote.refund(refund_request(charge_request("acct_1")))
    found = await remote.get_charge("acct_1", "pa_1")
    found_refund = await remote.get_refund("acct_1", "re_1")
    assert (charged.state, refunded.state) == (changing, changing)
    assert (found.state, found_refund.state) == (asking, asking)
    assert len(scripted.requests) == 4, "a call was sent again"
    if changing == "failed":
        assert charged.error == PaymentError(type="api_error", code="processing_error", message="because")
        assert refunded.failure_message == "because"


async def test_a_deadline_that_passes_is_unknown(scripted: ScriptedGateway) -> None:
    scripted.open.clear()
    async with Server(scripted) as server:
        remote = RemoteGateway(server.target, timeout_seconds=0.05)
        assert (await remote.charge(charge_request("acct_1"))).state == "unknown"
        assert (await remote.refund(refund_request(charge_request("acct_1")))).state == "unknown"
        assert (await remote.get_charge("acct_1", "pa_1")).state == "unknown"
        assert (await remote.get_refund("acct_1", "re_1")).state == "unknown"
        scripted.open.set()
        await remote.close()


async def test_a_gateway_that_is_not_there_is_unknown_and_found_when_it_comes(scripted: ScriptedGateway) -> None:
    async with Server(scripted) as server:
        port = server.port
    remote = RemoteGateway(f"127.0.0.1:{port}", timeout_seconds=CALL_SECONDS_MAX)
    assert (await remote.charge(charge_request("acct_1"))).state == "unknown"
    assert scripted.requests == []
    async with Server(scripted, port):
        assert await once_known(lambda: remote.charge(charge_request("acct_1"))) == PAID
        await remote.close()


async def test_an_answer_of_absurd_size_is_unknown(scripted: ScriptedGateway, remote: RemoteGateway) -> None:
    scripted.charge_result = pb.ChargeResult(status=pb.CHARGE_STATUS_SUCCEEDED, reference="x" * 1_000_000)
    assert (await remote.charge(charge_request("acct_1"))).state == "unknown"


async def test_a_caller_that_goes_away_is_not_told_unknown(scripted: ScriptedGateway, remote: RemoteGateway) -> None:
    scripted.open.clear()
    charging = asyncio.create_task(remote.charge(charge_request("acct_1")))
    await asyncio.sleep(0)
    charging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await charging
    scripted.open.set()


# --- broken connections, with the example service


async def test_a_connection_that_breaks_mid_charge_is_unknown_and_then_known(tmp_path: Path) -> None:
    processor = GatedProcessor()
    processor.gate.clear()
    journal = Journal(tmp_path / "journal.sqlite3")
    service = ExampleGateway(journal, processor)
    async with Server(service) as server, Wire().to(server.port) as wire:
        remote = RemoteGateway(wire.target, timeout_seconds=CALL_SECONDS_MAX)
        request = charge_request("acct_1", token="demo_ok")
        charging = asyncio.create_task(remote.charge(request))
        await asyncio.wait_for(processor.reached.wait(), CALL_SECONDS_MAX)
        wire.cut()
        assert (await charging).state == "unknown"
        # The gateway has not decided: it neither forgets the charge nor says that it is done.
        assert (await remote.get_charge("acct_1", request.key)).state == "unknown"
        processor.gate.set()
        await service.drain()
        found = await once_known(lambda: remote.get_charge("acct_1", request.key))
        assert found == ChargeOutcome(state="succeeded", gateway_reference=f"charge-{request.key}")
        assert await remote.charge(request) == found
        assert processor.charges == [request.key]
        await remote.close()
    journal.close()


async def test_a_gateway_that_is_killed_mid_charge_finishes_it_when_it_is_back(tmp_path: Path) -> None:
    dying = GatedProcessor()
    dying.gate.clear()
    journal = Journal(tmp_path / "journal.sqlite3")
    first = ExampleGateway(journal, dying)
    request = charge_request("acct_1", token="demo_ok")
    async with Server(first) as server:
        port = server.port
        remote = RemoteGateway(f"127.0.0.1:{port}", timeout_seconds=CALL_SECONDS_MAX)
        charging = asyncio.create_task(remote.charge(request))
        await asyncio.wait_for(dying.reached.wait(), CALL_SECONDS_MAX)
        await server.kill()
        assert (await charging).state == "unknown"
    reborn = GatedProcessor()
    reopened = Journal(tmp_path / "journal.sqlite3")
    second = ExampleGateway(reopened, reborn)
    second.resume()
    async with Server(second, port):
        found = await once_known(lambda: remote.get_charge("acct_1", request.key))
        assert found == ChargeOutcome(state="succeeded", gateway_reference=f"charge-{request.key}")
        assert await remote.get_charge("acct_1", "pa_other") == ChargeOutcome(state="not_found")
        # The processor was asked twice with one key, which is what its keys are for.
        assert dying.charges == reborn.charges == [request.key]
        await remote.close()
    dying.gate.set()
    await first.drain()
    journal.close()
    reopened.close()


async def test_closing_ends_calls_under_way_as_unknown(scripted: ScriptedGateway) -> None:
    scripted.open.clear()
    async with Server(scripted) as server:
        remote = RemoteGateway(server.target, timeout_seconds=0.2)
        charging = asyncio.create_task(remote.charge(charge_request("acct_1")))
        await asyncio.sleep(0)
        await remote.close()
        assert (await charging).state == "unknown"
        with pytest.raises(grpc.aio.UsageError):
            await remote.charge(charge_request("acct_1"))
        scripted.open.set()


# --- TLS and tokens


async def test_tls_in_both_directions(scripted: ScriptedGateway) -> None:
    authority = trustme.CA()
    server_certificate = authority.issue_cert("localhost")
    client_certificate = authority.issue_cert("engine")
    roots = authority.cert_pem.bytes()
    credentials = grpc.ssl_server_credentials(
        [(server_certificate.private_key_pem.bytes(), server_certificate.cert_chain_pems[0].bytes())],
        roots,
        require_client_auth=True,
    )
    with_certificate = GatewayTls(
        authorities=roots,
        certificate=client_certificate.cert_chain_pems[0].bytes(),
        key=client_certificate.private_key_pem.bytes(),
    )
    async with Server(scripted, tls=credentials) as server:
        states = []
        for tls in (with_certificate, GatewayTls(authorities=roots), GatewayTls(), None):
            remote = RemoteGateway(server.target, timeout_seconds=CALL_SECONDS_MAX, tls=tls)
            states.append((await remote.charge(charge_request("acct_1"))).state)
            await remote.close()
    assert states == ["succeeded", "unknown", "unknown", "unknown"]


async def test_only_the_gateway_knows_its_tokens(remote: RemoteGateway) -> None:
    assert remote.describe("anything at all", "card") is None
    for token in ("", "x" * 501, "line\nbreak", "nul\0"):
        with pytest.raises(InvalidArgument) as refused:
            remote.describe(token, "card")
        assert [(violation.field, violation.reason) for violation in refused.value.violations] == [
            ("token", "parameter_invalid")
        ]
