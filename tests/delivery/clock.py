"""The clock of consumers' connections, which a test sets forward instead of waiting, and which no pause moves."""

from __future__ import annotations

import asyncio
import time

from billing_server.delivery.consumers import Consumers

_TICK_SECONDS = 0.02
_STEP_SECONDS_MAX = 0.1


class ConnectionsClock:
    """Stands in for the module `time`. Its seconds pass as real ones do while this process runs: a machine that
    stands still for a moment lets no deadline pass.
    """

    def __init__(self) -> None:
        self._now = self._looked_at = time.monotonic()

    def monotonic(self) -> float:
        """Seconds that have passed, since some moment."""
        looked_at = time.monotonic()
        self._now += min(looked_at - self._looked_at, _STEP_SECONDS_MAX)
        self._looked_at = looked_at
        return self._now

    def time(self) -> float:
        """Real time, by which moments are stored."""
        return time.time()

    async def tick(self) -> None:
        """Notice, until canceled, that time passes."""
        while True:
            self.monotonic()
            await asyncio.sleep(_TICK_SECONDS)

    def set_forward(self, consumers: Consumers, seconds: float) -> None:
        """Let time pass at once, and have all connections of a server look what is due by now."""
        self._now += seconds
        for opened in consumers._open.values():
            for connection in opened:
                connection.meet_soon()
                connection.wake.set()
