"""Usage for books: read from the tallies once it is known which metered items and drafts a book holds."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from billing_server.domain import tally, usage
from billing_server.domain.book import Book, Reach, UsageSpan
from billing_server.domain.catalog import Catalog
from billing_server.store.unit import Unit
from billing_server.store.usage import WantedSpan


async def with_usage(
    unit: Unit, books: Mapping[str, Book], reaches: Mapping[str, Reach], catalog: Catalog, now: int
) -> dict[str, Book]:
    """The books with the usage that their reaches ask for; `now` is real time in UTC seconds."""
    wanted: list[tuple[str, UsageSpan]] = []
    for customer, book in books.items():
        if _bills_usage(book, reaches[customer]):
            moment = now if book.test_clock is None else book.test_clock.frozen_time
            wanted += ((customer, span) for span in usage.spans(book, catalog, moment))
    if not wanted:
        return dict(books)
    meters = catalog.meters
    found = await unit.read_usage([WantedSpan(customer, meters[span.meter], *span[1:]) for customer, span in wanted])
    known: dict[str, dict[UsageSpan, int]] = {}
    for (customer, span), read in zip(wanted, found, strict=True):
        known.setdefault(customer, {})[span] = tally.usage_by(meters[span.meter].formula, read)
    return {
        customer: msgspec.structs.replace(book, usage=known[customer]) if customer in known else book
        for customer, book in books.items()
    }


def _bills_usage(book: Book, reach: Reach) -> bool:
    """Whether usage may be billed: on request, as time passes, or by a proposal that is settled."""
    if reach.usage or reach.due_until is not None:
        return True
    return any(attempt.proposal is not None for attempt in book.attempts.values())
