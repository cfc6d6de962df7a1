"""Event streams: the replay of a long log, and how soon a commit reaches those who follow."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import asyncpg
import grpc

from bench import served, workers
from bench.echo import write_messages
from bench.measure import Figure, processor_seconds, quantile
from bench.scene import fill, new_account, open_engine
from billing.v1.customer_service_pb2 import CreateCustomerRequest, UpdateCustomerRequest
from billing.v1.event_model_pb2 import EventBatch
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing_client import BillingClient
from billing_server.wire.codec import event_batch_bytes

BATCH = 100
READERS = 100
WRITERS = 8
_RENEWED = 1_000
"""Subscriptions whose renewals are the pattern of the log."""

_BYTES_TOLERANCE = 0.01
_PATIENCE_SECONDS = 60.0


async def replays(url: str, events: int, repeat: int) -> list[Figure]:
    """A log of so many events read by one reader, and a fiftieth of it by a hundred at once."""
    figures = []
    async with served.engine(url) as server:
        account_id, key = await _account_with_log(url, events)
        batches = await _batches(url, account_id)
        for readers, share in ((1, 1.0), (READERS, 0.02)):
            part = batches[-max(1, int(len(batches) * share)) :]
            delivered = len(part) * BATCH * readers
            what = f"StreamEvents, replay by {readers} reader{'s' * (readers > 1)}"
            figure = Figure(what, "the same bytes from memory", unit="events/s", aim=0.4)
            for _ in range(repeat):
                busy = processor_seconds(server.pid)
                seconds = await _replay(server.target, key, part, readers, after=events - len(part) * BATCH)
                spent = processor_seconds(server.pid) - busy
                floor_seconds = await _floor(part, readers)
                figure.add(delivered / seconds, delivered / floor_seconds, engine_us=spent / delivered * 1e6)
            figures.append(figure)
    return figures


async def _account_with_log(url: str, events: int) -> tuple[str, str]:
    """An account and its key; its log is the events of some renewals, again and again."""
    engine = await open_engine(url)
    try:
        account_id, price = await new_account(engine)
        _, key = await engine.create_api_key(account_id, "bench", ("*",))
        now = int(time.time())
        await fill(engine, account_id, price, _RENEWED, lambda _number, _now: now)
    finally:
        await engine.close()
        await engine.store.close()
    await workers.run(url, account_id, "renew", now, 1)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "WITH head AS (SELECT position FROM event_heads WHERE account_id = $1) "
            "INSERT INTO events (account_id, position, type, customer, object_id, created, created_real, payload) "
            "SELECT account_id, e.position + head.position * s.n, type, customer, object_id, created, created_real, "
            "payload FROM events AS e, head, generate_series(1, ($2 - 1) / head.position) AS s (n) "
            # In the order of positions, as a log is written.
            "WHERE account_id = $1 AND e.position + head.position * s.n <= $2 ORDER BY s.n, e.position",
            account_id,
            events,
        )
        await connection.execute("UPDATE event_heads SET position = $2 WHERE account_id = $1", account_id, events)
        await connection.execute("VACUUM ANALYZE events")
    finally:
        await connection.close()
    return account_id, key


async def _batches(url: str, account_id: str) -> list[bytes]:
    """All events as a stream sends them, without the last few that do not fill a batch."""
    connection = await asyncpg.connect(url)
    try:
        query = "SELECT position, payload FROM events WHERE account_id = $1 ORDER BY position"
        rows = [(row["position"], row["payload"]) for row in await connection.fetch(query, account_id)]
    finally:
        await connection.close()
    head = len(rows)
    return [
        event_batch_bytes(account_id, rows[begin : begin + BATCH], head, caught_up=begin + BATCH >= head)
        for begin in range(head % BATCH, head, BATCH)
    ]


async def _replay(target: str, key: str, part: Sequence[bytes], readers: int, *, after: int) -> float:
    """Seconds until all readers have caught up, each having got the bytes that there are."""
    request = StreamEventsRequest(after_position=after, batch_max=BATCH)
    expected = sum(map(len, part))
    async with grpc.aio.insecure_channel(target) as channel:

        async def read() -> int:
            received = 0
            call = served.followed(channel, key, request)
            async for message in call:
                received += len(message)
                # Only the last batch is worth parsing: it ends with the flag that tells that it reaches the head.
                if message[-1] == 1 and EventBatch.FromString(message).caught_up:
                    break
            call.cancel()
            return received

        begun = time.perf_counter()
        received = await asyncio.gather(*(read() for _ in range(readers)))
        seconds = time.perf_counter() - begun
    for size in received:
        if abs(size - expected) > expected * _BYTES_TOLERANCE:
            raise SystemExit(f"a reader got {size:,} bytes instead of about {expected:,}")
    return seconds


async def _floor(part: Sequence[bytes], readers: int) -> float:
    """Seconds for the same bytes, sent from the memory of a server that does nothing else."""
    with tempfile.NamedTemporaryFile(prefix="billing-bench-events-") as file:
        await asyncio.to_thread(Path(file.name).write_bytes, write_messages(part))
        async with served.replayed(Path(file.name)) as stream:

            async def read() -> None:
                async for _ in stream(b""):
                    pass

            begun = time.perf_counter()
            await asyncio.gather(*(read() for _ in range(readers)))
            return time.perf_counter() - begun


# --- delivery


async def deliveries(url: str, commits: int, readers: int, seconds: float, billed: int, repeat: int) -> list[Figure]:
    """How long after a writer's answer the readers have its event: at rest, and while a billing run is under way."""
    figures = []
    for name, subscriptions in (("", 0), (" during a billing run", billed)):
        middle = Figure(f"answer to delivery, p50{name}", "", unit="ms", aim=3, at_most=True)
        slowest = Figure(f"answer to delivery, p99{name}", "", unit="ms", aim=10, at_most=True)
        for _ in range(repeat):
            late, rate = await _deliver(url, commits, readers, seconds, subscriptions)
            hand_over = await _hand_over(commits, readers, min(seconds, 2.0))
            middle.add(quantile(late, 0.5) * 1e3, commits=rate, hand_over_ms=quantile(hand_over, 0.5) * 1e3)
            slowest.add(quantile(late, 0.99) * 1e3, commits=rate, hand_over_ms=quantile(hand_over, 0.99) * 1e3)
        figures += [middle, slowest]
    return figures


@lru_cache(4_096)
def _parsed(message: bytes) -> tuple[tuple[int, str], ...]:
    """Positions and descriptions of a batch; readers of the same batch share the work."""
    return tuple((event.position, event.customer_object.description) for event in EventBatch.FromString(message).events)


async def _deliver(url: str, commits: int, readers: int, seconds: float, billed: int) -> tuple[list[float], float]:
    """Delays of all deliveries in seconds (an event that comes before its answer has none), and commits a second."""
    key = await _new_key(url)
    async with served.engine(url) as server, BillingClient(server.target, key, timeout_seconds=60) as client:
        customers = [
            (await client.customers.CreateCustomer(CreateCustomerRequest(name="Some One"))).id for _ in range(WRITERS)
        ]
        if billed:
            await _fill_for_soon(url, billed)
        answered: dict[str, float] = {}
        arrivals = _Arrivals(int(commits * seconds / WRITERS) * WRITERS * readers)
        async with grpc.aio.insecure_channel(server.target) as channel:
            following = [asyncio.create_task(arrivals.follow(channel, key)) for _ in range(readers)]
            begun = time.perf_counter()

            async def write(writer: int) -> None:
                for number in range(int(commits * seconds / WRITERS)):
                    await asyncio.sleep(begun + number * WRITERS / commits - time.perf_counter())
                    mark = f"{writer}/{number}"
                    await client.customers.UpdateCustomer(UpdateCustomerRequest(id=customers[writer], description=mark))
                    answered[mark] = time.perf_counter()

            await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
            rate = len(answered) / (time.perf_counter() - begun)
            await asyncio.wait_for(arrivals.complete.wait(), _PATIENCE_SECONDS)
            for task in following:
                task.cancel()
            for result in await asyncio.gather(*following, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
    return [max(0.0, at - answered[mark]) for mark, at in arrivals.seen], rate


class _Arrivals:
    """When the readers have seen what, until they have seen as much as there will be."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.seen: list[tuple[str, float]] = []
        self.complete = asyncio.Event()

    async def follow(self, channel: grpc.aio.Channel, key: str) -> None:
        """Read like anybody; no event may be repeated or come out of order, and one left out is waited for in vain."""
        request = StreamEventsRequest(types=["customer.created", "customer.updated"])
        reached = 0
        async for message in served.followed(channel, key, request):
            now = time.perf_counter()
            for position, mark in _parsed(message):
                if position <= reached:
                    raise SystemExit(f"position {position} came after {reached}")
                reached = position
                if mark:
                    self.seen.append((mark, now))
            if len(self.seen) >= self._wanted:
                self.complete.set()


async def _new_key(url: str) -> str:
    """The key of an account of its own."""
    engine = await open_engine(url)
    try:
        account_id, _ = await new_account(engine)
        _, key = await engine.create_api_key(account_id, "bench", ("*",))
        return key
    finally:
        await engine.close()
        await engine.store.close()


async def _fill_for_soon(url: str, subscriptions: int) -> None:
    """Another account, whose books are due in a few seconds."""
    engine = await open_engine(url)
    try:
        account_id, price = await new_account(engine)
        due = int(time.time()) + 2 + subscriptions // 2_000
        await fill(engine, account_id, price, subscriptions, lambda _number, _now: due)
    finally:
        await engine.close()
        await engine.store.close()
    await asyncio.sleep(max(0.0, due - 1 - time.time()))


async def _hand_over(commits: int, readers: int, seconds: float) -> list[float]:
    """The floor: so many tasks of this process woken so often, and how long after the call each runs."""
    delays: list[float] = []
    rung = [asyncio.Event() for _ in range(readers)]
    at = 0.0

    async def wait(event: asyncio.Event) -> None:
        while True:
            await event.wait()
            event.clear()
            delays.append(time.perf_counter() - at)

    tasks = [asyncio.create_task(wait(event)) for event in rung]
    begun = time.perf_counter()
    for number in range(int(commits * seconds)):
        await asyncio.sleep(begun + number / commits - time.perf_counter())
        at = time.perf_counter()
        for event in rung:
            event.set()
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return delays
