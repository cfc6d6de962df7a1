"""A backup by PostgreSQL's own tools comes back as a server that goes on: nothing lost, nothing billed again.

The commands are those of `docs/operations.md`.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest
from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing.v1.invoice_model_pb2 import Invoice
from billing.v1.invoice_service_pb2 import ListInvoicesRequest
from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest, ItemParams
from billing.v1.test_clock_service_pb2 import AdvanceTestClockRequest, CreateTestClockRequest, GetTestClockRequest
from billing_server.bootstrap import Server
from billing_server.embedded_postgres import EmbeddedPostgres
from billing_server.embedded_postgres.placement import packaged_installation
from billing_server.store.migrate import migrate
from tests.api.world import new_price
from tests.conftest import POSTGRES_SETTINGS, temporary_data_directory
from tests.serving import Caller, new_caller, refused, serving

DAY = 86_400
START = 1_767_225_600
TOOLS = packaged_installation() / "bin"


@contextlib.asynccontextmanager
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    with temporary_data_directory() as directory, EmbeddedPostgres(directory, settings=POSTGRES_SETTINGS) as started:
        yield started


def run(*command: str | Path) -> None:
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def back_up(url: str, file: Path) -> None:
    run(TOOLS / "pg_dump", "--format=custom", f"--file={file}", url)


def restore(url: str, file: Path) -> None:
    """Roles belong to no database, so that no dump of one has them."""
    run(TOOLS / "psql", "--command=CREATE ROLE billing_app NOLOGIN NOBYPASSRLS", url)
    run(TOOLS / "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={url}", file)


async def events(caller: Caller, after: int) -> Sequence[Event]:
    """All events after a position, until the stream has caught up."""
    call = caller.events.StreamEvents(StreamEventsRequest(after_position=after), metadata=caller.login, timeout=30)
    found: list[Event] = []
    async for batch in call:
        found += batch.events
        if batch.caught_up:
            break
    call.cancel()
    return found


async def invoices(caller: Caller) -> Sequence[Invoice]:
    page = await caller.invoices.ListInvoices(ListInvoicesRequest(page_size=1000), metadata=caller.login)
    return page.invoices


async def move(caller: Caller, clock: str, moment: int) -> None:
    request = AdvanceTestClockRequest(id=clock, frozen_time=Timestamp(seconds=moment))
    async for _ in caller.test_clocks.AdvanceTestClock(request, metadata=caller.login, timeout=60):
        continue


async def subscribed(caller: Caller) -> tuple[str, CreateSubscriptionRequest]:
    """Some customers on a test clock, one of whom subscribed with an idempotency key."""
    clock = await caller.test_clocks.CreateTestClock(
        CreateTestClockRequest(frozen_time=Timestamp(seconds=START)), metadata=caller.login
    )
    price = await new_price(caller)
    request = CreateSubscriptionRequest()
    for number in range(3):
        customer = await caller.customers.CreateCustomer(
            CreateCustomerRequest(name=f"{number}", test_clock=clock.id), metadata=caller.login
        )
        await caller.customers.AttachPaymentMethod(
            AttachPaymentMethodRequest(customer=customer.id, token="pm_card_visa", set_default=True),
            metadata=caller.login,
        )
        request = CreateSubscriptionRequest(customer=customer.id, items=[ItemParams(price=price)])
        await caller.subscriptions.CreateSubscription(request, metadata=caller.metadata(idempotency_key=f"{number}"))
    return clock.id, request


def again(server: Server, caller: Caller) -> Caller:
    """The same caller, with the same key, at another server."""
    return Caller(server, caller.account_id, caller.key_id, caller.secret)


async def test_a_restored_server_goes_on_where_the_backup_was_made(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    async with postgres() as first, postgres() as second:
        await migrate(first.database_url)
        async with serving(first.database_url, tmp_path) as server:
            caller = await new_caller(server)
            clock, request = await subscribed(caller)
            await move(caller, clock, START + 40 * DAY)
            before, billed = await events(caller, 0), await invoices(caller)
            assert [invoice.amount_paid for invoice in billed] == [1500] * 6
            back_up(first.database_url, file)
            # What happens after the backup is lost with the server; readers who saw it are told so.
            await caller.customers.CreateCustomer(CreateCustomerRequest(name="late"), metadata=caller.login)
            seen = (await events(caller, 0))[-1].position
            await caller.close()

        restore(second.database_url, file)
        await migrate(second.database_url)
        async with serving(second.database_url, tmp_path) as server:
            caller = again(server, caller)
            await _same(caller, before, billed)
            with refused(grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE"):
                await events(caller, seen)
            await _asked_again_in_vain(caller, request, billed)
            await _goes_on(caller, clock, before)
            await caller.close()


async def _same(caller: Caller, before: Sequence[Event], billed: Sequence[Invoice]) -> None:
    """All is there, and time, which has long passed what was due, bills nothing of it again."""
    for position in (0, 1, len(before) // 2, len(before)):
        assert list(await events(caller, position)) == list(before[position:])
    await caller.server.engine.timekeeper.sweep()
    await caller.server.engine.timekeeper.idle()
    assert list(await invoices(caller)) == list(billed)


async def _asked_again_in_vain(caller: Caller, request: CreateSubscriptionRequest, billed: Sequence[Invoice]) -> None:
    """A request from before the backup is known by its key, and has no second effect."""
    known = await caller.subscriptions.CreateSubscription(request, metadata=caller.metadata(idempotency_key="2"))
    assert known.id in {invoice.subscription for invoice in billed}
    assert len(await invoices(caller)) == len(billed)


async def _goes_on(caller: Caller, clock: str, before: Sequence[Event]) -> None:
    """The next month is billed once; positions follow those of the backup."""
    known = await caller.test_clocks.GetTestClock(GetTestClockRequest(id=clock), metadata=caller.login)
    await move(caller, clock, known.frozen_time.seconds + 28 * DAY)
    assert [invoice.amount_paid for invoice in await invoices(caller)] == [1500] * 9
    positions = [event.position for event in await events(caller, 0)]
    assert positions == list(range(1, len(positions) + 1))
    assert len(positions) > len(before)


async def test_a_dump_without_its_role_is_refused_and_not_half_restored(tmp_path: Path) -> None:
    """Why the role comes first: without it, nothing would be granted to the server."""
    file = tmp_path / "backup"
    async with postgres() as first, postgres() as second:
        await migrate(first.database_url)
        back_up(first.database_url, file)
        with pytest.raises(AssertionError, match="billing_app"):
            run(TOOLS / "pg_restore", "--single-transaction", "--no-owner", f"--dbname={second.database_url}", file)
