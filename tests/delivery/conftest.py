"""The served engine of the tests of the edge."""

from __future__ import annotations

from tests.api.conftest import server

__all__ = ["server"]
