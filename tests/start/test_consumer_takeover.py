"""A consumer's process, then a server's, killed with -9 in the middle of a log: nothing missed, order kept.

BILLING_CONSUMER_EVENTS makes the log longer, BILLING_CONSUMER_PACE=0 the consumers as fast as they can; `-s` shows the
figures.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from billing.v1.consumer_model_pb2 import ConsumerProgress
from billing.v1.event_service_pb2 import GetConsumerRequest
from billing.v1.event_service_pb2_grpc import EventServiceStub
from billing_server.bootstrap import open_engine
from billing_server.config import Config
from tests.conftest import temporary_data_directory
from tests.delivery.consuming import eventually, write_log
from tests.delivery.referee import Referee
from tests.start.test_server import CHECKOUT, running

EVENTS = int(os.environ.get("BILLING_CONSUMER_EVENTS", "6000"))
CUSTOMERS = 500
SETTLE_SECONDS = 120
_KILLED = 2


class Consumer:
    """A consumer's process and its notes."""

    def __init__(self, name: str, target: str, directory: Path, key: str) -> None:
        self.name = name
        self.path = directory / name
        self.path.touch()
        self.killed_at = float("inf")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.start.consumer_process", target, str(self.path)],
            cwd=CHECKOUT,
            env={**os.environ, "BILLING_API_KEY": key},
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """Kill it at once."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()
        self.killed_at = min(self.killed_at, time.monotonic())

    def notes(self) -> list[tuple[float, str, int, int]]:
        """Moment, kind, position and whether it was a redelivery, as far as it got to write them."""
        found = [line.split() for line in self.path.read_text().splitlines()]
        return [(float(moment), kind, int(position), int(again)) for kind, position, moment, again in found]

    @property
    def count(self) -> int:
        """About how many events it has acknowledged."""
        return self.path.read_text().count("\na ")


@contextlib.contextmanager
def consumers() -> Iterator[list[Consumer]]:
    """A list whose consumers are killed at the end."""
    started: list[Consumer] = []
    try:
        yield started
    finally:
        for consumer in started:
            consumer.kill()


async def test_killed_consumers_and_servers_lose_nothing(database_url: str, tmp_path: Path) -> None:
    config = Config.from_environment({"BILLING_DATABASE_URL": database_url, "BILLING_DATA_DIR": str(tmp_path)})
    engine = await open_engine(config, database_url)
    account_id = (await engine.create_account("consuming")).id
    _, key = await engine.create_api_key(account_id, "test", ["events:consume", "events:read"])
    chance = random.Random(7)
    subjects = [f"cus_{chance.randrange(CUSTOMERS)}" for _ in range(EVENTS)]
    with (
        temporary_data_directory() as here,
        temporary_data_directory() as there,
        running(here, BILLING_DATABASE_URL=database_url) as first,
        running(there, BILLING_DATABASE_URL=database_url) as second,
        consumers() as started,
    ):
        # There are accounts already, so it has no lines to paste to say.
        targets = [process.wait_until_serving(r"Serving on \S+\.\n") for process in (first, second)]

        def start(name: str, target: str) -> Consumer:
            started.append(Consumer(name, target, tmp_path, key))
            return started[-1]

        victim, orphan = start("victim", targets[0]), start("orphan", targets[0])
        start("survivor", targets[1])
        await _until(targets[1], key, lambda progress: progress.connections == len(started))
        began = time.monotonic()
        before = await write_log(engine, account_id, subjects)
        log = dict(enumerate(subjects, before + 1))
        await eventually(lambda: victim.count >= EVENTS // 30, SETTLE_SECONDS)
        victim.kill()
        await eventually(lambda: orphan.count >= EVENTS // 20, SETTLE_SECONDS)
        first.popen.send_signal(signal.SIGKILL)
        server_killed_at = time.monotonic()
        await _until(targets[1], key, lambda progress: not progress.lag and not progress.unacknowledged)
        for consumer in started:
            consumer.kill()
        referee = judged(log, started)
    redelivered = sum(again for consumer in started for _, kind, _, again in consumer.notes() if kind == "d")
    last = max(note[0] for consumer in started for note in consumer.notes())
    print(  # the figures of a run by hand
        f"\n{EVENTS} events: {referee.repeated} delivered more than once ({redelivered} told so), "
        f"by consumer {[(c.name, c.count) for c in started]}, all in {last - began:.1f} s, "
        f"{last - server_killed_at:.1f} s after the server was killed"
    )
    await engine.close()
    await engine.store.close()


async def _until(target: str, key: str, condition: Callable[[ConsumerProgress], bool]) -> None:
    """Wait for a consumer's progress; it need not be there yet."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = EventServiceStub(channel)

        async def settled() -> bool:
            request = GetConsumerRequest(name="crm")
            try:
                login = (("authorization", f"Bearer {key}"),)
                consumer = await stub.GetConsumer(request, metadata=login, timeout=SETTLE_SECONDS)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND, error
                return False
            return condition(consumer.progress)

        await eventually(settled, SETTLE_SECONDS)


def judged(log: dict[int, str], started: list[Consumer]) -> Referee:
    """What the referee makes of all notes, in the order of time. Nothing may be parked or missing."""
    referee = Referee(log, held_seconds=5)
    happened = [
        (moment, "da".index(kind), position, c.name) for c in started for moment, kind, position, _ in c.notes()
    ]
    happened += [(consumer.killed_at, _KILLED, 0, consumer.name) for consumer in started]
    for moment, kind, position, name in sorted(happened):
        if kind == _KILLED:
            referee.gone(name)
        elif kind == "da".index("d"):
            referee.delivered(name, position, moment)
        else:
            referee.acknowledge(name, position)
    referee.judge()
    return referee
