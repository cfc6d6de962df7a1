"""A billing process: works off what is due in one account, as a server does, and tells what that took.

Says "ready", waits for a line, works until nothing is due, and prints its processor time and its largest memory.

    python -m bench.worker URL ACCOUNT renew|cycle UNTIL
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from bench.measure import peak_megabytes
from bench.scene import open_engine
from billing_server.engine.engine import Engine
from billing_server.processes import calm_collector, run_loop

BOOKS_MAX = 300
_AT_ONCE = 2
"""Batches at once: one is decided while the database works on the other."""


async def _work(url: str, account_id: str, kind: str, until: int) -> None:
    engine = await open_engine(url)
    try:
        calm_collector()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.process_time()
        work = _renew if kind == "renew" else _cycle
        await asyncio.gather(*(work(engine, account_id, until) for _ in range(_AT_ONCE)))
        spent = time.process_time() - begun
        print(json.dumps({"processor": spent, "megabytes": peak_megabytes(os.getpid())}), flush=True)
    finally:
        await engine.close()
        await engine.store.close()


async def _renew(engine: Engine, account_id: str, until: int) -> None:
    while (await engine.door.wake(account_id, limit=BOOKS_MAX, until=until)).books:
        pass


async def _cycle(engine: Engine, account_id: str, until: int) -> None:
    """As `_renew`, with the charges of a batch made beside the next one."""
    charging: asyncio.Task[None] | None = None
    while (woken := await engine.door.wake(account_id, limit=BOOKS_MAX, until=until)).books:
        if charging is not None:
            await charging
        charging = asyncio.create_task(engine.cashier.carry_out(account_id, woken.charges, woken.refunds))
    if charging is not None:
        await charging


if __name__ == "__main__":
    run_loop(_work(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
