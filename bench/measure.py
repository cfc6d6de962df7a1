"""What the benchmarks share: a PostgreSQL of their own, and figures beside their floors."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from billing_server.embedded_postgres import EmbeddedPostgres
from billing_server.store.migrate import migrate


@dataclass
class Figure:
    """One measurement: rates per second of each run, beside the rates of its floor in the same run."""

    what: str
    floor: str
    rates: list[float] = field(default_factory=list)
    floor_rates: list[float] = field(default_factory=list)


@contextmanager
def database() -> Iterator[str]:
    """A fresh, migrated, durable PostgreSQL (`fsync` and `synchronous_commit` on)."""
    directory = Path(tempfile.mkdtemp(prefix="billing-bench-"))
    directory.chmod(0o711)
    try:
        with EmbeddedPostgres(directory) as postgres:
            asyncio.run(migrate(postgres.database_url))
            yield postgres.database_url
    finally:
        shutil.rmtree((directory / "postgres").resolve(), ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
