"""Which transaction it was: what is kept of one whose COMMIT got no answer, to ask later what became of it."""

from __future__ import annotations

import msgspec


class TransactionId(msgspec.Struct, frozen=True):
    """Which transaction it was, to ask later what became of it.

    A crash of PostgreSQL may lose a transaction so thoroughly that another one gets its `number`. So `recovery` says
    after which crash the number was given.
    """

    number: int
    recovery: str

    def __str__(self) -> str:
        return str(self.number)
