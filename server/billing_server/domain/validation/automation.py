"""Rules of automations and their runs (semantics 8)."""

from __future__ import annotations

from typing import Final

from billing_server.domain import commands as c
from billing_server.domain.validation import text
from billing_server.domain.validation.shapes import Shape

SHAPES: Final = (Shape(c.CancelAutomationRun, {"id": text.ID}),)
