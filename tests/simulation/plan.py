"""The plan of a life: which customer, what they do when, and what goes wrong meanwhile. All of it from one seed.

What happens to a call or a process is decided by dice of its own, named by what it is about. So a plan of which
something was left out goes on as before in all the rest, which is what lets a failing one be made smaller.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from billing_server.domain.account import Settings
from billing_server.domain.calendar import DAY, HOUR
from billing_server.domain.dunning import RetryPolicy

START: Final = 1_735_689_600
"""2025-01-01T00:00:00Z."""
YEAR: Final = 31_556_952
LATE_SECONDS_MAX: Final = 2
_LOTS: Final = 1 << 64

FAULTS: Final[dict[str, float]] = {
    "killed before commit": 0.01,
    "killed after commit": 0.02,
    "request lost": 0.02,
    "answer lost": 0.03,
    "late": 0.03,
    "twice": 0.02,
    "deciding": 0.02,
    "declined": 0.10,
    "lost card": 0.01,
    "asks": 0.02,
}
"""What goes wrong with a step of a process, a call of the gateway or a charge, and how often."""

OUTAGES: Final = ("engine away", "gateway away")

DEEDS: Final = (
    ("subscribe", 3),
    ("another card", 3),
    ("change quantity", 4),
    ("change price", 2),
    ("cancel", 1),
    ("cancel later", 1),
    ("pay", 5),
    ("void", 1),
    ("refund", 2),
    ("credit", 1),
    ("adjust", 2),
    ("bill", 2),
    ("pause", 1),
    ("resume", 2),
)
"""What customers do, and how often beside each other."""

DEEDS_PER_YEAR: Final = 5


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that a customer does at a moment; `number` names its dice and its idempotency key."""

    at: int
    what: str
    number: int


@dataclass(frozen=True, slots=True)
class Outage:
    """Something that is away from one moment to another."""

    what: str
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One life. `faults` are those that may happen."""

    seed: int
    years: int
    subscriptions: int
    deeds: tuple[Deed, ...]
    outages: tuple[Outage, ...]
    faults: frozenset[str] = frozenset(FAULTS)
    plant: str | None = None

    @property
    def ends_at(self) -> int:
        """The moment at which the life is over."""
        return START + self.years * YEAR

    def dice(self, about: str) -> random.Random:
        """The dice for one thing."""
        return random.Random(f"{self.seed}:{about}")

    def throw(self, about: str, *faults: str) -> str | None:
        """Which of these faults happens this time, if any; each by a lot of its own."""
        for fault in faults:
            if fault in self.faults and self._lot(f"{about}:{fault}") < FAULTS[fault]:
                return fault
        return None

    def late(self, moment: int) -> int:
        """By how many seconds a wake-up for this moment comes too late."""
        return int(self._lot(f"tick:{moment}") * (LATE_SECONDS_MAX + 1))

    def _lot(self, about: str) -> float:
        """One throw from 0 to 1. Dice, which are for many throws, take forty times as long to make."""
        digest = hashlib.blake2b(f"{self.seed}:{about}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / _LOTS

    def settings(self) -> Settings:
        """The account's settings."""
        dice = self.dice("settings")
        return Settings(
            retry_policy=dice.choice(
                (
                    RetryPolicy(kind="custom", retry_days=(3, 5, 7)),
                    RetryPolicy(kind="custom", retry_days=(1,)),
                    RetryPolicy(kind="smart", max_retries=4, window="one_week"),
                )
            ),
            subscription_final_action=dice.choice(("cancel", "unpaid", "past_due")),
            invoice_final_action=dice.choice(("leave_open", "uncollectible", "void")),
            finalization_delay_seconds=dice.choice((0, HOUR)),
        )

    def without(self, **less: Any) -> Plan:
        """The same life with less in it."""
        return replace(self, **less)


def make_plan(seed: int, years: int, plant: str | None = None) -> Plan:
    """The life of a seed."""
    dice = random.Random(f"{seed}:plan")
    names = [name for name, _ in DEEDS]
    weights = [weight for _, weight in DEEDS]
    number = years * DEEDS_PER_YEAR
    moments = sorted(dice.randrange(START + DAY, START + years * YEAR) for _ in range(number))
    deeds = [Deed(at, dice.choices(names, weights)[0], index) for index, at in enumerate(moments)]
    outages = []
    for _ in range(years):
        since = dice.randrange(START, START + years * YEAR)
        outages.append(Outage(dice.choice(OUTAGES), since, since + dice.choice((60, HOUR, 9 * HOUR, DAY, 3 * DAY))))
    return Plan(seed, years, dice.randint(2, 8), tuple(deeds), tuple(outages), plant=plant)
