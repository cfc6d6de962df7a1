"""Webhooks through the RPCs and the command line: what a shop gets when subscriptions live on a test clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToJson
from typer.testing import CliRunner

from billing_client import BillingClient
from billing_client.calls import idempotency_key
from billing_client.command_line.main import app, hoist
from billing_client.errors import BillingError
from billing_server.bootstrap import Server
from billing_server.store.migrate import migrate
from tests.conftest import temporary_database
from tests.scenarios.world import OK, World, at, word
from tests.serving import new_caller, serving
from tests.webhooks.shop import Shop

SETTINGS = {"BILLING_WEBHOOK_ALLOW_PRIVATE": "true"}


@pytest.fixture(scope="module")
async def sender(database_url: str, data_directory: Path) -> AsyncIterator[Server]:
    """A server that sends to loopback, on a database of its own: others would send these webhooks, too."""
    async with temporary_database(database_url) as url:
        await migrate(url)
        async with serving(url, data_directory, SETTINGS) as served:
            yield served


@pytest.fixture
async def secret(sender: Server) -> str:
    """The API key of a fresh account."""
    caller = await new_caller(sender)
    await caller.close()
    return caller.secret


@pytest.fixture
async def shopping(sender: Server, secret: str) -> AsyncIterator[BillingClient]:
    """A client of that account."""
    async with BillingClient(str(sender.address), secret) as made:
        yield made


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """A shop that takes everything, until it is told otherwise."""
    opened = Shop()
    await opened.open()
    yield opened
    await opened.close()


async def until(arrived: Callable[[], bool]) -> None:
    """Wait for what the server does by itself."""
    async with asyncio.timeout(60):
        while not arrived():  # noqa: ASYNC110  # the server's own tasks send webhooks
            await asyncio.sleep(0.02)


async def open_endpoint(world: World, shop: Shop, *types: str) -> Any:
    """An endpoint whose secret the shop learns."""
    made = await world.call("webhooks", "CreateWebhookEndpoint", url=shop.url, event_types=types)
    shop.secrets = [made.secret]
    return made.webhook_endpoint


async def test_everything_that_happens_arrives_as_it_stands_in_the_log(shopping: BillingClient, shop: Shop) -> None:
    world = await World.begin(shopping, "2025-01-01")
    await open_endpoint(world, shop)
    customer = await world.customer(OK)
    await world.subscribe(customer, await world.price(3100))
    await world.advance("2025-04-02")
    log = [event for event in await world.events() if event.position > 2]
    await until(lambda: len(shop.taken) == len(log))
    assert sorted(shop.bodies) == sorted(MessageToJson(event, indent=None).encode() for event in log)
    assert set(shop.taken.values()) == {1}
    assert len(log) > 40
    paid = [event for event in shop.events if event["type"] == "invoice.paid"]
    assert max(event["created"] for event in paid) == "2025-04-01T01:00:00Z", "with the clock's time, sent at once"


@pytest.mark.parametrize("behavior", ["void", "mark_uncollectible", "keep_as_draft"])
async def test_decision_17_invoices_born_paused_are_for_the_log(
    shopping: BillingClient, shop: Shop, behavior: str
) -> None:
    world = await World.begin(shopping, "2025-01-01")
    customer = await world.customer(OK)
    subscription = (await world.subscribe(customer, await world.price(3100))).id
    await world.update(subscription, pause_collection={"behavior": behavior, "resumes_at": at("2025-02-15")})
    await open_endpoint(world, shop, "invoice.*", "customer.subscription.updated")
    await world.advance("2025-02-02")
    paused = await world.latest(subscription)
    await world.advance("2025-03-02")
    logged = await world.events("invoice.*")
    of_paused = [event.type for event in logged if event.object_id == paused.id]
    assert of_paused[0] == "invoice.created"
    ends = {"void": ["invoice.voided"], "mark_uncollectible": ["invoice.marked_uncollectible"], "keep_as_draft": []}
    assert of_paused[1:] == ends[behavior]

    march = (await world.latest(subscription)).id
    await until(lambda: "invoice.payment_succeeded" in {event["type"] for event in shop.events})
    sent = [event for event in shop.events if event["type"].startswith("invoice.")]
    assert {event.get("objectId", "") for event in sent} <= {march, ""}, "the first invoice after the pause alone"
    assert [event for event in shop.events if "pauseCollection" in str(event) or "pause_collection" in str(event)]
    if behavior == "keep_as_draft":
        await world.call("invoices", "UpdateInvoice", id=paused.id, auto_advance=True)
        await world.advance("2025-03-03")
        await until(lambda: [event["objectId"] for event in shop.events if event["type"] == "invoice.paid"][1:] != [])
        told = [event["type"] for event in shop.events if event.get("objectId") == paused.id]
        assert "invoice.created" not in told
        assert {"invoice.finalized", "invoice.paid"} <= set(told), "released, it is an invoice as any other"


async def test_the_same_request_tells_the_same_secret(shopping: BillingClient, shop: Shop) -> None:
    world = await World.begin(shopping, "2025-01-01")
    key = idempotency_key("endpoint-1")
    fields = {"url": shop.url, "event_types": ["product.*"], "metadata": {"a": "b"}}
    first = await world.call("webhooks", "CreateWebhookEndpoint", call_metadata=key, **fields)
    again = await world.call("webhooks", "CreateWebhookEndpoint", call_metadata=key, **fields)
    assert first == again
    assert first.secret.startswith("whsec_")
    endpoint = first.webhook_endpoint.id
    listed = (await world.call("webhooks", "ListWebhookEndpoints")).webhook_endpoints
    assert [one.id for one in listed] == [endpoint], "made once"
    assert "whsec" not in str(listed)
    assert await world.call("webhooks", "GetWebhookEndpoint", id=endpoint) == first.webhook_endpoint

    rotation = {"call_metadata": idempotency_key("rotation-1"), "id": endpoint, "grace_seconds": 0}
    rotated = await world.call("webhooks", "RotateWebhookSecret", **rotation)
    assert await world.call("webhooks", "RotateWebhookSecret", **rotation) == rotated
    assert rotated.secret.startswith("whsec_")
    assert rotated.secret != first.secret
    replayed = await world.call("webhooks", "CreateWebhookEndpoint", call_metadata=key, **fields)
    assert replayed.secret == "", "it has ended"
    shop.secrets = [rotated.secret]
    await world.product()
    await until(lambda: len(shop.taken) == 1)


async def test_rotation_loses_nothing_on_the_way(shopping: BillingClient, shop: Shop) -> None:
    """The receiver verifies by the old secret, then by either, then by the new one alone."""
    world = await World.begin(shopping, "2025-01-01")
    endpoint = await open_endpoint(world, shop, "product.*")
    old = shop.secrets[0]
    rotated = await world.call("webhooks", "RotateWebhookSecret", id=endpoint.id)
    for number, secrets in enumerate(([old], [old, rotated.secret], [rotated.secret]), start=1):
        shop.secrets = secrets
        await world.product()
        await until(lambda number=number: len(shop.taken) == number)  # type: ignore[misc]
    assert shop.tried.total() == 3


async def test_deliveries_are_listed_got_and_sent_again(
    sender: Server, shopping: BillingClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is shown here must not change meanwhile.
    monkeypatch.setattr(sender.webhooks, "_retry_seconds", (3_600,))
    world = await World.begin(shopping, "2025-01-01")
    endpoint = await open_endpoint(world, shop, "product.created")
    shop.choose = lambda event: 500 if event["product"]["name"] == "Bad" else 200
    for name in ("Good", "Bad", "Good"):
        await world.product(name)
    await until(lambda: shop.tried.total() >= 3)

    async def listed(**fields: Any) -> list[Any]:
        found = await world.call("webhooks", "ListWebhookDeliveries", **fields)
        return list(found.webhook_deliveries)

    async with asyncio.timeout(60):
        while len(await listed(state="delivered")) < 2 or not (await listed(state="pending"))[0].error:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert len(await listed(endpoint=endpoint.id)) == 3
    (bad,) = await listed(state="pending")
    assert (bad.response_status, bad.attempts, word(bad, "state")) == (500, 1, "pending")
    assert bad.error == "the answer was 500"
    assert [one.id for one in await listed(event=bad.event)] == [bad.id]
    assert await world.call("webhooks", "GetWebhookDelivery", id=bad.id) == bad
    first = await world.call("webhooks", "ListWebhookDeliveries", page_size=2)
    rest = await world.call("webhooks", "ListWebhookDeliveries", page_size=2, page_token=first.next_page_token)
    ids = [one.id for page in (first, rest) for one in page.webhook_deliveries]
    assert sorted(ids) == sorted({one.id for one in await listed()})

    shop.choose = lambda event: 200
    await world.call("webhooks", "RedeliverWebhookDelivery", id=bad.id)
    good = (await listed(state="delivered"))[0]
    await world.call("webhooks", "RedeliverWebhookDelivery", id=good.id)
    await until(lambda: shop.taken[bad.id] == 1 and shop.taken[good.id] == 2)


async def test_disabled_and_enabled_again(shopping: BillingClient, shop: Shop) -> None:
    world = await World.begin(shopping, "2025-01-01")
    endpoint = await open_endpoint(world, shop, "product.created")
    disabled = await world.call("webhooks", "UpdateWebhookEndpoint", id=endpoint.id, enabled=False)
    assert (word(disabled, "status"), word(disabled, "disabled_reason")) == ("disabled", "requested")
    await world.product("while it is disabled")
    enabled = await world.call("webhooks", "UpdateWebhookEndpoint", id=endpoint.id, enabled=True)
    assert (word(enabled, "status"), enabled.HasField("disabled_at")) == ("enabled", False)
    await world.product("afterwards")
    await until(lambda: bool(shop.events))
    assert [event["product"]["name"] for event in shop.events] == ["afterwards"]
    await world.call("webhooks", "UpdateWebhookEndpoint", id=endpoint.id, update_mask={"paths": ["event_types"]})
    assert not (await world.call("webhooks", "GetWebhookEndpoint", id=endpoint.id)).event_types, "all, from now on"
    with pytest.raises(BillingError) as refused:
        await world.call("webhooks", "UpdateWebhookEndpoint", id=endpoint.id, url=shop.url, etag=endpoint.etag)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    await world.call("webhooks", "DeleteWebhookEndpoint", id=endpoint.id)
    with pytest.raises(BillingError) as gone:
        await world.call("webhooks", "GetWebhookEndpoint", id=endpoint.id)
    assert gone.value.code == grpc.StatusCode.NOT_FOUND


async def test_private_addresses_are_refused_where_the_setting_is_not_set(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    for url in ("http://shop.example/", "https://127.0.0.1/", "https://10.1.2.3:8443/hooks"):
        with pytest.raises(BillingError) as refused:
            await world.call("webhooks", "CreateWebhookEndpoint", url=url)
        assert [violation.field for violation in refused.value.violations] == ["url"]
        assert "BILLING_WEBHOOK_ALLOW_PRIVATE=true" in refused.value.message


async def test_metrics_tell_of_webhooks(sender: Server, shopping: BillingClient, shop: Shop) -> None:
    world = await World.begin(shopping, "2025-01-01")
    await open_endpoint(world, shop, "product.created")
    before = sender.webhooks.outcomes["delivered"]
    await world.product()
    await until(lambda: sender.webhooks.outcomes["delivered"] > before)
    sender._backlog.webhooks = await sender.engine.store.webhook_backlog()
    registry = sender._metrics.registry
    count = registry.get_sample_value("billing_webhooks_total", {"outcome": "delivered"})
    assert count == sender.webhooks.outcomes["delivered"]
    for name in ("pending", "late_seconds", "behind_events"):
        assert registry.get_sample_value(f"billing_webhooks_{name}") is not None
    assert registry.get_sample_value("billing_webhook_endpoints_sick") == 0


async def test_the_command_line(sender: Server, secret: str, shopping: BillingClient, shop: Shop) -> None:
    async def billing(*arguments: str) -> Any:
        command = hoist(["--target", str(sender.address), "--api-key", secret, *arguments])
        result = await asyncio.to_thread(lambda: CliRunner().invoke(app, command))
        assert result.exit_code == 0, result.output
        return result.stdout

    made = json.loads(await billing("webhooks", "create", shop.url, "--type", "product.*", "--json"))
    endpoint = made["webhook_endpoint"]["id"]
    shop.secrets = [made["secret"]]
    assert made["webhook_endpoint"]["event_types"] == ["product.*"]
    shown = await billing("webhooks", "list", "--status", "enabled")
    assert endpoint in shown
    assert "product.*" in shown
    await billing("products", "create", "Gold")
    await until(lambda: len(shop.taken) == 1)
    async with asyncio.timeout(60):
        while not (listed := await billing("webhooks", "deliveries", "--state", "delivered", "--json")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    delivery = json.loads(listed)
    assert (delivery["endpoint"], delivery["event_type"]) == (endpoint, "product.created")
    assert delivery["id"] in await billing("webhooks", "delivery", delivery["id"])
    await billing("webhooks", "redeliver", delivery["id"])
    await until(lambda: shop.taken[delivery["id"]] == 2)
    rotated = json.loads(await billing("webhooks", "rotate", endpoint, "--grace-seconds", "60", "--json"))
    assert rotated["secret"] != made["secret"]
    changed = json.loads(
        await billing("webhooks", "update", endpoint, "--all-types", "--disable", "--description", "x", "--json")
    )
    assert (changed["status"], changed["description"]) == ("WEBHOOK_ENDPOINT_STATUS_DISABLED", "x")
    assert "event_types" not in changed
    assert "disabled" in await billing("webhooks", "show", endpoint)
    await billing("webhooks", "delete", endpoint)
    assert endpoint not in await billing("webhooks", "list")
    # Which fails when an event of an endpoint is a riddle to it.
    await billing("audit")
