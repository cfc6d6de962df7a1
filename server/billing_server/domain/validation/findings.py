"""What is found wrong with a command, collected so that a caller learns all of it at once."""

from __future__ import annotations

from billing_server.domain.errors import InvalidArgument, Violation


class Findings:
    """The violations found so far. `now` is the caller's time in UTC seconds, to which bounds of times relate."""

    __slots__ = ("now", "violations")

    def __init__(self, now: int) -> None:
        self.now = now
        self.violations: list[Violation] = []

    def add(self, field: str, reason: str, description: str) -> None:
        """Note that a field breaks a rule."""
        self.violations.append(Violation(field, reason, description))

    def place(self, mark: int, prefix: str) -> None:
        """Put a prefix to the fields of all violations from the mark on: they lie inside of something."""
        self.violations[mark:] = [
            Violation(prefix + violation.field, violation.reason, violation.description)
            for violation in self.violations[mark:]
        ]

    def raise_any(self) -> None:
        """Raise `InvalidArgument` with all violations, if there are any."""
        if self.violations:
            raise InvalidArgument(*self.violations)
