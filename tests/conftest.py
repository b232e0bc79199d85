"""Fixtures that all tiers share."""

import uuid
from collections.abc import Iterator

import pytest

from support.valkey import Valkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One real Valkey for the whole run; tests keep apart by their channels."""
    with Valkey(tcp=True) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey for one test, to be killed, blocked or restarted."""
    with Valkey(tcp=True) as server:
        yield server


@pytest.fixture
def channel() -> str:
    """A channel no other test uses."""
    return f"test:{uuid.uuid4().hex}"
