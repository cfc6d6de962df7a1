"""The audit as a whole, against a served account: what it reads, that it looks twice, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from billing.v1.catalog_model_pb2 import Price, Product
from billing.v1.customer_model_pb2 import Customer
from billing.v1.event_model_pb2 import Event
from billing.v1.invoice_model_pb2 import Invoice
from billing_client import BillingClient
from billing_client.audit import event_checks
from billing_client.audit.account_checks import invoice_prefixes, links_of_catalog, price_lookup_keys
from billing_client.audit.book import Shared
from billing_client.audit.inspection import Report, inspect
from billing_client.audit.spool import Spool
from billing_client.command_line.main import app
from tests.client.audit_books import book, shared
from tests.client.fake_account import FakeAccount
from tests.client.fake_server import FakeServer


class Silent:
    """A watcher without interest."""

    def phase(self, text: str, total: int | None) -> None:
        """Something begins."""

    def step(self, done: int = 1) -> None:
        """Something is done."""


@pytest.fixture
def there() -> Shared:
    found = shared()
    found.products["prod_1"] = Product(id="prod_1", default_price="price_1")
    for price in found.prices.values():
        price.product = "prod_1"
    return found


@pytest.fixture
def account(fake: FakeServer, there: Shared, monkeypatch: pytest.MonkeyPatch) -> FakeAccount:
    monkeypatch.setattr("billing_client.audit.inspection._PAUSE_SECONDS", 0)
    served = FakeAccount(fake, book(), there)
    served.log_book(there)
    return served


async def report(fake: FakeServer, client: BillingClient, *, events: bool = False) -> Report:
    await fake.start()
    return await inspect(client, Silent(), events=events)


async def test_an_account_that_adds_up(fake: FakeServer, client: BillingClient, account: FakeAccount) -> None:
    found = await report(fake, client, events=True)
    assert found.findings == []
    assert found.counts["Invoice"] == len(account.book.invoices)
    assert found.events == len(account.events)


async def test_what_is_off_is_found_through_the_lists(
    fake: FakeServer, client: BillingClient, account: FakeAccount
) -> None:
    account.book.invoices[0].total += 1
    account.book.customer.balance += 1
    found = await report(fake, client)
    assert {finding.check for finding in found.findings} == {"invoice_lines", "invoice_amount_due", "balance_chain"}


async def test_what_changed_while_it_was_read_is_no_fault(
    fake: FakeServer, client: BillingClient, account: FakeAccount
) -> None:
    account.stale["ListInvoices"] = account.book.invoices[-1:]
    found = await report(fake, client)
    assert found.findings == []


async def test_objects_of_a_customer_that_is_nowhere(
    fake: FakeServer, client: BillingClient, account: FakeAccount
) -> None:
    account.book.invoice_items[-1].customer = "cus_2"
    found = await report(fake, client)
    assert ("links_of_customer", "cus_2") in {(finding.check, finding.object_id) for finding in found.findings}


def test_a_position_that_is_skipped_or_repeated() -> None:
    positions = event_checks.Positions()
    log = [Event(id=f"evt_{number}", position=position) for number, position in enumerate([1, 2, 4, 4, 5])]
    found = [finding for event in log for finding in positions.take(event)]
    assert [finding.object_id for finding in found] == ["evt_2", "evt_3"]
    assert {finding.check for finding in found} == {event_checks.POSITIONS}


def change_silently(account: FakeAccount) -> None:
    account.book.subscriptions[0].description = "changed without an event"


def change_an_intent_silently(account: FakeAccount) -> None:
    account.book.invoices[-1].payment_intent.payment_method = "pm_1"


def forget_an_event(account: FakeAccount) -> None:
    del account.events[-1]


def change_a_price_silently(account: FakeAccount) -> None:
    for event in account.events:
        if event.HasField("price"):
            event.price.nickname = "before"


@pytest.mark.parametrize(
    "plant", [change_silently, change_an_intent_silently, forget_an_event, change_a_price_silently]
)
async def test_faults_of_the_log_are_found(
    fake: FakeServer, client: BillingClient, account: FakeAccount, plant: Callable[[FakeAccount], None]
) -> None:
    plant(account)
    found = await report(fake, client, events=True)
    assert {finding.check for finding in found.findings} == {event_checks.FOLD}


def test_what_changes_silently_is_no_difference() -> None:
    told = ("customer.updated", Customer(id="cus_1", next_invoice_sequence=3, etag="a"))
    assert list(event_checks.differences(Customer(id="cus_1", next_invoice_sequence=4, etag="b"), told)) == []
    (difference,) = event_checks.differences(Customer(id="cus_1", balance=1), told)
    assert difference == "it differs from its newest event, customer.updated, in balance"


def test_an_announced_invoice_is_no_object() -> None:
    assert list(event_checks.objects_of(Event(type="invoice.upcoming", invoice=Invoice(total=1)))) == []


def test_faults_of_the_catalog() -> None:
    found = shared()
    found.products["prod_1"] = Product(id="prod_1", default_price="price_9")
    found.prices = {
        "price_1": Price(id="price_1", product="prod_1", lookup_key="gold"),
        "price_2": Price(id="price_2", product="prod_2", lookup_key="gold"),
    }
    assert [finding.object_id for finding in links_of_catalog(found)] == ["price_2", "prod_1"]
    assert [finding.object_id for finding in price_lookup_keys(found)] == ["price_2"]


def test_prefixes_that_two_customers_share() -> None:
    with Spool() as spool:
        customers = [Customer(id=f"cus_{number}", invoice_prefix=prefix) for number, prefix in enumerate("AABC")]
        spool.add_customers(customers)
        spool.finish_reading()
        assert {finding.customer for finding in invoice_prefixes(spool.prefixes_shared())} == {"cus_0", "cus_1"}


async def run(fake: FakeServer, *arguments: str) -> Any:
    command = ["--target", fake.target, "--api-key", "sk_test", *arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, command))


async def test_the_command_tells_what_is_off_and_fails(fake: FakeServer, account: FakeAccount) -> None:
    await fake.start()
    clean = await run(fake, "audit")
    assert clean.exit_code == 0
    assert "nothing is off" in clean.stdout
    account.book.invoices[0].total += 1
    off = await run(fake, "audit")
    assert off.exit_code == 1
    assert "2 things are off" in off.stdout
    machine = await run(fake, "--json", "audit")
    assert machine.exit_code == 1
    assert [finding["object"] for finding in json.loads(machine.stdout)["findings"]] == ["in_10", "in_10"]
