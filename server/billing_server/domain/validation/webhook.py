"""What webhook endpoints have to be like."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

from billing_server.domain import commands as c
from billing_server.domain.calendar import DAY
from billing_server.domain.errors import Violation
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, each

EVENT_TYPES_MAX: Final = 100
GRACE_SECONDS_MAX: Final = 7 * DAY

_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SHAPE: Final = text.text(
    text.URL_LENGTH_MAX,
    pattern=rf"https?://(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?(?:[/?][!-~]*)?",
    shape="an address such as https://shop.example.com/billing, in ASCII, without user or password",
)
EVENT_TYPE: Final = text.text(
    100,
    pattern=r"(?:[a-z0-9_]+\.)*(?:[a-z0-9_]+|\*)",
    shape="a type such as invoice.paid, or a prefix such as invoice.*",
    cards=False,
)
EVENT_TYPES: Final = each(EVENT_TYPE, most=EVENT_TYPES_MAX)
"""Filters of events by type, for webhook endpoints as for all other readers."""


def event_type_violations(names: Sequence[str], field: str) -> list[Violation]:
    """What is wrong with filters of events by type: one that is no type at all would let nothing pass, silently."""
    findings = Findings(now=0)
    EVENT_TYPES(names, field, findings)
    return findings.violations


def url(value: str, field: str, findings: Findings) -> None:
    """An address that an HTTP request can go to."""
    mark = len(findings.violations)
    _SHAPE(value, field, findings)
    if len(findings.violations) > mark:
        return
    if "#" in value:
        findings.add(field, "parameter_invalid", "has no fragment; leave out # and what follows")
    elif not _can_be_reached(value):
        findings.add(field, "parameter_invalid", "has no valid host and port; write https://HOST or https://HOST:PORT")


def _can_be_reached(value: str) -> bool:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            IPv6Address(host)
    except ValueError:
        return False
    return port != 0 and len(host) <= text.DOMAIN_LENGTH_MAX


SHAPES: Final = (
    Shape(
        c.CreateWebhookEndpoint,
        {
            "url": url,
            "event_types": EVENT_TYPES,
            "description": text.DESCRIPTION,
            "metadata": text.metadata,
        },
    ),
    Shape(
        c.UpdateWebhookEndpoint,
        {
            "id": text.ID,
            "url": url,
            "event_types": EVENT_TYPES,
            "description": text.DESCRIPTION,
            "metadata": text.metadata,
            "etag": text.ID,
        },
    ),
    Shape(c.DeleteWebhookEndpoint, {"id": text.ID}),
    Shape(c.RotateWebhookSecret, {"id": text.ID, "grace_seconds": numbers.whole(0, GRACE_SECONDS_MAX, " seconds")}),
    Shape(c.RedeliverWebhookDelivery, {"id": text.ID}),
)
