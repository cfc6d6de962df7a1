"""What goes wrong between an engine and a gateway, for tests that make it happen on purpose.

    timeout_before_effect   the request is lost on its way: nothing happens, no answer comes
    timeout_after_effect    it is done, but the answer is lost
    slow                    it is done, the answer comes late
    duplicate               it arrives twice; the second answer is the one that is given
    down                    the gateway is away: nothing happens, no answer comes

The first two and the last are `unknown` to the caller. Asking (`get_charge`, `get_refund`) knows the same
faults; it has no effect to lose.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Protocol

Fault = Literal["timeout_before_effect", "timeout_after_effect", "slow", "duplicate", "down"]
Call = Literal["charge", "get_charge", "refund", "get_refund"]


class Faults(Protocol):
    """Chooses what goes wrong with each call."""

    def choose(self, call: Call, key: str) -> Fault | None:
        """The fault of this call; None when all goes well."""


class SeededFaults:
    """Faults by chance, each with its probability; the same for the same seed.

    The choice depends on the seed, the call, the key and how often this call was made for the key, never on
    the order of calls of other keys: a failing seed fails again, whatever ran beside it.
    """

    def __init__(self, seed: int, probabilities: Mapping[Fault, float]) -> None:
        if any(not 0 <= share <= 1 for share in probabilities.values()) or sum(probabilities.values()) > 1:
            raise ValueError(f"probabilities must lie in 0 to 1, also together: {dict(probabilities)}")
        self.seed = seed
        self._probabilities = dict(probabilities)
        self._times: Counter[tuple[Call, str]] = Counter()

    def choose(self, call: Call, key: str) -> Fault | None:
        """Throw the dice of this call."""
        self._times[call, key] += 1
        throw = random.Random(f"{self.seed}:{call}:{key}:{self._times[call, key]}").random()
        for fault, share in self._probabilities.items():
            if throw < share:
                return fault
            throw -= share
        return None
