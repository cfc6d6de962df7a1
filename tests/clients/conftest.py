"""The engine that the clients call, the one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.served_engine import ServedEngine, served_engine
from tests.conftest import temporary_data_directory


@pytest.fixture(scope="session")
def engine() -> Iterator[ServedEngine]:
    """A served engine with one account."""
    with temporary_data_directory() as directory, served_engine(directory) as served:
        yield served
