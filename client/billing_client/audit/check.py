"""What a check is: a named function that looks at a book and tells what is off in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from billing_client.audit.book import Book, Shared

Fault: TypeAlias = tuple[str, str]
"""Id of an object, and what is off with it."""

CheckFunction: TypeAlias = Callable[[Book, Shared], Iterable[Fault]]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that does not add up."""

    check: str
    customer: str
    object_id: str
    message: str


CHECKS: Final[dict[str, CheckFunction]] = {}
"""All checks of books by their names. Filled by the modules of the checks."""


def check(function: CheckFunction) -> CheckFunction:
    """Register a check under the name of its function."""
    CHECKS[function.__name__] = function
    return function


def findings_of(book: Book, shared: Shared) -> Iterator[Finding]:
    """What all checks find in a book."""
    for name, function in CHECKS.items():
        for object_id, message in function(book, shared):
            yield Finding(name, book.customer.id, object_id, message)
