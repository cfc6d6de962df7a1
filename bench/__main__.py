"""Run the benchmarks and print them as a table; the figures also go to bench/results as JSON.

See bench/README.md for what each one means.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import billing, bulk, calls, lateness, streams, telco
from bench.measure import Figure, database

RESULTS = Path(__file__).parent / "results"

Options = argparse.Namespace
Measure = Callable[[str, Options], Awaitable[list[Figure]]]

MEASURES: dict[str, Measure] = {
    "renewals": lambda url, o: billing.renewals(url, o.subscriptions, o.repeat),
    "cycles": lambda url, o: billing.cycles(url, o.subscriptions // 2, o.repeat),
    "creates": lambda url, o: calls.creates(url, o.customers, o.seconds, o.repeat),
    "bulk": lambda url, o: bulk.bulk(url, o.customers // 2, o.repeat),
    "reads": lambda url, o: calls.reads(url, 500, o.seconds, o.repeat),
    "streams": lambda url, o: streams.replays(url, o.events, o.repeat),
    "deliveries": lambda url, o: streams.deliveries(
        url, o.commits, o.readers, o.seconds, o.subscriptions // 4, o.repeat
    ),
    "lateness": lambda url, o: lateness.lateness(url, o.due, o.repeat),
    "sizes": lambda url, o: billing.sizes(url, o.small, o.large, o.small // 4, o.repeat),
    "telco": lambda url, o: telco.replay(url, o.telco_file, o.telco_limit),
}

SIZES: dict[str, tuple[float, float, float, str]] = {
    "subscriptions": (
        20_000,
        2_000,
        200_000,
        "due at once in renewals; half of them in cycles, a quarter in deliveries",
    ),
    "customers": (
        2_000,
        200,
        10_000,
        "who subscribe again and again in creates; half as many new ones in each run of bulk",
    ),
    "events": (200_000, 20_000, 1_000_000, "in the log of streams"),
    "commits": (500, 100, 500, "a second in deliveries"),
    "readers": (50, 10, 50, "who follow in deliveries"),
    "due": (10_000, 1_000, 100_000, "within ten seconds in lateness"),
    "small": (10_000, 1_000, 10_000, "subscriptions of the small account in sizes; a quarter of them due at once"),
    "large": (100_000, 5_000, 1_000_000, "subscriptions of the large account in sizes"),
    "seconds": (5.0, 1.0, 20.0, "each run of creates, reads and deliveries takes"),
}
"""Each size by default, with --quick and with --full."""


def main() -> None:
    """Measure, print, keep."""
    options = _options()
    figures: list[Figure] = []
    for name in options.which:
        with database() as url:
            figures += asyncio.run(_measured(name, url, options))
    _print(figures)
    _keep(figures, options)


async def _measured(name: str, url: str, options: Options) -> list[Figure]:
    begun = time.monotonic()
    figures = await MEASURES[name](url, options)
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return figures


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("which", nargs="*", choices=[[], *MEASURES], help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="small sizes and one run of each: a look, no figures")
    parser.add_argument("--full", action="store_true", help="the sizes that the aims are meant for: takes an hour")
    parser.add_argument("--repeat", type=int, help="runs of each measurement, whose medians are shown: 3")
    for name, (usual, quick, full, text) in SIZES.items():
        shown = f"{text}: {usual:,}, quick {quick:,}, full {full:,}"
        parser.add_argument(f"--{name}", type=type(usual), help=shown)
    parser.add_argument("--telco-file", type=Path, help="the telco churn data, for telco: the sample")
    parser.add_argument("--telco-limit", type=int, help="only so many of its rows")
    options = parser.parse_args()
    for name, sizes in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, sizes[1 if options.quick else 2 if options.full else 0])
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.which = options.which or list(MEASURES)
    return options


def _print(figures: list[Figure]) -> None:
    cores = os.cpu_count()
    table = Table(title=f"Billing engine on {cores} cores, {platform.machine()}, Python {platform.python_version()}")
    for column in ("what", "median", "floor", "of the floor", "ratio", "aim", "further"):
        table.add_column(column, justify="left" if column in ("what", "floor", "further") else "right")
    for figure in figures:
        floor, ratio, met = figure.floor_value, figure.ratio, figure.met
        table.add_row(
            figure.what,
            f"{_number(figure.value)} {figure.unit}",
            figure.floor,
            "" if floor is None else f"{_number(floor)} {figure.unit}",
            "" if ratio is None else f"{ratio:.2f}",
            "" if figure.aim is None else f"{'≤' if figure.at_most else '≥'} {figure.aim:g} {'✓' if met else '✗'}",
            ", ".join(f"{name} {_number(sorted(costs)[len(costs) // 2])}" for name, costs in figure.costs.items()),
        )
    Console(width=190).print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _keep(figures: list[Figure], options: Options) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{int(time.time())}.json"
    told = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "figures": [asdict(figure) | {"value": figure.value, "ratio": figure.ratio} for figure in figures],
    }
    path.write_text(json.dumps(told, indent=2) + "\n")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
