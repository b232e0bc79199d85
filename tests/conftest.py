"""Fixtures that all tiers share."""

import gc
import signal
import sys
import uuid
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from support.valkey import Valkey

# How long an example takes is the machine's affair.
settings.register_profile("pbus", deadline=None)
settings.load_profile("pbus")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect in a third of the time; each process of a run collects all tests.

    What is compiled of the tests is kept, also where Python is told to keep nothing. Collecting
    makes no garbage.
    """
    keeps_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = keeps_nothing
        gc.freeze()
        gc.enable()


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """One real Postgres for the whole run; see support.postgres."""
    with pytest.importorskip("support.postgres").Postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """A Postgres for one test that writes to disk, to be killed or restarted."""
    with pytest.importorskip("support.postgres").Postgres(is_durable=True) as server:
        yield server


@pytest.fixture(scope="session")
def shared_database(postgres: Any) -> str:
    """The URL of one database for the whole run; tests keep apart by their channels."""
    url: str = postgres.create_database()
    return url


@pytest.fixture
def database(postgres: Any) -> str:
    """The URL of a fresh database with PGMQ's SQL."""
    url: str = postgres.create_database()
    return url


@pytest.fixture
def channel() -> str:
    """A channel no other test uses."""
    return f"test:{uuid.uuid4().hex}"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Have Ctrl-C work in what tests start: who runs us in the background may have it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
