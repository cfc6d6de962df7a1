"""Several billing processes at once, begun together, and what they took."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import asyncpg

from bench.measure import parent_of, processor_seconds


@dataclass(frozen=True)
class Taken:
    """Seconds by the clock, processor seconds of the engine and of PostgreSQL, log bytes, memory of the largest."""

    seconds: float
    engine: float
    postgres: float
    wal_bytes: int
    megabytes: float

    def each(self, units: int) -> dict[str, float]:
        """What one unit took: microseconds of processor time, and bytes of the write-ahead log."""
        return {
            "engine_us": self.engine / units * 1e6,
            "postgres_us": self.postgres / units * 1e6,
            "wal_bytes": self.wal_bytes / units,
        }


async def run(url: str, account_id: str, kind: str, until: int, processes: int) -> Taken:
    """Work off what is due until a moment by so many processes (`bench.worker`)."""
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.worker", url, account_id, kind, str(until),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(processes)
    ]  # fmt: skip
    connection = await asyncpg.connect(url)
    try:
        for worker in workers:
            await _line(worker)
        await connection.execute("CHECKPOINT")
        postgres = parent_of(await connection.fetchval("SELECT pg_backend_pid()"))
        wal = await connection.fetchval("SELECT pg_current_wal_lsn()")
        busy, begun = processor_seconds(postgres), time.perf_counter()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
        told = [json.loads(await _line(worker)) for worker in workers]
        # The workers' connections still live, so their processor time can still be seen.
        seconds, busy = time.perf_counter() - begun, processor_seconds(postgres) - busy
        written = await connection.fetchval("SELECT (pg_current_wal_lsn() - $1::pg_lsn)::bigint", wal)
        return Taken(
            seconds,
            sum(one["processor"] for one in told),
            busy,
            written,
            max(one["megabytes"] for one in told),
        )
    finally:
        await connection.close()
        for worker in workers:
            if worker.stdin is not None:
                worker.stdin.close()
            await worker.wait()


async def _line(worker: asyncio.subprocess.Process) -> str:
    assert worker.stdout is not None
    line = (await worker.stdout.readline()).decode()
    if not line:
        raise SystemExit("a billing process ended; its own words are above")
    return line
