"""`python -m tests.chaos [--seconds N] [--seed N] [--servers N] [--plant NAME]`: what `make chaos` runs.

Exit status 0 when nothing is off; with a planted bug, when it was caught.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections import Counter
from pathlib import Path

# The launcher forks to start PostgreSQL as another user; gRPC's fork handlers would write into that child's output.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from tests.chaos.plants import PLANTS
from tests.chaos.run import SERVERS, Options, Result, run

_SHOWN_MAX = 40
_LINE_MAX = 300


def main() -> int:
    """Read the command line, run, and tell."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS='…'", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long the storm lasts (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of all dice; by default another one each time")
    parser.add_argument("--servers", type=int, default=SERVERS, help="server processes (default %(default)s)")
    parser.add_argument("--plant", choices=sorted(PLANTS), default=None, help="a bug that has to be caught")
    parser.add_argument(
        "--evidence", type=Path, default=None, help="a folder for database and logs if something is off"
    )
    parser.add_argument("--errors", action="store_true", help="show what the servers logged as errors")
    chosen = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if chosen.seed is None else chosen.seed
    began_at = time.monotonic()
    plants = () if chosen.plant is None else (chosen.plant,)
    result = asyncio.run(run(Options(chosen.seconds, seed, chosen.servers, plants, chosen.evidence), print))
    _tell(result, show_errors=chosen.errors)
    print(f"{time.monotonic() - began_at:.0f} s; the same dice again: make chaos ARGS='--seed {seed}'")
    if chosen.plant is None:
        return 1 if result.findings else 0
    print(f"the planted bug {chosen.plant} was {'caught' if result.findings else 'NOT caught'}")
    return 0 if result.findings else 1


def _tell(result: Result, *, show_errors: bool) -> None:
    _table("Harm done", result.harm)
    _table("Asked for", result.operations)
    _table("Changes as their callers know them", result.states)
    _table("Audited", result.audited)
    print(f"\nLogged as errors by the servers: {len(result.errors)}")
    for line in result.errors[: _SHOWN_MAX if show_errors else 0]:
        print(f"  {line[:_LINE_MAX]}")
    print(f"\nOff: {len(result.findings)}")
    for finding in result.findings[:_SHOWN_MAX]:
        print(f"  {finding[:_LINE_MAX]}")


def _table(title: str, counts: Counter[str]) -> None:
    print(f"\n{title}")
    for name, count in sorted(counts.items()):
        print(f"  {count:>8} {name}")


if __name__ == "__main__":
    sys.exit(main())
