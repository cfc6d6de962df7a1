"""Watches what a durable consumer's connections are given, and tells when a promise is broken.

It knows what is in the log, hears of every delivery and of all that is said of it, and checks at each delivery that
every earlier event of the same customer is settled or with the same connection, and none with another one. Whether
all was delivered is asked at the end.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec


class Violation(msgspec.Struct, frozen=True):
    """An event was delivered to a connection while an earlier one of its customer was not settled."""

    connection: str
    earlier: int
    position: int
    problem: str


class Referee:
    """Judges deliveries of the events of a log, given as customers by position.

    A connection that says nothing of an event surely holds it for `held_seconds`; later it may have been taken back,
    and with it the later ones of its customer. Who knows more, because a connection hears late of what its server has
    done, tells it by `let_go`: whether a connection (the first argument) that was given an event (the second) at a
    moment had rightly lost it by another one.
    """

    def __init__(
        self,
        log: Mapping[int, str],
        held_seconds: float,
        let_go: Callable[[str, int, float, float], bool] = lambda *_: False,
    ) -> None:
        self.log = log
        self.held_seconds = held_seconds
        self.let_go = let_go
        self.deliveries: Counter[int] = Counter()
        self.acknowledged: set[int] = set()
        self.violations: list[Violation] = []
        self._given: defaultdict[str, set[int]] = defaultdict(set)
        self._held: defaultdict[str, dict[str, dict[int, float]]] = defaultdict(dict)
        self._unsettled: defaultdict[str, dict[int, None]] = defaultdict(dict)
        for position in sorted(log):
            self._unsettled[log[position]][position] = None

    def delivered(self, connection: str, position: int, now: float | None = None) -> None:
        """A connection was given an event, now or (for who hears of it later) at a moment of the monotonic clock."""
        self.deliveries[position] += 1
        customer = self.log[position]
        given = self._given[connection]
        for earlier in self._unsettled[customer]:
            if earlier >= position:
                break
            if earlier not in given:
                self.violations.append(Violation(connection, earlier, position, "was passed over"))
        now = time.monotonic() if now is None else now
        for other, held in self._held[customer].items():
            if other == connection:
                continue
            for earlier in sorted(held):
                if earlier > position or now - held[earlier] >= self.held_seconds:
                    break
                if held[earlier] < now and not self.let_go(other, earlier, held[earlier], now):
                    self.violations.append(Violation(connection, earlier, position, f"is with {other}"))
        given.add(position)
        self._held[customer].setdefault(connection, {})[position] = now

    def acknowledge(self, connection: str, position: int) -> None:
        """A connection is about to say that an event is done."""
        self.acknowledged.add(position)
        self._unsettled[self.log[position]].pop(position, None)
        self._held[self.log[position]].get(connection, {}).pop(position, None)

    def give_back(self, connection: str, position: int) -> None:
        """A connection is about to decline an event, and with it those of the same customer behind it."""
        held = self._held[self.log[position]].get(connection, {})
        for later in [other for other in held if other >= position]:
            del held[later]

    def gone(self, connection: str) -> None:
        """A connection is about to end."""
        for held in self._held.values():
            held.pop(connection, None)

    def judge(self, parked: Iterable[int] = ()) -> None:
        """Nothing is missing, and nobody was overtaken but by those behind a parked event."""
        aside = set(parked)
        missing = self.log.keys() - self.acknowledged - aside
        assert not missing, f"{len(missing)} events were never settled, such as {sorted(missing)[:5]}"
        undelivered = self.log.keys() - self.deliveries.keys()
        assert not undelivered, f"{len(undelivered)} events were never delivered, such as {sorted(undelivered)[:5]}"
        broken = [violation for violation in self.violations if violation.earlier not in aside]
        assert not broken, f"{len(broken)} times the order was broken, such as {broken[:3]}"

    @property
    def repeated(self) -> int:
        """How many deliveries were not the first of their event."""
        return sum(count - 1 for count in self.deliveries.values())
