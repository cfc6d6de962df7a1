"""E-mails through the RPCs: on a test clock they are staged with its time and written into the data directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from billing_client import BillingClient
from billing_server.bootstrap import Server
from billing_server.domain.message import Message
from billing_server.store.message import MessageFilter
from billing_server.store.migrate import migrate
from tests.conftest import temporary_database
from tests.scenarios.world import BAD, OK, World, at
from tests.serving import new_caller, serving

JENNY = "jenny@example.com"


@pytest.fixture
async def alone(database_url: str, data_directory: Path) -> AsyncIterator[Server]:
    """A server on a database of its own: servers that other tests leave running would write these letters, too."""
    async with temporary_database(database_url) as url:
        await migrate(url)
        async with serving(url, data_directory) as served:
            yield served


async def messages(server: Server, world: World) -> list[Message]:
    """All messages of the world's account, oldest first."""
    account = (await world.call("account", "GetAccount")).id
    async with server.engine.store.view(account) as view:
        found = (await view.page(MessageFilter(), limit=1000)).items
    return sorted(found, key=lambda message: message.id)


async def told(server: Server, world: World) -> list[tuple[str, int]]:
    """Kind and time of all messages."""
    return [(message.kind, message.created) for message in await messages(server, world)]


async def letters(folder: Path, ids: set[str]) -> list[EmailMessage]:
    """The e-mails of these messages, once they are written."""
    paths = sorted(folder / f"{identity}.eml" for identity in ids)
    async with asyncio.timeout(60):
        while not all(path.is_file() for path in paths):  # noqa: ASYNC110  # the server's task writes them
            await asyncio.sleep(0.05)
    return [message_from_bytes(path.read_bytes(), _class=EmailMessage, policy=default) for path in paths]


@pytest.mark.parametrize(
    ("days", "reminded_at"), [(30, "2025-03-24"), (5, "2025-03-01")], ids=["7 days before", "at once"]
)
async def test_70_the_trial_reminder(server: Server, client: BillingClient, days: int, reminded_at: str) -> None:
    world = await World.begin(client, "2025-03-01")
    customer = await world.customer(email=JENNY)
    await world.subscribe(customer, await world.price(3100), trial_period_days=days)
    if days < 7:
        assert await told(server, world) == [("trial_reminder", at(reminded_at))], "before the clock moves"
    await world.advance("2025-03-30")
    assert (await told(server, world))[0] == ("trial_reminder", at(reminded_at))


async def test_70_an_extended_trial_is_announced_again(server: Server, client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    subscription = await world.subscribe(
        await world.customer(email=JENNY), await world.price(3100), trial_period_days=14
    )
    await world.advance("2025-03-10")
    await world.update(subscription.id, trial_end=at("2025-04-10"))
    await world.advance("2025-04-05")
    assert await told(server, world) == [
        ("trial_reminder", at("2025-03-08")),
        ("trial_reminder", at("2025-04-03")),
    ]


async def test_82_nothing_while_collection_is_paused(server: Server, client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.settings(emails={"upcoming_renewal": True})
    subscription = await world.subscribe(await world.customer(email=JENNY), await world.price(3100))
    await world.update(subscription.id, pause_collection={"behavior": "void", "resumes_at": at("2025-03-15")})
    await world.advance("2025-04-02")
    assert await told(server, world) == [
        ("receipt", at("2025-01-01")),
        ("upcoming_renewal", at("2025-03-25")),
        ("receipt", at("2025-04-01T01:00")),
    ]
    assert await world.events("invoice.upcoming"), "only for what is collected again"


async def test_letters_are_written_into_the_data_directory(alone: Server, data_directory: Path) -> None:
    caller = await new_caller(alone)
    await caller.close()
    async with BillingClient(str(alone.address), caller.secret) as client:
        await check_letters(alone, client, data_directory / "mail")


async def check_letters(server: Server, client: BillingClient, folder: Path) -> None:
    world = await World.begin(client, "2025-01-01")
    emails = {"cancellation_policy_url": "https://shop.example/cancel", "billing_page_url": "https://shop.example/pay"}
    await world.settings(company_name="Jenny's Shop", statement_descriptor="SHOP EXAMPLE", emails=emails)
    customer = await world.customer(email=JENNY, name="<Jenny>", preferred_locale="de-DE")
    await world.subscribe(customer, await world.price(3100), trial_period_days=14)
    await world.advance("2025-01-16")
    staged = {message.id for message in await messages(server, world)}
    reminder, receipt = await letters(folder, staged)
    assert parsedate_to_datetime(str(receipt["Date"])).timestamp() == at("2025-01-15T01:00")
    assert (receipt["To"], receipt["X-Billing-Test-Clock"]) == (JENNY, world.clock)
    text, page = (str(receipt.get_body((kind,)).get_content()) for kind in ("plain", "html"))  # type: ignore[union-attr]  # both are there
    assert "31,00\xa0$" in text
    assert "https://shop.example/cancel" in text
    assert "TRIAL OVER" in text
    assert "&lt;Jenny&gt;" in page
    assert "15. Januar 2025" in str(reminder["Subject"])


@pytest.mark.parametrize("card", [OK, BAD, None])
@pytest.mark.parametrize(
    "fields", [{}, {"collection_method": "send_invoice", "days_until_due": 7}], ids=["charge", "send"]
)
async def test_a_forecast_tells_the_mails_that_a_clock_then_sends(
    server: Server, client: BillingClient, card: str | None, fields: dict[str, Any]
) -> None:
    world = await World.begin(client, "2025-03-01")
    await world.settings(emails={"upcoming_renewal": True})
    customer = await world.customer(card, email=JENNY)
    made = await world.subscribe(customer, await world.price(3100), trial_period_days=20, **fields)
    before = len(await messages(server, world))
    until = at("2025-06-10")
    payments = "succeed" if card == OK else "fail"
    foreseen = await world.call("subscriptions", "ForecastSubscription", id=made.id, until=until, payments=payments)
    told_ahead = [
        (
            type(foreseen)
            .DESCRIPTOR.file.pool.FindEnumTypeByName("billing.v1.MessageKind")
            .values_by_number[m.kind]
            .name,
            m.created.seconds,
            m.recipient,
            m.amount if m.HasField("amount") else None,
            m.currency,
        )
        for m in foreseen.messages
    ]
    assert len(told_ahead) >= 4
    await world.advance(until)
    sent = (await messages(server, world))[before:]
    assert told_ahead == [
        (f"MESSAGE_KIND_{m.kind.upper()}", m.created, m.recipient, m.facts.amount, m.facts.currency) for m in sent
    ]
