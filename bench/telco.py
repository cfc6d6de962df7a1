"""`billing replay telco`: a file of real subscribers, billed from their first month on through the RPCs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import asyncpg

from bench import served
from bench.measure import Figure, parent_of, processor_seconds

AIM_SECONDS = 120


async def replay(url: str, file: Path | None, limit: int | None) -> list[Figure]:
    """Bill the file once (the sample without one). The command itself holds every row against the file."""
    arguments = ([] if file is None else [str(file)]) + ([] if limit is None else ["--limit", str(limit)])
    async with served.engine(url) as server:
        connection = await asyncpg.connect(url)
        postgres = parent_of(await connection.fetchval("SELECT pg_backend_pid()"))
        busy = (processor_seconds(server.pid), processor_seconds(postgres))
        begun = time.perf_counter()
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "billing_client.command_line.main", "--target", server.target,
            "--api-key", server.key, "--json", "replay", "telco", *arguments,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, _ = await command.communicate()
        seconds = time.perf_counter() - begun
        spent = (processor_seconds(server.pid) - busy[0], processor_seconds(postgres) - busy[1])
        invoices = await connection.fetchval("SELECT count(*) FROM invoices WHERE status = 'paid'")
        await connection.close()
    if command.returncode or not invoices:
        raise SystemExit(f"the replay went wrong: {json.loads(told or b'{}')}")
    whole = file is not None and limit is None
    figure = Figure(
        f"billing replay telco, {invoices:,} paid invoices",
        "",
        unit="s",
        aim=AIM_SECONDS if whole else None,
        at_most=True,
    )
    figure.add(seconds, engine_us=spent[0] / invoices * 1e6, postgres_us=spent[1] / invoices * 1e6)
    return [figure]
