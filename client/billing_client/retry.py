"""When a failed call is made again, and after how long.

The decision is a value, so that calls and streams obey the same rules: a failure is worth a retry when the
server was away, when no answer came, or when the engine says that nothing happened yet and that it will be
ready soon. It is safe for changes as well, because each is repeated with its idempotency key.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc

from billing_client.errors import BillingError

_AWAY = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED},
)

SAFE_CONFLICTS = frozenset({"IDEMPOTENCY_KEY_IN_USE", "PAYMENT_IN_PROGRESS", "TEST_CLOCK_ADVANCING", "CONSUMER_SILENT"})
"""Reasons of ABORTED after which the same request may succeed as it is. ETAG_MISMATCH is none of them."""


def is_transient(error: BillingError) -> bool:
    """Whether the same request may succeed later, without anybody doing something about it."""
    if error.code in _AWAY:
        return True
    if error.code is grpc.StatusCode.ABORTED:
        return error.reason in SAFE_CONFLICTS
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.reason == "RATE_LIMIT" and error.retry_after_seconds is not None
    return False


def is_broken_stream(error: BillingError) -> bool:
    """Whether a stream ended for a reason that lies in the connection, so that it may be taken up again."""
    made_on_the_way = not error.reason and error.code in (
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    )
    return made_on_the_way or is_transient(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently calls are made again. `RetryPolicy(attempts_max=1)` never does.

    attempts_max: attempts of one call in all, the first included.
    backoff_seconds_first: wait before the second attempt; it doubles with each further one.
    backoff_seconds_max: longest wait of its own accord.
    retry_after_seconds_max: longest wait that a server may ask for; beyond it the error is raised.
    """

    attempts_max: int = 8
    backoff_seconds_first: float = 0.1
    backoff_seconds_max: float = 5.0
    retry_after_seconds_max: float = 60.0

    def delay_seconds(self, error: BillingError, attempts: int) -> float | None:
        """How long to wait before the next attempt after so many; None: raise the error instead."""
        if attempts >= self.attempts_max or not is_transient(error):
            return None
        asked = error.retry_after_seconds or 0.0
        if asked > self.retry_after_seconds_max:
            return None
        return max(asked, self.backoff_seconds(attempts))

    def backoff_seconds(self, attempts: int) -> float:
        """The wait after so many attempts: exponential, with half of it random so that callers spread."""
        doublings = float(2 ** min(attempts - 1, 30))
        wait = min(self.backoff_seconds_first * doublings, self.backoff_seconds_max)
        return wait * random.uniform(0.5, 1.0)
