"""`python -m tests.simulation [--years N] [--seed N] [--processes N]`: what `make simulate` runs.

Exit status 1 when a life breaks a promise; it is printed, made as small as can be.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time

from tests.simulation.run import simulate


def main() -> int:
    """Read the command line, simulate, and tell."""
    parser = argparse.ArgumentParser(prog="make simulate ARGS='…'", description=__doc__)
    parser.add_argument("--years", type=float, default=20_000, help="subscription-years (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the first life; by default another one each time")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes (default %(default)s)")
    chosen = parser.parse_args()
    seed = secrets.randbelow(1_000_000_000) if chosen.seed is None else chosen.seed
    began_at = time.monotonic()
    tally = simulate(chosen.years, seed, chosen.processes)
    for name, count in sorted(tally.steps.items()):
        print(f"  {count:>10,} {name}")
    print(
        f"{tally.years:,.0f} subscription-years in {tally.lives:,} lives; {time.monotonic() - began_at:.0f} s, "
        f"{tally.cpu_seconds:.0f} s of CPU"
    )
    if tally.failure is None:
        print("every promise was kept at every step")
        return 0
    print(tally.failure)
    print(f"the same lives again: make simulate ARGS='--seed {seed}'")
    return 1


if __name__ == "__main__":
    sys.exit(main())
