"""The contract suite runs on every backend: `make_bus` makes buses of one channel."""

from collections.abc import Callable

import pytest

from pbus.bus import AsyncQueueBus, WorkerBus, connect
from support.valkey import Valkey

MakeBus = Callable[..., WorkerBus]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    name: str = request.param
    return name


@pytest.fixture
def make_bus(backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that reach each other: one shared instance in memory."""
    if backend == "memory":
        shared = AsyncQueueBus(channel=channel)
        return lambda **_: shared
    server: Valkey = request.getfixturevalue("valkey")
    return lambda **options: connect(server.url, channel=channel, **options)
