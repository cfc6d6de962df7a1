"""Events of a transaction as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

from billing_server.domain.event import Event
from billing_server.store.event import EventRow
from billing_server.wire.codec import Known, encode_event


def event_rows(account_id: str, events: Sequence[Event]) -> list[EventRow]:
    """The rows of some events, in their order; positions are given when they are written."""
    known: Known = {}
    return [
        EventRow(
            type=event.type,
            customer=event.customer,
            object_id=event.object.id,  # type: ignore[attr-defined]  # every told object has an id
            created=event.created,
            payload=encode_event(account_id, event, known),
            quiet=event.quiet,
        )
        for event in events
    ]
