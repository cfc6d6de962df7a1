"""Taking meter events: which are refused, and what the others add to the tallies (semantics 1, MeterEvent)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from billing_server.domain.calendar import DAY, written
from billing_server.domain.catalog import Catalog
from billing_server.domain.errors import DomainError, LimitReached, ResourceMissing, WrongState, invalid
from billing_server.domain.meter import Meter, MeterEvent
from billing_server.domain.tally import HOUR, MINUTE, WINDOW_SECONDS, Tally
from billing_server.domain.test_clock import TestClock

PAST_SECONDS_MAX: Final = 35 * DAY
AHEAD_SECONDS_MAX: Final = 300
VALUE_MAX: Final = 10**12
"""The greatest value of one event, either way."""

IDENTIFIER_LENGTH_MAX: Final = 100
DIGEST_BYTES: Final = 16


class Reporter(msgspec.Struct, frozen=True):
    """What must be known of a customer before an event is taken: whether it is deleted, and its test clock."""

    deleted: bool = False
    test_clock: TestClock | None = None


_PLAIN: Final = Reporter()


def reporter(*, deleted: bool, test_clock: TestClock | None) -> Reporter:
    """The reporter; nearly all are the same one, which is quick to see."""
    return Reporter(deleted, test_clock) if deleted or test_clock is not None else _PLAIN


class Entry(msgspec.Struct, frozen=True):
    """An event that may be taken: which of the reported ones it is, and what counts of it."""

    number: int
    customer: str
    meter: Meter
    value: int
    identifier: str
    timestamp: int


def judge(
    events: Sequence[MeterEvent], catalog: Catalog, reporters: Mapping[str, Reporter], now: int
) -> tuple[list[Entry], list[tuple[int, DomainError]]]:
    """The events that may be taken, and the refusals of the others, by number.

    `reporters` holds the customers that exist; `now` is real time in UTC seconds.
    """
    entries: list[Entry] = []
    refusals: list[tuple[int, DomainError]] = []
    for number, event in enumerate(events):
        try:
            entries.append(_entry(number, event, catalog, reporters, now))
        except DomainError as refusal:
            refusals.append((number, refusal))
    return entries, refusals


def _entry(number: int, event: MeterEvent, catalog: Catalog, reporters: Mapping[str, Reporter], now: int) -> Entry:
    meter = catalog.meters_by_event_name.get(event.event_name)
    if meter is None or meter.status != "active":
        raise _no_meter(event, meter)
    reporter = reporters.get(event.customer)
    if reporter is not _PLAIN:
        now = _time_of(event, reporter, now)
    timestamp = now if event.timestamp is None else event.timestamp
    if not now - PAST_SECONDS_MAX <= timestamp <= now + AHEAD_SECONDS_MAX:
        raise invalid(
            "timestamp",
            "time_out_of_range",
            f"at most 35 days before and 5 minutes after the customer's present time, {written(now)}",
        )
    if len(event.identifier) > IDENTIFIER_LENGTH_MAX:
        raise invalid("identifier", "parameter_invalid", f"has at most {IDENTIFIER_LENGTH_MAX} characters; shorten it")
    value = event.value
    if value is None or meter.formula == "count" or not -VALUE_MAX <= value <= VALUE_MAX:
        value = _value(event, meter)
    return Entry(number, event.customer, meter, value, event.identifier, timestamp)


def _no_meter(event: MeterEvent, meter: Meter | None) -> DomainError:
    if not event.event_name:
        return invalid("event_name", "parameter_missing", "is required")
    if meter is None:
        return ResourceMissing("meter", event.event_name, field="event_name", by="event_name")
    return WrongState(
        "meter_inactive",
        f"the meter '{meter.id}' of these events is inactive; reactivate it, or report other events",
        subject=meter.id,
        field="event_name",
    )


def _time_of(event: MeterEvent, reporter: Reporter | None, now: int) -> int:
    """The customer's present time; a refusal when there is no such customer, or when events are not taken now."""
    if not event.customer:
        raise invalid("customer", "parameter_missing", "is required")
    if reporter is None:
        raise ResourceMissing("customer", event.customer, field="customer")
    if reporter.deleted:
        raise WrongState(
            "customer_deleted",
            f"the customer '{event.customer}' is deleted",
            subject=event.customer,
            field="customer",
        )
    clock = reporter.test_clock
    if clock is None:
        return now
    if clock.status != "ready":
        raise LimitReached(
            "test_clock_advancing",
            f"the test clock '{clock.id}' is {clock.status}; try again when it is ready",
            retry_after_seconds=1,
        )
    return clock.frozen_time


def _value(event: MeterEvent, meter: Meter) -> int:
    if meter.formula == "count":
        return 0
    if event.value is None:
        raise invalid("value", "parameter_missing", f"a meter by {meter.formula} needs it")
    if not -VALUE_MAX <= event.value <= VALUE_MAX:
        raise invalid(
            "value", "parameter_invalid_integer", f"must be from -{VALUE_MAX} to {VALUE_MAX}, not {event.value}"
        )
    return event.value


# --- taking


def digester(meter: Meter) -> Callable[[str], bytes]:
    """What stands for the identifiers of a meter: equal for equal ones, and never equal for others in practice."""
    beginning = hashlib.blake2b(f"{meter.id}\0".encode(), digest_size=DIGEST_BYTES)

    def digest(identifier: str) -> bytes:
        of_both = beginning.copy()
        of_both.update(identifier.encode())
        return of_both.digest()

    return digest


class Bucket(NamedTuple):
    """What a tally is of; tallies are written in the order of their buckets."""

    customer: str
    meter: str
    width: int
    start: int


Tallies = list[tuple[Bucket, Tally]]


def tallies(taken: Iterable[tuple[Entry, int]]) -> tuple[Tallies, Tallies]:
    """What events add to tallies, and the tallies of windows that they replace; each in the order of buckets.

    Each entry comes with the moment, in microseconds of real time, at which it was received; moments ascend.
    """
    minutes: dict[tuple[str, str, int, int], list[int]] = {}
    windows: dict[tuple[str, str, int, int], list[int]] = {}
    for entry, received in taken:
        meter, value, timestamp = entry.meter, entry.value, entry.timestamp
        if meter.event_time_window is not None:
            width = WINDOW_SECONDS[meter.event_time_window]
            # What comes later in the batch was received later, and takes the window.
            bucket = (entry.customer, meter.id, width, timestamp - timestamp % width)
            windows[bucket] = [value, 1, value, timestamp, received]
            continue
        bucket = (entry.customer, meter.id, MINUTE, timestamp - timestamp % MINUTE)
        known = minutes.get(bucket)
        if known is None:
            minutes[bucket] = [value, 1, value, timestamp, received]
            continue
        known[0] += value
        known[1] += 1
        if timestamp >= known[3]:
            known[2:] = value, timestamp, received
    return _ordered(minutes | _hours(minutes)), _ordered(windows)


def _hours(minutes: Mapping[tuple[str, str, int, int], list[int]]) -> dict[tuple[str, str, int, int], list[int]]:
    """The tallies by hour that tallies by minute add up to."""
    hours: dict[tuple[str, str, int, int], list[int]] = {}
    for (customer, meter, _, start), parts in minutes.items():
        bucket = (customer, meter, HOUR, start - start % HOUR)
        known = hours.get(bucket)
        if known is None:
            hours[bucket] = parts.copy()
            continue
        known[0] += parts[0]
        known[1] += parts[1]
        if parts[3:] > known[3:]:
            known[2:] = parts[2:]
    return hours


def _ordered(found: Mapping[tuple[str, str, int, int], list[int]]) -> Tallies:
    return [(Bucket(*bucket), Tally(*found[bucket])) for bucket in sorted(found)]
