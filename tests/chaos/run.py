"""One run of the chaos: start everything, harm it under load, heal it, let it settle, audit it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc

from billing.v1.account_service_pb2 import GetAccountRequest
from billing_client.errors import BillingError
from billing_server.bootstrap import open_engine
from billing_server.config import Config
from billing_server.embedded_postgres import EmbeddedPostgresError
from billing_server.embedded_postgres.placement import packaged_installation
from tests.chaos import audit, audit_deliveries
from tests.chaos.calls import Calls, GaveUp
from tests.chaos.database import Database, HarmedDatabase, harmed_database
from tests.chaos.faults import Victims, heal, storm
from tests.chaos.ledger import Ledger
from tests.chaos.listeners import Audience, audience, behave, misbehave
from tests.chaos.operations import OPERATIONS, pay_unheard
from tests.chaos.processes import GatewayProcess, ServerProcess
from tests.chaos.readers import FrozenReader, Reader
from tests.chaos.shop import Shop, open_shop
from tests.mail.post_office import PostOffice

SERVERS: Final = 4
WORKERS: Final = 20
READERS: Final = 3
PATIENCE_SECONDS: Final = 8.0
"""How long callers go on asking after the storm."""

LEASE_OVER_SECONDS: Final = 30
"""No charge takes so long, not in a server that was frozen either: whoever made an older one is dead."""

SETTLE_SECONDS_MAX: Final = 300.0
HURRY_SECONDS: Final = 1.0
HURRY_DELIVERIES_SECONDS: Final = 5.0
STOP_SECONDS_MAX: Final = 60.0
CATCH_UP_SECONDS_MAX: Final = 60.0
END_SECONDS_MAX: Final = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How long the storm lasts, the seed of all dice, how many servers there are, and the bugs planted in them.

    `evidence` is a folder for the database, the ledger and the logs of a run in which something was off.
    """

    seconds: float
    seed: int
    servers: int = SERVERS
    plants: tuple[str, ...] = ()
    evidence: Path | None = None


@dataclass
class Result:
    """What was done, what was looked at afterwards, and what was off."""

    harm: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    audited: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Lines of the servers' logs that tell of errors. They are shown; whether something is off says the audit."""


async def run(options: Options, say: Say) -> Result:
    """Everything, from an empty database to the verdict."""
    async with harmed_database(options.servers) as (database, folder), _post_office() as post_office:
        gateway = GatewayProcess(folder)
        servers = [
            ServerProcess(f"server-{number}", folder, way.url, gateway.target, post_office.port, options.plants)
            for number, way in enumerate(database.ways)
        ]
        victims = Victims(servers, gateway, database, options.seed)
        try:
            await gateway.start(None)
            await servers[0].start()
            await asyncio.gather(*(server.start() for server in servers[1:]))
            async with _two_accounts(servers, database.url, folder, options.seed) as (ours, theirs):
                result = await _run(options, victims, ours, theirs, post_office, say)
            if result.findings and options.evidence is not None:
                keep_evidence(database.url, folder, options.evidence)
            return result
        finally:
            for process in (*servers, gateway):
                process.thaw()
                process.kill()


@contextlib.asynccontextmanager
async def _post_office() -> AsyncIterator[PostOffice]:
    """Where all e-mail goes, whatever clock it is by."""
    post_office = PostOffice()
    await post_office.open()
    try:
        yield post_office
    finally:
        await post_office.close()


@contextlib.asynccontextmanager
async def _two_accounts(
    servers: Sequence[ServerProcess], database_url: str, folder: Path, seed: int
) -> AsyncIterator[tuple[Audience, Audience]]:
    """The shop's account and a neighbour's, with all who are told what happens in them."""
    targets = [server.target for server in servers]
    neighbour, their_key = await _another_account(database_url, folder)
    callers = [Calls(targets, servers[0].api_key), Calls(targets, their_key)]
    shop = (await callers[0].clients[0].account.GetAccount(GetAccountRequest())).id
    both = (
        audience(shop, callers[0], ("orders", "books", "people", "crm", "ledger"), seed),
        audience(neighbour, callers[1], ("everything", "crm"), seed),
    )
    try:
        yield both
    finally:
        for one in both:
            await one.calls.close()
            for receiver in one.receivers:
                await receiver.close()


async def _another_account(database_url: str, folder: Path) -> tuple[str, str]:
    """An account besides the one that the first server makes, and a key for it."""
    config = Config.from_environment({"BILLING_DATABASE_URL": database_url, "BILLING_DATA_DIR": str(folder)})
    engine = await open_engine(config, database_url)
    try:
        account = await engine.create_account("The neighbour")
        _, key = await engine.create_api_key(account.id, "chaos", ["*"])
    finally:
        await engine.close()
        await engine.store.close()
    return account.id, key


def keep_evidence(database_url: str, folder: Path, evidence: Path) -> None:
    """Copy what tells how it came to the findings: a dump of the database, the gateway's ledger, all logs."""
    evidence.mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.log"), *folder.glob("ledger.sqlite3*")):
        shutil.copy(file, evidence)
    dump = ["--format=custom", f"--file={evidence / 'database.dump'}", database_url]
    subprocess.run([str(packaged_installation() / "bin" / "pg_dump"), *dump], check=True)


async def _run(
    options: Options, victims: Victims, ours: Audience, theirs: Audience, post_office: PostOffice, say: Say
) -> Result:
    dice = random.Random(options.seed)
    audiences = (ours, theirs)
    for one in audiences:
        one.calls.until = time.monotonic() + SETTLE_SECONDS_MAX
    shop = await open_shop(ours, theirs, dice)
    victims.receivers = [receiver for one in audiences for receiver in one.receivers]
    # What was made in peace stays, whatever bug is planted: an audit needs a key that works.
    await victims.database.sql("CHECKPOINT")
    victims.gateway.kill()
    await victims.gateway.start(options.seed)
    clients = ours.calls.clients
    readers = [Reader(clients, random.Random(f"{options.seed}:reader:{number}")) for number in range(READERS)]
    frozen = FrozenReader(clients)
    consumers = [consumer for one in audiences for consumer in one.consumers]
    background = [asyncio.create_task(reader.follow()) for reader in readers]
    background += [asyncio.create_task(consumer.follow()) for consumer in consumers]
    background.append(asyncio.create_task(frozen.freeze()))
    try:
        say(f"{options.seconds:.0f} s of chaos with the seed {options.seed}")
        misbehave(audiences, post_office, random.Random(f"{options.seed}:post office"))
        await _under_load(options, victims, shop)
        say("healing")
        behave(audiences)
        await heal(victims)
        found = await settled(victims.database)
        say("auditing")
        result = await _audited(victims, shop, readers, post_office, found)
    finally:
        await ended(background)
    result.harm["streams opened and never read"] = frozen.opened
    result.harm["streams begun by readers"] = sum(reader.streams for reader in readers)
    result.harm["members of consumers that came"] = sum(consumer.lives for consumer in consumers)
    result.harm["members of consumers killed"] = sum(consumer.killed for consumer in consumers)
    # Their ways to the database run in this loop.
    ends = await asyncio.gather(*(asyncio.to_thread(server.stop, STOP_SECONDS_MAX) for server in victims.servers))
    for server, status in zip(victims.servers, ends, strict=True):
        if status != 0:
            result.findings.append(f"{server.name} did not end in order: {status}")
    return result


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end. Raises AssertionError when they go on."""
    for task in tasks:
        task.cancel()
    _, late = await asyncio.wait(tasks, timeout=END_SECONDS_MAX)
    assert not late, f"these do not end when they are canceled: {late}"


async def _under_load(options: Options, victims: Victims, shop: Shop) -> None:
    ends_at = time.monotonic() + options.seconds
    for one in (shop.audience, shop.neighbour):
        one.calls.until = ends_at + PATIENCE_SECONDS
        one.calls.orderly = False
    workers = [
        asyncio.create_task(_work(shop, random.Random(f"{options.seed}:worker:{number}"), ends_at))
        for number in range(WORKERS)
    ]
    hurrying = asyncio.create_task(_hurry_now_and_then(victims.database))
    try:
        await storm(victims, random.Random(f"{options.seed}:storm"), ends_at)
        await asyncio.gather(*workers)
    finally:
        await ended((*workers, hurrying))


async def _work(shop: Shop, dice: random.Random, ends_at: float) -> None:
    """One operation after the other. A refusal ends one, and so does an answer that never came."""
    weights = [operation.weight for operation in OPERATIONS]
    run: Callable[[Shop, random.Random], Awaitable[None]] = pay_unheard
    while time.monotonic() < ends_at:
        with contextlib.suppress(BillingError, GaveUp):
            await run(shop, dice)
        run = dice.choices(OPERATIONS, weights)[0].run
        await asyncio.sleep(dice.uniform(0, 0.05))


async def _hurry_now_and_then(database: HarmedDatabase) -> None:
    """Questions about unknown outcomes need not wait for five minutes, an hour and a day, nor leases for a minute."""
    while True:
        await asyncio.sleep(HURRY_SECONDS)
        with contextlib.suppress(OSError, asyncpg.PostgresError, EmbeddedPostgresError):
            await _hurry(database, LEASE_OVER_SECONDS)


async def _hurry(database: Database, lease_seconds: int) -> None:
    """Let the moment come at which unknown outcomes are asked for, and those whose leases are that old."""
    for table, column in (("payment_attempts", "state"), ("refunds", "status")):
        waiting = f"""
            check_at IS NOT NULL
            AND ({column} = 'unknown' OR created_real <= extract(EPOCH FROM now()) - $1)
        """
        await database.sql(f"UPDATE {table} SET check_at = 1 WHERE check_at > 1 AND {waiting}", lease_seconds)
        # A server that saved the book meanwhile has set its moment back; so it is looked at each time.
        owners = f"SELECT customer FROM {table} WHERE {waiting}"
        await database.sql(
            f"UPDATE books SET check_at = 1 WHERE check_at > 1 AND customer IN ({owners})", lease_seconds
        )


async def _hurry_deliveries(database: Database) -> None:
    """Nothing is under way elsewhere: leases and pauses of webhooks and letters are over, and no endpoint is sick."""
    for statement in (
        "UPDATE webhook_cursors SET failures = 0, retry_at = NULL WHERE failures > 0 OR retry_at IS NOT NULL",
        "UPDATE webhook_deliveries SET due_at = 1 WHERE due_at > extract(EPOCH FROM now())",
        "UPDATE messages SET due_at = 1 WHERE due_at > extract(EPOCH FROM now())",
    ):
        await database.sql(statement)


_OPEN: Final = """
    SELECT
        (SELECT count(*) FROM payment_attempts WHERE state IN ('started', 'unknown')) AS charges,
        (SELECT count(*) FROM refunds WHERE status IN ('pending', 'unknown')) AS refunds,
        (SELECT count(*) FROM test_clocks WHERE status <> 'ready') AS clocks,
        (SELECT count(*) FROM books WHERE test_clock IS NULL AND wake_at <= extract(EPOCH FROM now()) + 60) AS books,
        (SELECT count(*) FROM messages WHERE due_at IS NOT NULL) AS letters,
        (SELECT count(*) FROM webhook_deliveries WHERE due_at IS NOT NULL) AS webhooks,
        (
            SELECT count(*) FROM webhook_cursors AS c JOIN event_heads AS h USING (account_id)
            WHERE c.position < h.position
        ) AS endpoints
"""


async def settled(database: Database) -> list[str]:
    """Wait until nothing is under way any more; what still is after a long time is off."""
    give_up_at = time.monotonic() + SETTLE_SECONDS_MAX
    calm = 0
    hurry_at = 0.0
    while True:
        (left,) = await database.sql(_OPEN)
        calm = calm + 1 if not any(left.values()) else 0
        # A clock that arrives may still start something: look twice.
        if calm == 2:
            return []
        if time.monotonic() > give_up_at:
            return [f"{number} {what} are not settled" for what, number in left.items() if number]
        # The servers that held leases are dead, and the gateway was restarted: nothing is under way elsewhere.
        # What meets servers in a deadlock is done by the next round.
        with contextlib.suppress(asyncpg.DeadlockDetectedError):
            await _hurry(database, 0)
            if time.monotonic() > hurry_at:
                await _hurry_deliveries(database)
                hurry_at = time.monotonic() + HURRY_DELIVERIES_SECONDS
        await asyncio.sleep(HURRY_SECONDS)


async def _audited(
    victims: Victims, shop: Shop, readers: list[Reader], post_office: PostOffice, found: list[str]
) -> Result:
    calls = shop.calls
    result = Result(harm=victims.counts, operations=calls.counts, findings=list(found))
    result.states.update(change.state for change in calls.changes)
    ledger = Ledger(victims.gateway.ledger_file)
    result.findings += await audit.money(victims.database, ledger)
    result.findings += await audit.moments(victims.database)
    result.audited["ledger entries"] = len(ledger.entries())
    ledger.close()
    try:
        for one in (shop.audience, shop.neighbour):
            result.findings += await audit.commands(one.calls)
        await _audit_events(shop, readers, victims.database, result)
        findings, counts = await audit.account(calls.clients[0])
        result.findings += findings
        result.audited.update(counts)
    except (BillingError, grpc.aio.AioRpcError) as error:
        result.findings.append(f"the audit got no answer: {error!r}")
    messages = await victims.database.sql("SELECT id, state, error FROM messages")
    result.findings += audit_deliveries.letters(post_office.taken, messages)
    result.audited["letters"] = len(messages)
    result.errors = _errors(victims)
    # A database that is away is no reason to put a book aside (promise 16).
    result.findings += [line for line in result.errors if "is parked" in line]
    return result


async def _audit_events(shop: Shop, readers: list[Reader], database: HarmedDatabase, result: Result) -> None:
    """Readers, receivers and consumers against the logs of their accounts."""
    for one in (shop.audience, shop.neighbour):
        # What the audit of the commands has left behind is told, too.
        result.findings += await settled(database)
        result.findings += await one.consumed()
        fresh, log = await audit.whole_log(one.calls.clients[0])
        result.findings += audit.effects(one.calls, log)
        followers = readers if one is shop.audience else []
        # Those who do not reach the end of the log are found by the audit.
        await asyncio.gather(*(reader.reach(fresh.position, CATCH_UP_SECONDS_MAX) for reader in followers))
        result.findings += audit.readers(followers, fresh)
        rows = await database.sql("SELECT position FROM events WHERE account_id = $1 AND quiet", one.account)
        quiet = frozenset(row["position"] for row in rows)
        for receiver in one.receivers:
            result.findings += audit_deliveries.webhooks(receiver, one.account, log, quiet)
            result.audited["webhooks"] += len(receiver.taken)
            result.harm["webhooks sent again"] += receiver.requests - len(receiver.taken)
        for consumer in one.consumers:
            result.findings += audit_deliveries.consumed(consumer, one.account, log)
            result.audited["events done by consumers"] += sum(note.kind == "done" for note in consumer.notes)


def _errors(victims: Victims) -> list[str]:
    """What the servers logged as errors."""
    lines = [
        f"{server.name}: {line}"
        for server in victims.servers
        for line in server.log.read_text(errors="replace").splitlines()
    ]
    return [line for line in lines if '"error"' in line.lower() or "Traceback" in line]
