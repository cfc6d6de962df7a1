"""MeterService: meters, events that report usage, and usage summed up."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from billing.v1.meter_service_pb2 import (
    GetUsageSummaryResponse,
    ReportMeterEventResponse,
    ReportMeterEventsResponse,
    UsageOfWindow,
)
from billing_server.api import replay
from billing_server.api.call import Call
from billing_server.api.endpoints import (
    Edge,
    Endpoint,
    caller_of,
    choice,
    command,
    get,
    listing,
    path_of,
    required,
    span,
)
from billing_server.domain import commands as c
from billing_server.domain import tally
from billing_server.domain.customer import Customer
from billing_server.domain.errors import DomainError, InvalidArgument, Violation, invalid
from billing_server.domain.meter import Meter, MeterEvent
from billing_server.domain.metering import PAST_SECONDS_MAX
from billing_server.domain.money import INT64_MAX
from billing_server.engine.metering import EVENTS_MAX, Reported
from billing_server.store.meter import MeterFilter
from billing_server.store.usage import WantedSpan
from billing_server.wire.codec import check
from billing_server.wire.usage import read_meter_events, refused_event

REFUSALS_TOLD_MAX: Final = 1_000
REPORTS_AT_ONCE: Final = 4
"""Messages of one stream on their way to the database, so that the next is read while others are written."""

WINDOWS_MAX: Final = 1_500


def _meters(request: Any) -> MeterFilter:
    return MeterFilter(status=choice(request, "status"), event_name=request.event_name or None)


# --- reporting


async def _report(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    if not request.HasField("event"):
        required(request, "event")

    def encode_result(result: msgspec.Struct, _now: int | None) -> bytes:
        assert isinstance(result, Reported)
        return _reported(request, result).SerializeToString()

    events = read_meter_events([request.event])
    answer = await edge.engine.report_usage(call.account_id, events, caller_of(call, request, encode_result))
    if isinstance(answer, bytes):
        return replay.replayed(answer)
    for _, refusal in answer.refusals:
        raise _within_event(refusal)
    return encode_result(answer, None)


def _reported(request: Any, reported: Reported) -> ReportMeterEventResponse:
    (entry,) = reported.entries.values()
    response = ReportMeterEventResponse(
        event=request.event, meter=entry.meter.id, duplicate=entry.number in reported.duplicates
    )
    response.event.timestamp.Clear()
    response.event.timestamp.seconds = entry.timestamp
    return response


def _within_event(refusal: DomainError) -> DomainError:
    """The refusal with the path of its field in the request."""
    refusal.field = f"event.{refusal.field}"
    if not isinstance(refusal, InvalidArgument):
        return refusal
    return InvalidArgument(
        *(
            Violation(f"event.{violation.field}", violation.reason, violation.description)
            for violation in refusal.violations
        )
    )


async def _report_stream(edge: Edge, call: Call, messages: AsyncIterator[Any]) -> bytes:
    """Take the events of a stream, some messages at once; what was taken stays when the stream breaks."""
    summary = _Summary()
    under_way: deque[tuple[Sequence[MeterEvent], asyncio.Task[Any]]] = deque()
    try:
        async for message in messages:
            events = read_meter_events(message.events)
            if len(events) > EVENTS_MAX:
                raise invalid("events", "parameter_invalid", f"a message holds at most {EVENTS_MAX}, not {len(events)}")
            if not events:
                continue
            while len(under_way) >= REPORTS_AT_ONCE:
                summary.add(under_way[0][0], await under_way[0][1])
                under_way.popleft()
            under_way.append((events, asyncio.create_task(edge.engine.report_usage(call.account_id, events))))
        while under_way:
            summary.add(under_way[0][0], await under_way[0][1])
            under_way.popleft()
    finally:
        for _, report in under_way:
            report.cancel()
        await asyncio.gather(*(report for _, report in under_way), return_exceptions=True)
    return summary.response.SerializeToString()


class _Summary:
    """What became of the events of a stream so far."""

    def __init__(self) -> None:
        self.response = ReportMeterEventsResponse()
        self._seen = 0

    def add(self, events: Sequence[MeterEvent], reported: Reported) -> None:
        """Count the events of the next message."""
        self.response.accepted += reported.accepted
        self.response.duplicates += len(reported.duplicates)
        self.response.refused += len(reported.refusals)
        room = REFUSALS_TOLD_MAX - len(self.response.refusals)
        for index, refusal in reported.refusals[:room]:
            self.response.refusals.append(refused_event(self._seen + index, events[index].identifier, refusal))
        self._seen += len(events)


# --- summaries


async def _summarize(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "meter", "customer")
    start, end = span(request, "range")
    if start is None or end is None:
        raise invalid("range", "parameter_missing", "needs both ends")
    window = choice(request, "window")
    async with edge.engine.store.view(call.account_id) as view:
        meter = await view.get(Meter, request.meter, "meter", "meter")
        customer = await view.get(Customer, request.customer, "customer", "customer")
        _check_range(start, end, real=customer.test_clock is None)
        if window is not None and (end - start) // tally.WINDOW_SECONDS[window] > WINDOWS_MAX:
            raise invalid("range", "time_out_of_range", f"holds at most {WINDOWS_MAX} windows; choose a shorter one")
        spans = [(start, end)] if window is None else tally.windows(start, end, window)
        found = await view.usage([WantedSpan(customer.id, meter, *window_span) for window_span in spans])
    whole = tally.total(found)
    response = GetUsageSummaryResponse(value=_shown(meter, whole), event_count=whole.count)
    if window is not None:
        response.windows.extend(
            _window(meter, *window_span, part) for window_span, part in zip(spans, found, strict=True) if part.count
        )
    return response.SerializeToString()


def _check_range(start: int, end: int, *, real: bool) -> None:
    """Only whole minutes are tallied, and after a while only whole hours are kept."""
    problems = []
    if start >= end:
        problems.append(Violation("range.end", "time_out_of_range", "must lie after range.start"))
    oldest_minute = int(time.time()) - PAST_SECONDS_MAX
    for name, moment in (("range.start", start), ("range.end", end)):
        if moment % tally.MINUTE:
            problems.append(Violation(name, "time_out_of_range", "must be a whole minute"))
        elif real and moment < oldest_minute and moment % tally.HOUR:
            problems.append(Violation(name, "time_out_of_range", "must be a whole hour when it is older than 35 days"))
    if problems:
        raise InvalidArgument(*problems)


def _shown(meter: Meter, part: tally.Tally) -> int:
    usage = tally.usage_by(meter.formula, part)
    if abs(usage) > INT64_MAX:
        raise invalid("range", "amount_too_large", "the usage does not fit into 64 bits; choose a shorter range")
    return usage


def _window(meter: Meter, start: int, end: int, part: tally.Tally) -> UsageOfWindow:
    shown = UsageOfWindow(value=_shown(meter, part), event_count=part.count)
    shown.start.seconds, shown.end.seconds = start, end
    return shown


ENDPOINTS: Final = (
    command("MeterService/CreateMeter", c.CreateMeter),
    get("MeterService/GetMeter", Meter, "meter"),
    listing("MeterService/ListMeters", "meters", _meters),
    command("MeterService/UpdateMeter", c.UpdateMeter),
    command("MeterService/DeactivateMeter", c.DeactivateMeter),
    command("MeterService/ReactivateMeter", c.ReactivateMeter),
    Endpoint(path_of("MeterService/ReportMeterEvent"), unary=_report),
    Endpoint(path_of("MeterService/ReportMeterEvents"), gathering=_report_stream),
    Endpoint(path_of("MeterService/GetUsageSummary"), unary=_summarize),
)
