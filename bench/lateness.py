"""Wake-ups: how long after its due moment a book's renewal can be read, by a server that finds them by itself."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import grpc

from bench import served
from bench.measure import Figure, quantile
from bench.scene import fill, new_account, open_engine
from billing.v1.event_model_pb2 import EventBatch
from billing.v1.event_service_pb2 import StreamEventsRequest

SPAN_SECONDS = 10
CLAIMED_AT_ONCE = 300
_PATIENCE_SECONDS = 120.0


async def lateness(url: str, subscriptions: int, repeat: int) -> list[Figure]:
    """So many books due within ten seconds; the p99 of their lateness beside that of a loop that only claims."""
    figure = Figure(
        f"lateness of {subscriptions:,} wake-ups within {SPAN_SECONDS} s, p99", "", unit="ms", aim=1_000, at_most=True
    )
    for _ in range(repeat):
        late = await _late(url, subscriptions)
        bare = await _bare(url, subscriptions)
        figure.add(quantile(late, 0.99) * 1e3, p50_ms=quantile(late, 0.5) * 1e3, bare_p99_ms=quantile(bare, 0.99) * 1e3)
    return [figure]


async def _late(url: str, subscriptions: int) -> list[float]:
    """Seconds from each due moment until its event is read."""
    async with served.engine(url) as server:
        engine = await open_engine(url)
        try:
            account_id, price = await new_account(engine)
            _, key = await engine.create_api_key(account_id, "bench", ("*",))
            begin = int(time.time()) + 3 + subscriptions // 2_000
            span = max(1, subscriptions // SPAN_SECONDS)
            await fill(engine, account_id, price, subscriptions, lambda number, _: begin + number // span)
        finally:
            await engine.close()
            await engine.store.close()
        if time.time() > begin:
            raise SystemExit("the books were due before all of them were there; measure fewer")
        late: list[float] = []
        request = StreamEventsRequest(types=["invoice.created"])
        async with (
            grpc.aio.insecure_channel(server.target) as channel,
            asyncio.timeout(SPAN_SECONDS + _PATIENCE_SECONDS),
        ):
            stream = served.followed(channel, key, request)
            while len(late) < subscriptions:
                message = await stream.read()
                now = time.time()
                late += (now - event.created.seconds for event in EventBatch.FromString(message).events)
            stream.cancel()
    if len(late) != subscriptions or min(late) < 0:
        raise SystemExit(f"{len(late)} wake-ups of {subscriptions}, the earliest {min(late):.3f} s after its moment")
    return late


async def _bare(url: str, subscriptions: int) -> list[float]:
    """The floor: one connection that claims due rows and moves them on, and does nothing else."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "DROP TABLE IF EXISTS bench_due; CREATE TABLE bench_due (id bigint PRIMARY KEY, wake_at bigint)"
        )
        begin = int(time.time()) + 2
        await connection.execute(
            "INSERT INTO bench_due SELECT n, $1 + n / $2 FROM generate_series(0, $3::bigint - 1) AS n",
            begin,
            max(1, subscriptions // SPAN_SECONDS),
            subscriptions,
        )
        await connection.execute("CREATE INDEX ON bench_due (wake_at) WHERE wake_at IS NOT NULL")
        late: list[float] = []
        while len(late) < subscriptions:
            rows = await connection.fetch(
                "UPDATE bench_due AS o SET wake_at = NULL FROM (SELECT id, wake_at FROM bench_due "
                "WHERE wake_at <= extract(EPOCH FROM clock_timestamp()) ORDER BY wake_at LIMIT $1 "
                "FOR UPDATE SKIP LOCKED) AS d WHERE o.id = d.id RETURNING d.wake_at",
                CLAIMED_AT_ONCE,
            )
            now = time.time()
            late += (now - row["wake_at"] for row in rows)
            if not rows:
                await asyncio.sleep(0.005)
        return late
    finally:
        await connection.close()
