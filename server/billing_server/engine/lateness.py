"""How late wake-ups are, counted for whoever is on call (promise 11)."""

from __future__ import annotations

from typing import Final

BOUNDS_SECONDS: Final = (0, 1, 2, 5, 10, 30, 60, 300, 3_600)
"""Upper bounds of the classes; one more class takes what is later. The clock of books has no fractions."""


class Lateness:
    """Counts books by how many seconds after their due time they were claimed. Only those of real time are late."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.seconds = 0

    def note(self, seconds: int) -> None:
        """A book was claimed so long after it was due."""
        late = max(seconds, 0)
        self.counts[sum(bound < late for bound in BOUNDS_SECONDS)] += 1
        self.seconds += late
