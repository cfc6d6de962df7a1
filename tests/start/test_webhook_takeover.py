"""A server's process, killed with -9 while webhooks are under way: none is lost, and only those come again of which
the answer was lost."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from billing_server.bootstrap import open_engine
from billing_server.config import Config
from billing_server.delivery.webhooks import AT_ONCE_MAX
from billing_server.domain import commands as c
from billing_server.domain.webhook import delivery_id
from billing_server.engine.webhooks import NewSecret
from billing_server.store.migrate import migrate
from tests.conftest import temporary_data_directory, temporary_database
from tests.delivery.consuming import eventually, write_log
from tests.engine.world import caller
from tests.start.test_server import running
from tests.webhooks.shop import Shop

EVENTS = 300
BEFORE_THE_KILL = 60
SERVING = r"Serving on \S+\.\n"
SETTLE_SECONDS = 120


@pytest.fixture
async def url(database_url: str) -> AsyncIterator[str]:
    """A database of its own: servers of other tests would send these webhooks, too."""
    async with temporary_database(database_url) as made:
        await migrate(made)
        yield made


@pytest.fixture
async def administrator(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """A receiver that takes everything, unless it is told to keep its answers to itself."""
    opened = Shop()
    await opened.open()
    yield opened
    await opened.close()


async def test_a_killed_server_loses_no_webhook(
    url: str, administrator: asyncpg.Connection, shop: Shop, tmp_path: Path
) -> None:
    settings = {"BILLING_DATABASE_URL": url, "BILLING_WEBHOOK_ALLOW_PRIVATE": "true"}
    config = Config.from_environment({**settings, "BILLING_DATA_DIR": str(tmp_path)})
    engine = await open_engine(config, url)
    account_id = (await engine.create_account("telling")).id
    command = c.CreateWebhookEndpoint(url=shop.url, event_types=("made.up",))
    made = (await engine.execute(account_id, command, caller(command))).result
    assert isinstance(made, NewSecret)
    shop.secrets.append(await engine.webhooks.secret(account_id, made.endpoint.id, made.number))

    async def states() -> dict[str, tuple[str, int]]:
        rows = await administrator.fetch("SELECT id, state, attempts FROM webhook_deliveries")
        return {row["id"]: (row["state"], row["attempts"]) for row in rows}

    async def all_claimed_have_arrived() -> bool:
        """From then on nothing changes: the next are claimed when all of these are settled."""
        claimed = sum(tries > 0 for _, tries in (await states()).values())
        return shop.under_way > 0 and claimed == len(shop.tried)

    with (
        temporary_data_directory() as here,
        temporary_data_directory() as there,
        running(here, **settings) as first,
    ):
        first.wait_until_serving(SERVING)
        before = await write_log(engine, account_id, [f"cus_{number}" for number in range(EVENTS)])
        expected = {delivery_id(made.endpoint.id, before + number) for number in range(1, EVENTS + 1)}
        await eventually(lambda: len(shop.taken) >= BEFORE_THE_KILL, SETTLE_SECONDS)
        shop.release.clear()
        await eventually(all_claimed_have_arrived, SETTLE_SECONDS)
        at_the_kill = await states()
        first.popen.send_signal(signal.SIGKILL)
        first.popen.wait()
        shop.release.set()
        await eventually(lambda: shop.under_way == 0, SETTLE_SECONDS)

        with running(there, **settings) as second:
            second.wait_until_serving(SERVING)
            # The leases of the dead are over.
            await administrator.execute("UPDATE webhook_deliveries SET due_at = 1 WHERE due_at IS NOT NULL")

            async def settled() -> bool:
                return Counter(state for state, _ in (await states()).values()) == {"delivered": EVENTS}

            await eventually(settled, SETTLE_SECONDS)
    unanswered = {identity for identity, (state, tries) in at_the_kill.items() if state == "pending" and tries}
    assert 1 <= len(unanswered) <= AT_ONCE_MAX
    assert shop.taken.keys() == expected
    assert {identity for identity, times in shop.taken.items() if times > 1} == unanswered
    assert max(shop.taken.values()) == 2
    assert {event["account"] for event in shop.events} == {account_id}
    await engine.close()
    await engine.store.close()
