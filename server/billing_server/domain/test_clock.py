"""Test clocks: a time of its own for a group of customers."""

from __future__ import annotations

from typing import Literal

import msgspec

TestClockStatus = Literal["ready", "advancing", "internal_failure"]


class TestClock(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen `now` for its customers, moved forward on request without a cap (decision: test clocks).

    While `advancing`, `target_frozen_time` is where it is going and `frozen_time` how far it has come.
    """

    __test__ = False

    id: str
    created: int
    name: str | None
    frozen_time: int
    status: TestClockStatus = "ready"
    target_frozen_time: int | None = None
    failure: str | None = None
    version: int = 1
