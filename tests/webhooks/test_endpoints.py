"""Endpoints and their secrets: limits, rotation, and what is never told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from billing_server.domain import commands as c
from billing_server.domain.errors import Conflict, InvalidArgument, LimitReached, ResourceMissing
from billing_server.domain.validation import validate
from billing_server.domain.webhook import WebhookEndpoint
from billing_server.domain.webhook_endpoints import ENDPOINTS_MAX, SECRETS_MAX
from billing_server.engine.webhooks import NewSecret
from tests.webhooks.conftest import Make, Process, Time
from tests.webhooks.shop import Shop

URL = "https://shop.example/hooks"


def accepts(shop: Shop, secret: str) -> bool:
    """Whether the newest webhook bears a signature of this secret."""
    try:
        Webhook(secret).verify(shop.bodies[-1], shop.headers[-1])
    except WebhookVerificationError:
        return False
    return True


async def rotate(process: Process, endpoint: WebhookEndpoint, **fields: int) -> str:
    """Give an endpoint a new secret, and tell it."""
    made = await process.execute(c.RotateWebhookSecret(id=endpoint.id, **fields))
    assert isinstance(made, NewSecret)
    return await process.engine.webhooks.secret(process.account_id, endpoint.id, made.number)


async def test_both_secrets_sign_until_the_old_one_ends(process: Process, shop: Shop, clock: Time) -> None:
    endpoint = await process.endpoint(shop.url, "product.*", shop=shop)
    (old,) = shop.secrets
    shop.verify = lambda body, headers: None  # type: ignore[method-assign]  # judged below, secret by secret
    new = await rotate(process, endpoint)
    assert old != new
    for moved, valid in ((0, (True, True)), (86_390, (True, True)), (60, (False, True))):
        clock.now += moved
        await process.tell("product.created")
        await process.work()
        timestamp = int(shop.headers[-1]["webhook-timestamp"])
        assert timestamp == clock.now
        # The library goes by the real time, so what it judges must be of now: only the number of signatures is left.
        assert len(shop.headers[-1]["webhook-signature"].split()) == sum(valid)
        if not moved:
            assert (accepts(shop, old), accepts(shop, new)) == valid


async def test_a_leaked_secret_ends_at_once(process: Process, shop: Shop, clock: Time) -> None:
    endpoint = await process.endpoint(shop.url, "product.*", shop=shop)
    (old,) = shop.secrets
    middle = await rotate(process, endpoint)
    shop.secrets = [await rotate(process, endpoint, grace_seconds=0)]
    # Secrets end by the database's clock, which went on while this one stood.
    clock.now += 60
    await process.tell("product.created")
    await process.work()
    assert [accepts(shop, secret) for secret in (old, middle, shop.secrets[0])] == [False, False, True]


async def test_secrets_are_not_without_number(process: Process) -> None:
    endpoint = await process.endpoint(URL)
    for _ in range(SECRETS_MAX - 1):
        await rotate(process, endpoint)
    with pytest.raises(LimitReached) as refused:
        await rotate(process, endpoint)
    assert refused.value.reason == "webhook_max_secrets"
    await rotate(process, endpoint, grace_seconds=0)
    await rotate(process, endpoint)


async def test_an_ended_secret_is_told_to_nobody(process: Process, administrator: asyncpg.Connection) -> None:
    endpoint = await process.endpoint(URL)
    secret = process.engine.webhooks.secret
    assert (await secret(process.account_id, endpoint.id, 1)).startswith("whsec_")
    await rotate(process, endpoint, grace_seconds=0)
    assert await secret(process.account_id, endpoint.id, 1) == ""
    assert await secret(process.account_id, endpoint.id, 2) != ""
    assert await secret("acct_another", endpoint.id, 2) == ""
    await process.execute(c.DeleteWebhookEndpoint(id=endpoint.id))
    count = "SELECT count(*) FROM webhook_secrets WHERE account_id = $1"
    assert await administrator.fetchval(count, process.account_id) == 0


async def test_endpoints_are_not_without_number(make: Make) -> None:
    process = make()
    await asyncio.gather(*(process.endpoint(URL) for _ in range(ENDPOINTS_MAX - 2)))
    made = await asyncio.gather(*(process.endpoint(URL) for _ in range(6)), return_exceptions=True)
    refused = [one for one in made if isinstance(one, LimitReached)]
    assert (len(refused), len(made) - len(refused)) == (4, 2)
    assert {one.reason for one in refused} == {"webhook_max_endpoints"}


async def test_an_update_changes_what_it_names(process: Process) -> None:
    endpoint = await process.endpoint(URL, "invoice.*")
    update = c.UpdateWebhookEndpoint
    same = await process.execute(update(id=endpoint.id, url=URL, enabled=True))
    assert same == endpoint, "a change of nothing is no new version"
    changed = await process.execute(update(id=endpoint.id, event_types=(), metadata={"a": "b"}, etag="v1"))
    assert (changed.event_types, changed.metadata, changed.version) == ((), {"a": "b"}, 2)
    with pytest.raises(Conflict):
        await process.execute(update(id=endpoint.id, description="x", etag="v1"))
    disabled = await process.execute(update(id=endpoint.id, enabled=False))
    assert (disabled.status, disabled.disabled_reason) == ("disabled", "requested")
    again = await process.execute(update(id=endpoint.id, enabled=False))
    assert again == disabled
    enabled = await process.execute(update(id=endpoint.id, enabled=True))
    assert (enabled.status, enabled.disabled_reason, enabled.disabled_at) == ("enabled", None, None)


@pytest.mark.parametrize(
    "command",
    [
        c.UpdateWebhookEndpoint(id="we_none", description="x"),
        c.DeleteWebhookEndpoint(id="we_none"),
        c.RotateWebhookSecret(id="we_none"),
    ],
)
async def test_what_is_not_there(process: Process, command: c.Command) -> None:
    with pytest.raises(ResourceMissing) as refused:
        await process.execute(command)
    assert refused.value.resource_type == "webhook_endpoint"


@pytest.mark.parametrize("url", ["http://shop.example/", "https://10.0.0.1/", "https://[::1]:8443/x"])
async def test_addresses_that_nothing_is_ever_sent_to(process: Process, url: str) -> None:
    process.engine.webhooks.allow_private = False
    endpoint = await process.endpoint(URL)
    for command in (c.CreateWebhookEndpoint(url=url), c.UpdateWebhookEndpoint(id=endpoint.id, url=url)):
        with pytest.raises(InvalidArgument) as refused:
            await process.execute(command)
        assert refused.value.field == "url"
        assert "BILLING_WEBHOOK_ALLOW_PRIVATE" in refused.value.message


def violations(command: c.Command) -> dict[str, str]:
    try:
        validate(command, now=1_700_000_000)
    except InvalidArgument as error:
        return {violation.field: violation.reason for violation in error.violations}
    return {}


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://shop.example:8443/a/b?c=d&e=%20",
        "http://localhost:8080/",
        "https://[2606:4700::1111]:443/x",
        "https://1.1.1.1/",
        "https://xn--bcher-kva.example/",
    ],
)
def test_good_urls(url: str) -> None:
    assert violations(c.CreateWebhookEndpoint(url=url)) == {}


@pytest.mark.parametrize(
    "url",
    [
        "shop.example/hooks",
        "ftp://shop.example/",
        "https://",
        "https:///path",
        "https://user:password@shop.example/",
        "https://shop.example:99999/",
        "https://shop.example:0/",
        "https://shop.example/#part",
        "https://shop.example#part",
        "https://shop.example/a b",
        "https://bücher.example/",
        "https://shop.example/\r\nx-evil: 1",
        "https://shop_example.com/",
        "https://[::1/",
        "https://[nonsense]/",
        "https://[1:2]/",
        "https://-shop.example/",
        "https://" + "a." * 150 + "example/",
        "https://shop.example/" + "x" * 2048,
    ],
)
def test_bad_urls(url: str) -> None:
    assert violations(c.CreateWebhookEndpoint(url=url)) == {"url": "parameter_invalid"}


@pytest.mark.parametrize(
    ("make_command", "field"),
    [
        (lambda: c.CreateWebhookEndpoint(url=URL, event_types=("Invoice.paid",)), "event_types[0]"),
        (lambda: c.CreateWebhookEndpoint(url=URL, event_types=("invoice.paid", "inv*")), "event_types[1]"),
        (lambda: c.CreateWebhookEndpoint(url=URL, event_types=("invoice.*.paid",)), "event_types[0]"),
        (lambda: c.CreateWebhookEndpoint(url=URL, event_types=("invoice.paid",) * 101), "event_types"),
        (lambda: c.CreateWebhookEndpoint(url=URL, description="x" * 501), "description"),
        (lambda: c.RotateWebhookSecret(id="we_1", grace_seconds=-1), "grace_seconds"),
        (lambda: c.RotateWebhookSecret(id="we_1", grace_seconds=604_801), "grace_seconds"),
    ],
)
def test_what_breaks_a_rule(make_command: Callable[[], c.Command], field: str) -> None:
    assert list(violations(make_command())) == [field]
