"""The same cases on every backend: `make_bus` gives buses of one channel, a new one a test."""

from collections.abc import Callable

import pytest

from pbus.bus.base import WorkerBus
from pbus.bus.memory import AsyncQueueBus

MakeBus = Callable[[], WorkerBus]

BACKENDS = ["memory"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend a case runs on."""
    return request.param


@pytest.fixture
def make_bus(request: pytest.FixtureRequest, backend: str) -> MakeBus:
    """Makes buses of this test's channel: for memory the same again, else one a call.

    Not started. Whoever starts a bus stops it, so a test starts those that outlive a runner.
    """
    makers: dict[str, Callable[[], MakeBus]] = {"memory": _memory_buses}
    return makers[backend]()


def _memory_buses() -> MakeBus:
    bus = AsyncQueueBus(channel="pbus-test")
    return lambda: bus
