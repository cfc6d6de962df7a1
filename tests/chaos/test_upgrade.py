"""An upgrade without downtime: servers of two releases beside each other on one database, which is expanded under
load, and contracted when the older ones are gone. The load is that of the chaos, in peace; so is the audit afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from billing_client.errors import BillingError
from tests.chaos import audit
from tests.chaos.calls import Calls, GaveUp
from tests.chaos.database import Database
from tests.chaos.ledger import Ledger
from tests.chaos.listeners import Audience, audience
from tests.chaos.operations import OPERATIONS
from tests.chaos.processes import START_SECONDS_MAX, GatewayProcess, ServerProcess
from tests.chaos.readers import Reader
from tests.chaos.releases import FIRST, RUDE, SECOND, Release, write_release
from tests.chaos.run import CATCH_UP_SECONDS_MAX, ended, settled
from tests.chaos.shop import Shop, open_shop
from tests.conftest import temporary_data_directory, temporary_database
from tests.mail.post_office import PostOffice

WORKERS: Final = 3
OPERATIONS_BETWEEN: Final = 20
"""How much is done between one step of the upgrade and the next: enough for each operation to have its turn."""
STOP_SECONDS_MAX: Final = 60.0
CALLERS_SECONDS_MAX: Final = 600.0


class Upgrade:
    """Two servers of today under load, and the releases to come."""

    def __init__(self, database: Database, folder: Path, gateway: GatewayProcess, post_office: PostOffice) -> None:
        self.database = database
        self.folder = folder
        self.gateway = gateway
        self.post_office = post_office
        self.old, self.new = self.server("old"), self.server("new")
        self.calls: Calls
        self.reader: Reader
        self._done = 0
        self._over = False

    def server(self, name: str) -> ServerProcess:
        """A server that is not started yet."""
        return ServerProcess(
            name, self.folder, self.database.url, self.gateway.target, self.post_office.port, plants=()
        )

    async def open(self) -> Shop:
        """Start both servers, and make prices and clocks."""
        await self.gateway.start(None)
        await self.old.start()
        await self.new.start()
        self.calls = Calls([self.old.target, self.new.target], self.old.api_key)
        self.calls.until = time.monotonic() + CALLERS_SECONDS_MAX
        self.reader = Reader(self.calls.clients, random.Random(0))
        self.audience = audience("the shop", self.calls, ("orders",), seed=0)
        return await open_shop(self.audience, Audience("nobody else", self.calls), random.Random(0))

    @contextlib.asynccontextmanager
    async def load(self, shop: Shop) -> AsyncIterator[None]:
        """Everything that customers do, all the time."""
        reading = asyncio.create_task(self.reader.follow())
        async with asyncio.TaskGroup() as workers:
            for number in range(WORKERS):
                workers.create_task(self._work(shop, random.Random(number)))
            try:
                yield
            finally:
                self._over = True
        await self._catch_up()
        await ended((reading,))

    async def _work(self, shop: Shop, dice: random.Random) -> None:
        weights = [operation.weight for operation in OPERATIONS]
        while not self._over:
            with contextlib.suppress(BillingError, GaveUp):
                await dice.choices(OPERATIONS, weights)[0].run(shop, dice)
            self._done += 1

    async def _catch_up(self) -> None:
        self.settled = await settled(self.database)
        self.fresh, self.log = await audit.whole_log(self.calls.clients[0])
        await self.reader.reach(self.fresh.position, CATCH_UP_SECONDS_MAX)

    async def goes_on(self) -> None:
        """Wait until so much more was done."""
        wanted = self._done + OPERATIONS_BETWEEN
        while self._done < wanted:  # noqa: ASYNC110  # a number that workers count
            await asyncio.sleep(0.02)

    async def restart(self, server: ServerProcess, release: Release | None) -> None:
        """Have a server drained and followed by one of this release, or today's; the other one serves meanwhile."""
        assert await asyncio.to_thread(server.stop, STOP_SECONDS_MAX) == 0
        self.become(server, release)
        await server.start()

    def become(self, server: ServerProcess, release: Release | None) -> None:
        """What a server is from its next start on."""
        if release is None:
            server.command = ["billing_server"]
            return
        folder = self.folder / f"migrations-{'-'.join(release)}"
        server.command = ["tests.chaos.releases", str(folder if folder.exists() else write_release(release, folder))]

    async def refused(self, server: ServerProcess, release: Release | None) -> str:
        """What such a server says, which does not start."""
        self.become(server, release)
        before = server.log.stat().st_size if server.log.exists() else 0
        server.launch(["-m", *server.command])
        status = await asyncio.to_thread(server.ended, START_SECONDS_MAX)
        told = server.log.read_bytes()[before:].decode()
        assert (status, "Traceback" in told) == (1, False), told
        return told

    async def findings(self) -> list[str]:
        """What is off after all."""
        ledger = Ledger(self.gateway.ledger_file)
        found = [
            *self.settled,
            *await audit.money(self.database, ledger),
            *await audit.moments(self.database),
            *await audit.commands(self.calls),
            *audit.readers([self.reader], self.fresh),
            *audit.effects(self.calls, self.log),
            *(await audit.account(self.calls.clients[0]))[0],
        ]
        ledger.close()
        return found

    def errors(self) -> list[str]:
        """What the servers logged as errors."""
        lines = [line for server in (self.old, self.new) for line in server.log.read_text().splitlines()]
        return [line for line in lines if '"error"' in line.lower() or "Traceback" in line]


@pytest.fixture
async def upgrade(database_url: str) -> AsyncIterator[Upgrade]:
    post_office = PostOffice()
    await post_office.open()
    async with temporary_database(database_url) as url:
        with temporary_data_directory() as folder:
            upgrade = Upgrade(Database(url), folder, GatewayProcess(folder), post_office)
            try:
                yield upgrade
            finally:
                for process in (upgrade.old, upgrade.new, upgrade.gateway):
                    process.kill()
                if hasattr(upgrade, "audience"):
                    await upgrade.calls.close()
                    for receiver in upgrade.audience.receivers:
                        await receiver.close()
    await post_office.close()


async def test_two_releases_serve_side_by_side_while_the_schema_is_expanded_and_contracted(upgrade: Upgrade) -> None:
    shop = await upgrade.open()
    old, new = upgrade.old, upgrade.new
    async with upgrade.load(shop):
        await upgrade.goes_on()
        # Expand: the new server migrates while the old one serves, and they share the work.
        await upgrade.restart(new, FIRST)
        await upgrade.goes_on()
        # An old server that dies comes back, on a database that is newer than it is.
        old.kill()
        await old.start()
        assert "this one works on" in old.log.read_text()
        await upgrade.goes_on()
        # Too early: nothing is taken away from it.
        third = upgrade.server("third")
        assert re.search(r"needs programs .* servers are running", await upgrade.refused(third, SECOND))
        await upgrade.goes_on()
        # Contract, as soon as no old one is left.
        await upgrade.restart(old, FIRST)
        await upgrade.goes_on()
        await upgrade.restart(new, SECOND)
        await upgrade.goes_on()
        # Too late: what today's release needs is gone.
        assert await asyncio.to_thread(old.stop, STOP_SECONDS_MAX) == 0
        assert "this program cannot work (" in await upgrade.refused(old, None)
        upgrade.become(old, SECOND)
        await old.start()
        await upgrade.goes_on()
    assert await upgrade.findings() == []
    assert upgrade.errors() == []
    (counted,) = await upgrade.database.sql(
        "SELECT count(*) FILTER (WHERE name_length IS NULL) AS old, count(name_length) AS new FROM customers"
    )
    assert min(counted.values()) > 0, counted


async def test_a_migration_against_the_rules_is_noticed(upgrade: Upgrade) -> None:
    """The calibration: the same load and audit find an old server that fails on what a new one did to its tables."""
    shop = await upgrade.open()
    async with upgrade.load(shop):
        await upgrade.restart(upgrade.new, RUDE)
        # The later server runs today's code, too, and may be the first to fail.
        async with asyncio.timeout(CALLERS_SECONDS_MAX):
            while not upgrade.calls.broken or "UndefinedColumn" not in upgrade.old.log.read_text():  # noqa: ASYNC110  # a list that workers fill
                await asyncio.sleep(0.1)
        # Those who wait for an answer need not wait any longer.
        upgrade.calls.until = 0
    assert all("INTERNAL" in finding for finding in upgrade.calls.broken), upgrade.calls.broken
