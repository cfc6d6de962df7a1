"""Test clocks: a time of its own for a group of customers."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from billing_server.domain.calendar import DAY

TestClockStatus = Literal["ready", "advancing", "internal_failure"]

LIFETIME_SECONDS: Final = 30 * DAY
"""How long a clock is kept, in real time (semantics 10)."""


class TestClock(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen `now` for its customers, moved forward on request without a cap (decision: test clocks).

    While `advancing`, `target_frozen_time` is where it is going and `frozen_time` how far it has come. `deletes_after`
    is the moment of real time after which it is deleted by itself; None for clocks of earlier releases, which stay.
    """

    __test__ = False

    id: str
    created: int
    name: str | None
    frozen_time: int
    status: TestClockStatus = "ready"
    target_frozen_time: int | None = None
    failure: str | None = None
    deletes_after: int | None = None
    version: int = 1

    def sent_to(self, target: int) -> TestClock:
        """The clock, on its way to `target`; or, when it stands there, to what is left to do where it stands."""
        return msgspec.structs.replace(
            self, status="advancing", target_frozen_time=target, failure=None, version=self.version + 1
        )
