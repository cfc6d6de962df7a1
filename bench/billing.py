"""Billing runs: renewals, full cycles up to the payment, and what a renewal costs in accounts of different sizes."""

from __future__ import annotations

import time
from collections.abc import Callable

import asyncpg

from bench import floors, workers
from bench.floors import one
from bench.measure import Figure
from bench.scene import AMOUNT, fill, new_account, open_engine

PROCESSES = 2
_PAST_SECONDS = 4_000
"""How long ago a period of the cycle benchmark ended: its draft hour is over, too."""


async def renewals(url: str, subscriptions: int, repeat: int) -> list[Figure]:
    """Due books to draft invoices, events and next wake-ups, by one process and by two, beside both floors."""
    by_one = Figure("renewals, 1 process", "the same rows by INSERT … SELECT")
    by_two = Figure(f"renewals, {PROCESSES} processes", "the same rows by INSERT … SELECT", aim=0.5)
    against_rows = Figure(f"renewals, {PROCESSES} processes", "a transaction and a statement per row", aim=6)
    wal = Figure("log written per renewal", "the same rows with jsonb events", unit="bytes", aim=0.7, at_most=True)
    for _ in range(repeat):
        for processes, figure in ((1, by_one), (PROCESSES, by_two)):
            account_id, moment = await _scene(url, subscriptions, 0)
            taken = await workers.run(url, account_id, "renew", moment, processes)
            connection = await asyncpg.connect(url)
            try:
                await _check_renewals(connection, account_id, subscriptions)
                by_sets = await floors.renewals_by_sets(connection, account_id)
                figure.add(subscriptions / taken.seconds, by_sets.rate, **taken.each(subscriptions))
                if processes == PROCESSES:
                    row_rate = await floors.renewals_by_rows(connection, account_id)
                    against_rows.add(subscriptions / taken.seconds, row_rate)
                    more = 2 * await floors.json_instead_of_bytes(connection, account_id)
                    wal.add(taken.wal_bytes / subscriptions, by_sets.wal_bytes + more)
            finally:
                await connection.close()
    return [by_one, by_two, against_rows, wal]


async def cycles(url: str, subscriptions: int, repeat: int) -> list[Figure]:
    """Renewed, finalized, charged by the test gateway, paid, with all events."""
    figure = Figure(f"full cycle, {PROCESSES} processes", "all rows of the cycle by sets", aim=0.35)
    for _ in range(repeat):
        account_id, moment = await _scene(url, subscriptions, _PAST_SECONDS)
        renewed = await workers.run(url, account_id, "renew", moment, PROCESSES)
        paid = await workers.run(url, account_id, "cycle", moment + _PAST_SECONDS, PROCESSES)
        connection = await asyncpg.connect(url)
        try:
            await _check_cycles(connection, account_id, subscriptions)
            floor = await floors.cycles_by_sets(connection, account_id)
        finally:
            await connection.close()
        costs = {name: cost + paid.each(subscriptions)[name] for name, cost in renewed.each(subscriptions).items()}
        figure.add(subscriptions / (renewed.seconds + paid.seconds), floor.rate, **costs)
    return [figure]


async def sizes(url: str, small: int, large: int, due: int, repeat: int) -> list[Figure]:
    """The processor time of a renewal where `due` of many subscriptions are due, and of few; and the memory."""
    cost = Figure(
        f"processor time per renewal at {large:,} subscriptions", f"at {small:,}", unit="µs", aim=1.2, at_most=True
    )
    memory = Figure(f"memory of a billing process at {large:,} subscriptions", "", unit="MB", aim=250, at_most=True)
    ids = [(await _scene(url, size, 0, lambda number: number < due * repeat, due))[0] for size in (small, large)]
    for run in range(repeat):
        spent, megabytes = [], 0.0
        for account_id in ids:
            # A run's share of the periods ends at the same second, that of the next run a second later.
            taken = await workers.run(url, account_id, "renew", await _first_due(url, account_id), 1)
            await _check_drafts(url, account_id, due * (run + 1))
            megabytes = taken.megabytes
            spent.append((taken.engine + taken.postgres) / due * 1e6)
        memory.add(megabytes)
        cost.add(spent[1], spent[0])
    return [cost, memory]


async def _scene(
    url: str,
    subscriptions: int,
    past_seconds: int,
    is_due: Callable[[int], bool] = lambda _: True,
    due_at_once: int | None = None,
) -> tuple[str, int]:
    """An account, and the moment at which its books are due; those of later runs a second later each."""
    engine = await open_engine(url)
    moment = int(time.time()) - past_seconds
    later = moment + 30 * 86_400

    def due(number: int, _now: int) -> int:
        if not is_due(number):
            return later
        return moment if due_at_once is None else moment + number // due_at_once

    try:
        account_id, price = await new_account(engine)
        await fill(engine, account_id, price, subscriptions, due)
    finally:
        await engine.close()
        await engine.store.close()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return account_id, moment


async def _first_due(url: str, account_id: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT min(wake_at) FROM books WHERE account_id = $1", account_id))
    finally:
        await connection.close()


async def _check_drafts(url: str, account_id: str, wanted: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        drafts = await connection.fetchval("SELECT count(*) FROM invoices WHERE account_id = $1", account_id)
    finally:
        await connection.close()
    if drafts != wanted:
        raise SystemExit(f"{drafts} drafts instead of {wanted}")


async def _check_renewals(connection: asyncpg.Connection, account_id: str, subscriptions: int) -> None:
    """A fast wrong result does not count: one draft of the right amount and two events for each."""
    drafts, events, due = await one(
        connection,
        "SELECT (SELECT count(*) FROM invoices WHERE account_id = $1 AND status = 'draft' AND total = $2), "
        "(SELECT count(*) FROM events WHERE account_id = $1 AND type IN "
        "('invoice.created', 'customer.subscription.updated')), "
        "(SELECT count(*) FROM subscriptions WHERE account_id = $1 AND wake_at <= billing_cycle_anchor)",
        account_id,
        AMOUNT,
    )
    if (drafts, events, due) != (subscriptions, 2 * subscriptions, 0):
        raise SystemExit(f"{drafts} drafts, {events} events and {due} still due for {subscriptions} renewals")


async def _check_cycles(connection: asyncpg.Connection, account_id: str, subscriptions: int) -> None:
    """Each subscription is renewed and paid once, says the engine, the gateway and the log."""
    counts = await one(
        connection,
        "SELECT (SELECT count(*) FROM invoices WHERE account_id = $1 AND status = 'paid' AND amount_paid = $2), "
        "(SELECT count(*) FROM payment_attempts WHERE account_id = $1 AND state = 'succeeded'), "
        "(SELECT coalesce(sum(effects), 0)::bigint FROM test_gateway_charges WHERE account_id = $1), "
        "(SELECT count(*) FROM events WHERE account_id = $1 AND type = 'invoice.paid')",
        account_id,
        AMOUNT,
    )
    if set(counts) != {subscriptions}:
        raise SystemExit(f"{counts} paid invoices, attempts, charges and events for {subscriptions} cycles")
