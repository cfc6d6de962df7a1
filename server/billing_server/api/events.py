"""EventService: single events, pages of them, and the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from billing.v1.event_service_pb2 import ListEventsResponse
from billing_server.api import paging
from billing_server.api.call import Call
from billing_server.api.endpoints import Edge, Endpoint, path_of, required, span
from billing_server.domain.errors import InvalidArgument, ResourceMissing
from billing_server.domain.validation.webhook import event_type_violations
from billing_server.store.event import EventFilter, StoredEvent
from billing_server.store.view import View
from billing_server.wire.codec import check, event_batch_bytes, position_of, with_position

_LIST: Final = path_of("EventService/ListEvents")
_POSITIONS: Final = msgspec.msgpack.Decoder(paging.CursorInteger)
_WINDOWS_MAX: Final = 50
"""How far a page of rare events looks: so many windows of the log before it is given back as it is."""


async def _get(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "id")
    position = position_of(request.id, call.account_id)
    async with edge.view(call) as view:
        found = await view.event(position)
    if found is None:
        raise ResourceMissing("event", request.id)
    return with_position(found.payload, call.account_id, position)


async def _list(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    size = paging.page_size(request)
    before = paging.read_token(_LIST, request, _POSITIONS)
    created_from, created_before = span(request, "created")
    violations = event_type_violations(request.types, "types")
    if violations:
        raise InvalidArgument(*violations)
    wanted = EventFilter(
        types=tuple(request.types),
        customer=request.customer or None,
        object_ids=(request.object_id,) if request.object_id else (),
        created_from=created_from,
        created_before=created_before,
    )
    async with edge.view(call) as view:
        events, following = await _page(view, before, size, wanted)
    response = ListEventsResponse(next_page_token=paging.make_token(_LIST, request, following))
    stored = ((event.position, event.payload) for event in events)
    # The events of a page and of a batch are the same field: serialized messages may be concatenated.
    return event_batch_bytes(call.account_id, stored, 0, caught_up=False) + response.SerializeToString()


async def _page(view: View, before: int | None, size: int, wanted: EventFilter) -> tuple[list[StoredEvent], int | None]:
    """Up to `size` events, newest first, and the position before which the next page looks (None: nowhere)."""
    for _ in range(_WINDOWS_MAX):
        page = await view.newest_events(before=before, limit=size, wanted=wanted)
        full = len(page.events) == size
        before = page.scanned_to if full else page.scanned_to + 1
        kept = paging.fitting(len(event.payload) for event in page.events)
        if kept < len(page.events):
            return page.events[:kept], page.events[kept - 1].position
        if page.events or before <= 1:
            return page.events, before if before > 1 else None
    return [], before


async def _stream(edge: Edge, call: Call, request: Any) -> AsyncIterator[bytes]:
    check(request)
    async for batch in edge.event_streams.follow(call.account_id, request):
        yield batch


ENDPOINTS: Final = (
    Endpoint(path_of("EventService/GetEvent"), unary=_get),
    Endpoint(_LIST, unary=_list),
    Endpoint(path_of("EventService/StreamEvents"), streaming=_stream),
)
