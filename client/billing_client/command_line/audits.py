"""`billing audit`: whether everything in the account adds up."""

from __future__ import annotations

import typer


def audit(context: typer.Context) -> None:
    """Check."""
