"""Ids: a prefix that tells the noun, then 22 characters that sort by the time they were made.

48 bits of milliseconds, then 62 random bits that count upwards within a millisecond, so the ids of one process
sort in the order in which it made them.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_RANDOM_BITS = 62
_SECRET_PREFIX = "secret"  # noqa: S105  # a prefix, not a secret


class IdSource:
    """Makes ids. One per process; safe within one event loop."""

    __slots__ = ("_last_milliseconds", "_last_random")

    def __init__(self) -> None:
        self._last_milliseconds = 0
        self._last_random = 0

    def __call__(self, prefix: str) -> str:
        """A new id with this prefix; for the prefix `secret`, what nobody can guess."""
        if prefix == _SECRET_PREFIX:
            return f"secret_{secrets.token_urlsafe(24)}"
        milliseconds = time.time_ns() // 1_000_000
        if milliseconds <= self._last_milliseconds:
            milliseconds = self._last_milliseconds
            self._last_random += 1
        else:
            self._last_milliseconds = milliseconds
            # The top bit stays free, so that counting upwards cannot run over.
            self._last_random = secrets.randbits(_RANDOM_BITS - 1)
        number = (milliseconds << _RANDOM_BITS) | self._last_random
        # Spelled out: a billing run makes several ids for each renewal, and a loop would take twice as long.
        pairs = _PAIRS
        return (
            f"{prefix}_{pairs[number >> 100]}{pairs[number >> 90 & 1023]}{pairs[number >> 80 & 1023]}"
            f"{pairs[number >> 70 & 1023]}{pairs[number >> 60 & 1023]}{pairs[number >> 50 & 1023]}"
            f"{pairs[number >> 40 & 1023]}{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}"
            f"{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
        )
