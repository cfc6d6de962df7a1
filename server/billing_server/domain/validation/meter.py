"""What meters have to be like (semantics 1, Meter)."""

from __future__ import annotations

from typing import Final

from billing_server.domain import commands as c
from billing_server.domain.validation import text
from billing_server.domain.validation.shapes import Shape

EVENT_NAME_LENGTH_MAX: Final = 100
EVENT_NAME: Final = text.text(
    EVENT_NAME_LENGTH_MAX,
    pattern="[A-Za-z0-9._:/-]+",
    shape="letters, digits, and the characters . _ : / -, such as api_calls",
)

SHAPES: Final = (
    Shape(c.CreateMeter, {"display_name": text.NAME, "event_name": EVENT_NAME, "metadata": text.metadata}),
    Shape(c.UpdateMeter, {"id": text.ID, "display_name": text.NAME, "metadata": text.metadata, "etag": text.ID}),
    Shape(c.DeactivateMeter, {"id": text.ID}),
    Shape(c.ReactivateMeter, {"id": text.ID}),
)
