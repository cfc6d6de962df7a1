"""What the benchmarks share: a PostgreSQL of their own, figures beside their floors, and processor time."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from billing_server.embedded_postgres import EmbeddedPostgres
from billing_server.store.migrate import migrate

_TICKS = os.sysconf("SC_CLK_TCK")
_COMMAND_END = ")"
_PARENT = 1
_OWN, _CHILDREN = slice(11, 13), slice(13, 15)
"""Places in /proc/PID/stat, counted behind the command's name: the last two are of children that have ended."""


@dataclass
class Figure:
    """One measurement: a value of each run, beside that of its floor in the same run.

    `aim` is a ratio where there is a floor, else a value; `at_most` tells that less is better. `costs` are further
    numbers by name, such as the processor time of a unit, one of each run.
    """

    what: str
    floor: str
    unit: str = "/s"
    aim: float | None = None
    at_most: bool = False
    values: list[float] = field(default_factory=list)
    floor_values: list[float] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, value: float, floor_value: float | None = None, **costs: float) -> None:
        """The outcome of one run."""
        self.values.append(value)
        if floor_value is not None:
            self.floor_values.append(floor_value)
        for name, cost in costs.items():
            self.costs.setdefault(name, []).append(cost)

    @property
    def value(self) -> float:
        """The median of all runs."""
        return statistics.median(self.values)

    @property
    def floor_value(self) -> float | None:
        """The median of the floor's runs."""
        return statistics.median(self.floor_values) if self.floor_values else None

    @property
    def ratio(self) -> float | None:
        """How much of the floor is reached, or how many times it; None without a floor."""
        floor = self.floor_value
        return self.value / floor if floor else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        if self.aim is None:
            return None
        reached = self.value if self.ratio is None else self.ratio
        return reached <= self.aim if self.at_most else reached >= self.aim


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


# --- rates and latencies


@dataclass(frozen=True)
class Pace:
    """How fast calls were answered, and how long the median and the slowest hundredth of them took (milliseconds)."""

    rate: float
    calls: int
    p50: float
    p99: float


Call = Callable[[int], Awaitable[object]]


async def pace(seconds: float, call: Call, callers: int) -> Pace:
    """So many callers, each of whom calls again as soon as it is answered. `call` gets another number each time."""
    durations: list[float] = []
    begun = time.perf_counter()

    async def caller(number: int) -> None:
        while (started := time.perf_counter()) - begun < seconds:
            await call(number)
            durations.append(time.perf_counter() - started)
            number += callers

    await asyncio.gather(*(caller(number) for number in range(callers)))
    rate = len(durations) / (time.perf_counter() - begun)
    return Pace(rate, len(durations), quantile(durations, 0.5) * 1000, quantile(durations, 0.99) * 1000)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all values does not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


# --- processor time, which says more than the clock on a machine that others use


def processor_seconds(root: int) -> float:
    """Processor time that a process and its children have taken so far, those that have ended included."""
    ticks = 0
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]:
        stat = _stat(pid)
        if stat and root in (pid, int(stat[_PARENT])):
            ticks += sum(map(int, stat[_OWN] + (stat[_CHILDREN] if pid == root else [])))
    return ticks / _TICKS


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, behind its command's name; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(_COMMAND_END)[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """The process that has started this one."""
    return int(_stat(pid)[_PARENT])


def peak_megabytes(pid: int) -> float:
    """The largest share of memory that the process has had so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"the kernel does not tell the memory of {pid}")
