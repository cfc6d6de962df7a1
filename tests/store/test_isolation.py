"""Accounts never see each other, not even by a query that forgets its filter."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from billing_server.domain.account import ApiKey
from billing_server.domain.consumer import SHARDS, Consumer, Parked, ShardState
from billing_server.domain.metering import Bucket
from billing_server.domain.tally import Tally
from billing_server.store.consumer import Share
from billing_server.store.database import Connection, Database, account_setting
from billing_server.store.errors import StoreCorrupted
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow
from tests.store import samples
from tests.store.samples import NOW, OPEN, SETTLED

SEEN_WHEN_SWEEPING = {
    *("accounts", "books", "event_heads", "messages", "test_clocks"),
    *("webhook_cursors", "webhook_deliveries"),
}

_ROWS = {"consumer_shards": SHARDS}
"""Rows of tables that have more than one of a full account."""


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    """The pool that the server uses, for statements that the store would never send."""
    opened = await Database.open(database_url, min_connections=1, max_connections=2, acquire_seconds_max=60)
    yield opened
    await opened.close()


@pytest.fixture
async def full_account(store: Store, account_id: str) -> str:
    """An account with a row in every table."""
    product, clock = samples.product(), samples.test_clock()
    owner = samples.customer(test_clock=clock.id)
    sub = samples.subscription(owner)
    invoice = samples.invoice(owner, sub, **OPEN)
    attempt = samples.attempt(invoice, **SETTLED)
    parts = [
        *(sub, invoice, attempt, samples.refund(attempt), samples.credit_note(invoice)),
        samples.schedule(owner),
        samples.run(owner, invoice),
        *(samples.payment_method(owner), samples.invoice_item(owner), samples.balance_transaction(owner)),
    ]
    key = ApiKey(id=samples.new_id("key"), created=NOW, name="key", scopes=("all",), last_four="1234")
    row = IdempotencyRow(key="key", method="Method", request_hash=b"hash", state="in_progress", created=NOW)
    async with store.transaction(account_id) as unit:
        await unit.open()
        await unit.insert_test_clock(clock)
        await unit.insert_api_key(key, key.id.encode())
        await unit.save_pages(
            products=[product],
            prices=[samples.price(product)],
            meters=[samples.meter()],
            automations=[samples.automation()],
        )
        await unit.create_consumer(Consumer(id="crm", created=NOW), 0)
        await unit.insert_meter_events([(owner.id, "mtr_1", bytes(16), NOW, 1, NOW)])
        await unit.save_tallies([(Bucket(owner.id, "mtr_1", 60, NOW - NOW % 60), Tally(1, 1, 1, NOW, NOW))], [])
        endpoint = samples.webhook_endpoint()
        await unit.webhooks.insert_endpoint(endpoint)
        await unit.webhooks.add_secret(endpoint.id, b"secret")
        await unit.webhooks.begin(endpoint.id)
        await unit.webhooks.add([samples.webhook_delivery(endpoint, state="failed", due_at=None, settled_at=NOW)], {})
        await unit.save([(None, samples.book(owner, *parts))], [samples.event(owner)], [row], [samples.message(owner)])
    await store.meet_consumer(account_id, Share(consumer="crm", connection="con_1"), 60)
    parked = Parked(position=1, shard=0, tries=5, reason="declined")
    state = ShardState(shard=0, position=1, floor=1)
    await store.store_share(account_id, Share(consumer="crm", connection="con_1", states=[state], parked=[parked]))
    did = GatewayRow(key="pa_1", fingerprint=b"print", outcome=b"{}", effects=1, created=NOW)
    await store.remember_charges(account_id, [did])
    await store.remember_refunds(account_id, [did])
    return account_id


async def tenant_tables(administrator: asyncpg.Connection) -> list[str]:
    """All tables with rows of accounts."""
    records = await administrator.fetch(
        "SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid "
        "WHERE attname = 'account_id' AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    return [record[0] for record in records]


async def test_every_table_has_forced_row_level_security_and_belongs_to_accounts(
    administrator: asyncpg.Connection,
) -> None:
    tables = await administrator.fetch(
        "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'schema_migrations'"
    )

    assert all(forced for _, forced in tables)
    assert sorted(name for name, _ in tables) == await tenant_tables(administrator)


async def test_queries_without_a_filter_see_only_their_own_account(
    store: Store, database: Database, full_account: str, administrator: asyncpg.Connection
) -> None:
    stranger = samples.account()
    await store.create_account(stranger)
    tables = await tenant_tables(administrator)
    counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in tables)

    async def counted(connection: Connection) -> dict[str, int]:
        return {record[0]: record[1] for record in await connection.fetch(counts)}

    async with database.transaction(account_setting(full_account), read_only=True) as transaction:
        own = await counted(transaction.connection)
    async with database.transaction(account_setting(stranger.id), read_only=True) as transaction:
        strange = await counted(transaction.connection)
    async with database.transaction("SELECT 1", read_only=True) as transaction:
        nobody = await counted(transaction.connection)

    assert own == dict.fromkeys(tables, 1) | _ROWS
    assert strange == dict.fromkeys(tables, 0) | {"accounts": 1, "event_heads": 1}
    assert nobody == dict.fromkeys(tables, 0)


async def test_sweeping_sees_what_is_due_and_nothing_else(
    database: Database, full_account: str, administrator: asyncpg.Connection
) -> None:
    for table in await tenant_tables(administrator):
        async with database.transaction("SET LOCAL app.sweep = 'on'", read_only=True) as transaction:
            query = f"SELECT count(*) FROM {table} WHERE account_id = $1"
            seen = await transaction.connection.fetchval(query, full_account)
        assert bool(seen) == (table in SEEN_WHEN_SWEEPING), table


@pytest.mark.parametrize("setting", ["SET LOCAL app.sweep = 'on'", "SELECT 1"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET account_id = account_id WHERE account_id = '{account}'",
        "DELETE FROM {table} WHERE account_id = '{account}'",
    ],
)
async def test_nothing_of_another_account_can_be_changed(
    database: Database, full_account: str, administrator: asyncpg.Connection, setting: str, statement: str
) -> None:
    for table in await tenant_tables(administrator):
        with contextlib.suppress(StoreCorrupted):
            async with database.transaction(setting) as transaction:
                changed = await transaction.connection.execute(statement.format(table=table, account=full_account))
                assert changed == 0, table
        count = f"SELECT count(*) FROM {table} WHERE account_id = $1"
        assert await administrator.fetchval(count, full_account) == _ROWS.get(table, 1)


async def test_nothing_can_be_written_for_another_account(database: Database, account_id: str) -> None:
    with pytest.raises(Exception, match="row-level security"):
        async with database.transaction(account_setting("acct_other")) as transaction:
            query = "INSERT INTO event_heads (account_id, position) VALUES ($1, 1)"
            await transaction.connection.execute(query, f"{account_id}x")


async def test_a_key_is_seen_by_its_hash_alone(store: Store, database: Database, full_account: str) -> None:
    async with database.transaction(account_setting(full_account), read_only=True) as transaction:
        secret_hash = await transaction.connection.fetchval("SELECT secret_hash FROM api_keys")

    found = await store.find_api_key(secret_hash)
    assert found is not None and found[0] == full_account
    assert await store.find_api_key(b"\x00" * 32) is None
    assert await store.find_api_key(b"") is None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a bigint)",
        "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
        "DROP POLICY own_account ON events",
        "UPDATE events SET type = 'x'",
        "UPDATE meter_events SET value = 0",
        "DELETE FROM accounts",
        "TRUNCATE events",
        "SELECT * FROM schema_migrations",
        "CREATE ROLE other",
    ],
)
async def test_the_servers_role_may_do_only_what_it_needs(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT current_user") == "billing_app"
        with pytest.raises(StoreCorrupted, match=r"permission denied|must be owner"):
            await connection.execute(statement)


@pytest.mark.parametrize("account", ["", "a'; DROP TABLE events; --", "A", "a b", "x" * 65])
async def test_account_ids_that_could_be_sql_are_refused(store: Store, account: str) -> None:
    with pytest.raises(ValueError, match="not an account id"):
        async with store.transaction(account):
            pass
