"""The served engine and the callers of the tests of the edge."""

from __future__ import annotations

from tests.api.conftest import caller, server

__all__ = ["caller", "server"]
