"""Run the benchmarks and print them as a table; the figures also go to bench/results as JSON.

python -m bench [renewals] [creates] [--subscriptions N] [--seconds S] [--repeat R]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import creates, renewals
from bench.measure import Figure, database

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("which", nargs="*", default=["renewals", "creates"], help="renewals, creates")
    parser.add_argument("--subscriptions", type=int, default=20_000, help="due at once in the renewals benchmark")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run of the creates benchmark")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement; medians are shown")
    options = parser.parse_args()
    figures: list[Figure] = []
    if "renewals" in options.which:
        with database() as url:
            figures += asyncio.run(renewals.measure(url, options.subscriptions, options.repeat))
    if "creates" in options.which:
        with database() as url:
            figures += asyncio.run(creates.measure(url, options.seconds, options.repeat))
    _print(figures)
    _keep(figures)


def _print(figures: list[Figure]) -> None:
    table = Table(title=f"Billing engine, {platform.machine()}, Python {platform.python_version()}")
    for column in ("what", "per second (median)", "floor", "floor per second", "ratio"):
        table.add_column(column, justify="left" if column in ("what", "floor") else "right")
    for figure in figures:
        rate, floor = statistics.median(figure.rates), statistics.median(figure.floor_rates)
        table.add_row(figure.what, f"{rate:,.0f}", figure.floor, f"{floor:,.0f}", f"{rate / floor:.2f}")
    Console(width=140).print(table)


def _keep(figures: list[Figure]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{int(time.time())}.json"
    path.write_text(json.dumps([figure.__dict__ for figure in figures], indent=2) + "\n")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
