"""The queries of the hot path find their rows by the indexes made for them, and by all of their columns."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from billing_server.store import book, event, owners
from billing_server.store.account import ACCOUNTS, API_KEYS
from billing_server.store.automation import AUTOMATION_RUNS, AUTOMATIONS
from billing_server.store.catalog import PRICES, PRODUCTS
from billing_server.store.customer import CUSTOMERS, PAYMENT_METHODS
from billing_server.store.database import _SETTINGS
from billing_server.store.idempotency import IDEMPOTENCY, IdempotencyRow
from billing_server.store.invoice import CREDIT_NOTES, INVOICE_ITEMS, INVOICES
from billing_server.store.message import MESSAGES
from billing_server.store.migrate import migrate
from billing_server.store.payment import PAYMENT_ATTEMPTS, REFUNDS
from billing_server.store.schedule import SCHEDULES
from billing_server.store.statistics import Statistics
from billing_server.store.store import Store
from billing_server.store.subscription import SUBSCRIPTIONS
from billing_server.store.test_clock import TEST_CLOCKS
from billing_server.store.webhook import WEBHOOK_DELIVERIES
from tests.conftest import temporary_database
from tests.store import samples
from tests.store.samples import NOW, OPEN, PAID, SETTLED

# A query; the indexes that it may use, each with the columns that it must be searched by.
PLANS: list[tuple[Any, str, dict[str, set[str]]]] = [
    (book.BOOK_ROWS, "lock", {"books_pkey": {"customer"}}),
    (book.BOOK_ROWS, "claim_due", {"books_due": {"wake_at"}}),
    (book.BOOK_ROWS, "claim_due_on_clock", {"books_due_by_clock": {"test_clock", "wake_at"}}),
    (book.BOOK_ROWS, "claim_checks", {"books_to_check": {"check_at"}}),
    (book.BOOK_ROWS, "update", {"books_pkey": {"customer"}}),
    (
        book.BOOK_ROWS,
        "next_wake",
        {"subscriptions_by_customer": {"customer"}, "invoices_unsettled": {"customer"}},
    ),
    (CUSTOMERS, "get", {"customers_pkey": {"id"}}),
    (CUSTOMERS, "update", {"customers_pkey": {"id"}}),
    (PAYMENT_METHODS, "load_attached", {"payment_methods_attached": {"customer"}}),
    (SUBSCRIPTIONS, "get", {"subscriptions_pkey": {"id"}}),
    (SUBSCRIPTIONS, "update", {"subscriptions_pkey": {"id"}}),
    (SUBSCRIPTIONS, "load_due", {"subscriptions_by_customer": {"customer"}}),
    (SUBSCRIPTIONS, "load_live", {"subscriptions_by_customer": {"customer"}}),
    (SUBSCRIPTIONS, "count_live", {"subscriptions_by_customer": {"customer"}}),
    (SCHEDULES, "get", {"subscription_schedules_pkey": {"id"}}),
    (SCHEDULES, "update", {"subscription_schedules_pkey": {"id"}}),
    (SCHEDULES, "load_live", {"subscription_schedules_by_customer": {"customer"}}),
    (AUTOMATION_RUNS, "get", {"automation_runs_pkey": {"id"}}),
    (AUTOMATION_RUNS, "update", {"automation_runs_pkey": {"id"}}),
    (AUTOMATION_RUNS, "load_live", {"automation_runs_by_customer": {"customer"}}),
    (AUTOMATIONS, "load_changed", {"automations_pkey": {"account_id"}}),
    (INVOICES, "get", {"invoices_pkey": {"id"}}),
    (INVOICES, "update", {"invoices_pkey": {"id"}}),
    (INVOICES, "load_due", {"invoices_unsettled": {"customer"}}),
    (INVOICES, "load_unsettled", {"invoices_unsettled": {"customer", "subscription"}}),
    (INVOICES, "load_history", {"invoices_by_customer": {"customer"}}),
    (INVOICE_ITEMS, "load_pending", {"invoice_items_pending": {"customer"}}),
    (INVOICE_ITEMS, "load_of_invoices", {"invoice_items_by_invoice": {"invoice"}}),
    (CREDIT_NOTES, "load_of_invoices", {"credit_notes_by_invoice": {"invoice"}}),
    (PAYMENT_ATTEMPTS, "load_unresolved", {"payment_attempts_unresolved": {"customer"}}),
    (PAYMENT_ATTEMPTS, "load_of_invoices", {"payment_attempts_account_id_invoice_number_key": {"invoice"}}),
    (PAYMENT_ATTEMPTS, "update", {"payment_attempts_pkey": {"id"}}),
    (REFUNDS, "load_unresolved", {"refunds_unresolved": {"customer"}}),
    (REFUNDS, "load_of_invoices", {"refunds_by_invoice": {"invoice"}}),
    (MESSAGES, "claim", {"messages_due": {"due_at"}, "messages_pkey": {"id"}}),
    (MESSAGES, "settle", {"messages_pkey": {"id"}}),
    (MESSAGES, "get", {"messages_pkey": {"id"}}),
    (
        WEBHOOK_DELIVERIES,
        "claim",
        {"webhook_deliveries_due": {"endpoint", "due_at"}, "webhook_deliveries_pkey": {"id"}},
    ),
    (WEBHOOK_DELIVERIES, "settle", {"webhook_deliveries_pkey": {"id"}}),
    (WEBHOOK_DELIVERIES, "cancel", {"webhook_deliveries_due": {"endpoint"}}),
    (TEST_CLOCKS, "get", {"test_clocks_pkey": {"id"}}),
    (book.BOOK_ROWS, "park", {"books_pkey": {"customer"}}),
    (INVOICES, "delete", {"invoices_pkey": {"id"}}),
    (IDEMPOTENCY, "find", {"idempotency_keys_pkey": {"key"}}),
    (PRODUCTS, "load_changed", {"products_pkey": {"account_id"}}),
    (PRICES, "load_changed", {"prices_pkey": {"account_id"}}),
    (API_KEYS, "find", {"api_keys_secret_hash_key": {"secret_hash"}}),
    (ACCOUNTS, "opening", {"accounts_pkey": {"account_id"}}),
    (
        owners,
        "of_types",
        {
            "subscriptions_pkey": {"id"},
            "invoices_pkey": {"id"},
            "invoice_items_pkey": {"id"},
            "payment_methods_pkey": {"id"},
            "credit_notes_pkey": {"id"},
            "books_pkey": {"customer"},
            "subscription_schedules_pkey": {"id"},
            "automation_runs_pkey": {"id"},
        },
    ),
    (event, "append", {"event_heads_pkey": {"account_id"}}),
    (event, "oldest", {"events_pkey": {"account_id"}}),
    (event, "read_payloads", {"event_heads_pkey": {"account_id"}, "events_pkey": {"position"}}),
    (event, "kept", {"event_heads_pkey": {"account_id"}, "events_pkey": {"account_id"}}),
    (event, "get", {"events_pkey": {"position"}}),
]

# A list; its order or filter, and the index that brings it without sorting all of an account.
LISTS: list[tuple[Any, str, str, str]] = [
    (CUSTOMERS, "list", "", "customers_newest"),
    (CUSTOMERS, "list", " AND email = $3::text", "customers_by_email"),
    (SUBSCRIPTIONS, "list", "", "subscriptions_newest"),
    (SCHEDULES, "list", "", "subscription_schedules_newest"),
    (AUTOMATION_RUNS, "list", "", "automation_runs_newest"),
    (AUTOMATION_RUNS, "list", " AND automation = $3::text AND status = $4::text", "automation_runs_by_automation"),
    (AUTOMATION_RUNS, "list", " AND invoice = $3::text", "automation_runs_by_invoice"),
    (INVOICES, "list", "", "invoices_newest"),
    (INVOICES, "list", " AND (created, id) < ($3::bigint, $4::text)", "invoices_newest"),
    (INVOICES, "list", " AND customer = $3::text", "invoices_by_customer"),
    (MESSAGES, "list", "", "messages_newest"),
    (MESSAGES, "list", " AND customer = $3::text", "messages_by_customer"),
    (WEBHOOK_DELIVERIES, "list", "", "webhook_deliveries_newest"),
    (WEBHOOK_DELIVERIES, "list", " AND endpoint = $3::text", "webhook_deliveries_by_endpoint"),
    (WEBHOOK_DELIVERIES, "list", " AND event = $3::text", "webhook_deliveries_by_event"),
    (event, "read", "", "events_pkey"),
    (event, "read_of_subjects", " AND type = ANY ($5::text[])", "events_by_subject"),
    (event, "list_of_subjects", "", "events_by_subject"),
]


SIZES = (300, 300, *[1] * 60)
"""Customers of each account: plans are made for the average, and must do for the largest."""


@pytest.fixture(scope="module")
async def planner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the server has it, on a database of its own with accounts of all sizes."""
    async with temporary_database(database_url) as url:
        await migrate(url)
        store = await Store.open(url)
        accounts = [await _filled_account(store, customers) for customers in SIZES]
        await store.close()
        owner = await asyncpg.connect(url)
        await owner.execute("ANALYZE")
        await owner.close()
        connection = await asyncpg.connect(url, server_settings=_SETTINGS)
        await connection.execute(f"SET app.account = '{accounts[0]}'")
        yield connection
        await connection.close()


async def _filled_account(store: Store, customers: int) -> str:
    """An account with something of everything for each customer."""
    account = samples.account()
    await store.create_account(account)
    books, messages = [], []
    for _ in range(customers):
        owner = samples.customer(email=samples.new_id("mail"))
        sub = samples.subscription(owner)
        paid = samples.invoice(owner, sub, **PAID)
        attempt = samples.attempt(paid, **SETTLED)
        parts = (samples.payment_method(owner), sub, samples.invoice(owner, sub, **OPEN), paid, attempt)
        items = (samples.invoice_item(owner), samples.invoice_item(owner, invoice=paid.id))
        more = (
            samples.credit_note(paid),
            samples.refund(attempt, status="succeeded", settled_at=NOW),
            samples.schedule(owner),
            samples.run(owner, paid),
        )
        books.append(samples.book(owner, *parts, *items, *more))
        messages.append(samples.message(owner))
    keys = [
        IdempotencyRow(key=samples.new_id("k"), method="M", request_hash=b"", state="in_progress", created=NOW)
        for _ in books
    ]
    async with store.transaction(account.id) as unit:
        await unit.open()
        events = [samples.event(book.customer) for book in books for _ in range(20)]
        await unit.save([(None, book) for book in books], events, keys, messages)
    async with store.webhooks(account.id) as webhooks:
        for _ in range(4):
            endpoint = samples.webhook_endpoint()
            await webhooks.insert_endpoint(endpoint)
            tried = {"state": "delivered", "due_at": None, "settled_at": NOW}
            deliveries = [
                samples.webhook_delivery(endpoint, number, **(tried if number % 5 else {}))
                for number in range(1, customers + 1)
            ]
            await webhooks.add(deliveries, {})
    return account.id


async def plan_of(planner: asyncpg.Connection, query: str) -> Any:
    """The plan that PostgreSQL makes of a query once and for all."""
    types = ", ".join(
        f"{kind.name.removesuffix('[]')}[]" if kind.kind == "array" else kind.name
        for kind in (await planner.prepare(query)).get_parameters()
    )
    await planner.execute(f"PREPARE looked_at ({types}) AS {query}")
    nothing = ", ".join("NULL" for _ in types.split(","))
    plan = await planner.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at ({nothing})")
    await planner.execute("DEALLOCATE looked_at")
    return json.loads(plan)[0]["Plan"]


def nodes(plan: Any) -> Iterator[Any]:
    """All nodes of a plan."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.mark.parametrize(("source", "name", "indexes"), PLANS, ids=lambda value: str(value)[:20])
async def test_hot_queries_search_by_their_indexes(
    planner: asyncpg.Connection, source: Any, name: str, indexes: dict[str, set[str]]
) -> None:
    queries = source.queries if hasattr(source, "queries") else source.QUERIES
    plan = await plan_of(planner, queries[name])

    used = {node["Index Name"]: node.get("Index Cond", "") for node in nodes(plan) if "Index Name" in node}
    assert used.keys() == indexes.keys()
    for index, columns in indexes.items():
        assert all(column in used[index] for column in columns), used
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize(("source", "name", "condition", "index"), LISTS)
async def test_lists_come_from_an_index(
    planner: asyncpg.Connection, source: Any, name: str, condition: str, index: str
) -> None:
    queries = source.queries if hasattr(source, "queries") else source.QUERIES
    plan = await plan_of(planner, queries[name].replace("{filters}", condition))

    assert {node["Index Name"] for node in nodes(plan) if "Index Name" in node} == {index}
    if index.endswith("_newest"):
        # A billing run makes thousands of objects in one second: they must not be sorted for each page.
        assert not [node for node in nodes(plan) if "Sort" in node["Node Type"]]


async def test_a_young_table_gets_statistics_after_its_first_rows(
    database_url: str, administrator: asyncpg.Connection
) -> None:
    await administrator.execute("CREATE TABLE young AS SELECT generate_series(1, 600) AS number")
    statistics = Statistics(database_url)

    statistics.note({"young": 19})
    assert statistics._task is None
    statistics.note({"young": 1})
    assert statistics._task is not None
    await statistics._task

    rows = await administrator.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'young'")
    await administrator.execute("DROP TABLE young")
    await statistics.close()
    assert rows == 600


@pytest.mark.parametrize(
    ("more", "written", "rows"),
    [
        pytest.param(100, 600, 600, id="it is left alone"),
        pytest.param(100, 10_000, 700, id="unless it had fewer rows than were written now"),
        pytest.param(10_000, 600, 10_600, id="or has more than doubled"),
    ],
)
async def test_a_table_that_was_sampled_before(
    database_url: str, administrator: asyncpg.Connection, more: int, written: int, rows: int
) -> None:
    await administrator.execute("CREATE TABLE known AS SELECT generate_series(1, 600) AS number")
    # Autovacuum would count the rows, too.
    await administrator.execute("ALTER TABLE known SET (autovacuum_enabled = off); ANALYZE known")
    await administrator.execute(f"INSERT INTO known SELECT generate_series(1, {more})")
    statistics = Statistics(database_url)

    statistics.note({"known": written})
    assert statistics._task is not None
    await statistics._task

    counted = await administrator.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'known'")
    await administrator.execute("DROP TABLE known")
    await statistics.close()
    assert counted == rows
