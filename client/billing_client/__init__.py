"""Async Python client of the billing engine, and the `billing` command line built on it."""

from __future__ import annotations

__version__ = "0.1.0"
