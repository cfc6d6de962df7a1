"""Meter events and usage summaries on the wire: written by hand, because they come by the thousand."""

from __future__ import annotations

from collections.abc import Iterable

from billing.v1.errors_pb2 import ErrorReason
from billing.v1.meter_model_pb2 import MeterEvent as MeterEventMessage
from billing.v1.meter_service_pb2 import RefusedMeterEvent
from billing_server.domain.errors import DomainError
from billing_server.domain.meter import MeterEvent

_REASON_PREFIX = "ERROR_REASON_"
_TEXT_CHARACTERS_MAX = 500


def read_meter_events(messages: Iterable[MeterEventMessage]) -> list[MeterEvent]:
    """The events of a request; whether they can be taken is judged later."""
    return [
        MeterEvent(
            message.event_name,
            message.customer,
            message.value if message.HasField("value") else None,
            message.identifier,
            message.timestamp.seconds if message.HasField("timestamp") else None,
        )
        for message in messages
    ]


def refused_event(index: int, identifier: str, refusal: DomainError) -> RefusedMeterEvent:
    """What the reporter of a stream is told of an event that was refused."""
    return RefusedMeterEvent(
        index=index,
        identifier=identifier[:_TEXT_CHARACTERS_MAX],
        reason=ErrorReason.Value(_REASON_PREFIX + refusal.reason.upper()),
        field=refusal.field,
        message=refusal.message[:_TEXT_CHARACTERS_MAX],
    )
