"""The audit as a whole: read, check, look again at what seems off, report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import ListEventsRequest
from billing.v1.payment_model_pb2 import PaymentIntent

# The modules of the checks register them when they are imported.
from billing_client.audit import (  # noqa: F401
    balance_checks,
    event_checks,
    invoice_checks,
    link_checks,
    payment_checks,
    subscription_checks,
)
from billing_client.audit.account_checks import (
    ACCOUNT_CHECKS,
    invoice_prefixes,
    links_of_catalog,
    price_lookup_keys,
)
from billing_client.audit.book import Book, Shared
from billing_client.audit.check import CHECKS, Finding, findings_of
from billing_client.audit.event_checks import (
    EVENT_CHECKS,
    FOLD,
    Positions,
    Told,
    differences,
    followed,
    followed_pages,
    objects_of,
)
from billing_client.audit.gathering import Watcher, complete, fill, read_book, read_shared
from billing_client.audit.spool import Spool
from billing_client.client import BillingClient

CONCURRENCY = 16
FINDINGS_MAX = 10_000
"""More findings than this are counted, but not kept."""

_LOOKS = 3
_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Report:
    """What the audit found. `counts` are objects read, by kind; `events` is the head of the log if it was read."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    checks: int = 0
    events: int | None = None
    unlisted: int = 0
    seconds: float = 0.0

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings, as long as there is room."""
        for finding in findings:
            if len(self.findings) < FINDINGS_MAX:
                self.findings.append(finding)
            else:
                self.unlisted += 1


async def inspect(client: BillingClient, watcher: Watcher, *, events: bool) -> Report:
    """Audit the account of the client's key; `events` folds its whole log as well. Raises BillingError."""
    started = time.monotonic()
    report = Report(checks=len(CHECKS) + len(ACCOUNT_CHECKS) + len(EVENT_CHECKS) * events)
    with Spool() as spool:
        await fill(spool, client, watcher)
        if events:
            report.events = await _read_events(client, spool, watcher, report)
        report.counts = spool.counts()
        shared = await read_shared(client)
        report.add(invoice_prefixes(spool.prefixes_shared()))
        report.add(links_of_catalog(shared))
        report.add(price_lookup_keys(shared))
        if events:
            suspects = {finding.object_id for finding in _unfolded(followed_pages(shared), spool)}
            report.add([finding async for finding in _unfolded_now(client, followed_pages(shared), suspects)])
        await _check_books(client, spool, shared, watcher, report, events=events)
    report.findings.sort()
    report.seconds = time.monotonic() - started
    return report


async def _read_events(client: BillingClient, spool: Spool, watcher: Watcher, report: Report) -> int:
    """Fold the log into the spool, and check that its positions are dense."""
    newest = await client.event_log.ListEvents(ListEventsRequest(page_size=1))
    watcher.phase("events", newest.events[0].position if newest.events else 0)
    positions = Positions()
    latest: dict[str, Told] = {}
    async with client.events(0, batch_max=1000, stop_when_caught_up=True) as stream:
        async for event in stream:
            report.add(positions.take(event))
            latest.update((name, (event.type, state)) for name, state in objects_of(event))
            if len(latest) >= 1000:
                spool.fold_events(latest)
                latest.clear()
            watcher.step()
    spool.fold_events(latest)
    return positions.head


async def _check_books(
    client: BillingClient, spool: Spool, shared: Shared, watcher: Watcher, report: Report, *, events: bool
) -> None:
    watcher.phase("checking", report.counts["Customer"])
    books = spool.books()

    async def worker() -> None:
        for book in books:
            await complete(book, client)
            found = [
                *findings_of(book, shared),
                *(_unfolded(followed(book), spool, book.customer.id) if events else ()),
            ]
            if found:
                report.add(await _look_again(client, book, found))
            watcher.step()

    workers = [asyncio.create_task(worker()) for _ in range(CONCURRENCY)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _unfolded(objects: Iterable[tuple[Message, bool]], spool: Spool, customer: str = "") -> Iterator[Finding]:
    """Objects that are not what the folded log says."""
    for known, needed in objects:
        row = spool.folded(object_id(known))
        told = None if row is None else (row[0], type(known).FromString(row[1]))
        if told is None and not needed:
            continue
        for message in differences(known, told):
            yield Finding(FOLD, customer, object_id(known), message)


def object_id(message: Message) -> str:
    """The id of any object of the account."""
    return str(getattr(message, "id", ""))


async def _look_again(client: BillingClient, book: Book, found: list[Finding]) -> list[Finding]:
    """What is still off after the customer was read anew, in one go: an account at work changes meanwhile."""
    homeless = book.homeless()
    for _ in range(_LOOKS):
        shared = await read_shared(client)
        book = await read_book(client, book.customer.id)
        book.attempts.extend(homeless)
        suspects = {(finding.check, finding.object_id) for finding in found}
        anew = [finding for finding in findings_of(book, shared) if (finding.check, finding.object_id) in suspects]
        if any(finding.check == FOLD for finding in found):
            ids = {finding.object_id for finding in found if finding.check == FOLD}
            anew.extend([finding async for finding in _unfolded_now(client, followed(book), ids, book.customer.id)])
        found = anew
        if not found:
            return []
        await asyncio.sleep(_PAUSE_SECONDS)
    return found


async def _unfolded_now(
    client: BillingClient, objects: Iterable[tuple[Message, bool]], ids: set[str], customer: str = ""
) -> AsyncIterator[Finding]:
    """Which of these objects differ from their newest event, as the server has it now."""
    for known, _ in objects:
        if object_id(known) in ids:
            told = await _newest(client, known)
            for message in differences(known, told):
                yield Finding(FOLD, customer, object_id(known), message)


async def _newest(client: BillingClient, known: Message) -> Told | None:
    """What the newest event that carries an object says of it; invoices carry their payment intents."""
    owners = {object_id(known), known.invoice if isinstance(known, PaymentIntent) else object_id(known)}
    newest: Event | None = None
    for owner in owners:
        for event in (await client.event_log.ListEvents(ListEventsRequest(object_id=owner, page_size=1))).events:
            if newest is None or event.position > newest.position:
                newest = event
    if newest is None:
        return None
    states = dict(objects_of(newest))
    return (newest.type, states[object_id(known)]) if object_id(known) in states else None
