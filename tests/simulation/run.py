"""Many lives, one after the other, until so many subscription-years were lived."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final

from tests.simulation.plan import make_plan
from tests.simulation.shrinking import live, shrink

YEARS_OF_LIFE: Final = 5
LIVES_AT_ONCE: Final = 8
"""Lives in one errand of a process."""


@dataclass
class Tally:
    """What was simulated. `failure` tells of the first life that broke a promise, made small."""

    lives: int = 0
    years: float = 0.0
    cpu_seconds: float = 0.0
    steps: Counter[str] = field(default_factory=Counter)
    failure: str | None = None

    def add(self, other: Tally) -> None:
        """What another one has simulated, too."""
        self.lives += other.lives
        self.years += other.years
        self.cpu_seconds += other.cpu_seconds
        self.steps += other.steps
        self.failure = self.failure or other.failure


def lives(first_seed: int, number: int, plant: str | None = None) -> Tally:
    """So many lives in this process; ends with the first that fails."""
    tally = Tally()
    began_at = time.process_time()
    for seed in range(first_seed, first_seed + number):
        life, failure = live(make_plan(seed, YEARS_OF_LIFE, plant))
        tally.lives += 1
        tally.years += life.years
        tally.steps += life.steps
        if failure is not None:
            tally.failure = str(shrink(failure))
            break
    tally.cpu_seconds = time.process_time() - began_at
    return tally


def simulate(years: float, first_seed: int, processes: int, plant: str | None = None) -> Tally:
    """As many lives as it takes to live so many subscription-years, or until one fails."""
    tally = Tally()
    seed = first_seed
    if processes == 1:
        while tally.years < years and tally.failure is None:
            tally.add(lives(seed, LIVES_AT_ONCE, plant))
            seed += LIVES_AT_ONCE
        return tally
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running: set[Future[Tally]] = set()
        while tally.years < years and tally.failure is None:
            while len(running) < processes:
                running.add(pool.submit(lives, seed, LIVES_AT_ONCE, plant))
                seed += LIVES_AT_ONCE
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                tally.add(future.result())
        for future in running:
            tally.add(future.result())
    return tally
