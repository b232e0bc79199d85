"""The contract suite runs on every backend: `make_bus` makes buses of one channel, `make_store` stores."""

import functools
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from pbus.bus import AsyncQueueBus, WorkerBus, connect
from pbus.bus.pgmq import Endpoint as PgEndpoint
from pbus.bus.pgmq import standalone_store
from pbus.bus.queues.store import QueueStore
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.bus.redis.server.endpoint import Endpoint
from pbus.settings import DeliveryOptions
from support.lease_helpers import MemoryLeases, PgLeases, RedisLeases
from support.queue_helpers import closing
from support.valkey import Valkey
from support.waiting import PATIENCE_S

PGMQ = pytest.param("pgmq", marks=pytest.mark.pgmq)
# Those that keep messages until they are handled; Postgres does, unless it is told not to.
STREAMS = pytest.param("redis-streams", marks=pytest.mark.redis)
KEEPING = [STREAMS, PGMQ]
FORGETTING = [
    "memory",
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("pgmq-once", marks=pytest.mark.pgmq),
]
ONCE = "at-most-once"
FEW_ATTEMPTS = {"max_attempts": 2}  # the second comes soon, the others later and later
KEY = "a-key-of-the-contract-suite"
# A channel has a key or none, whatever the backend: so some have one here.
SEALED: dict[str, dict[str, Any]] = {
    "redis-streams": {"key": KEY},
    "pgmq": {"key": KEY, "encrypt": True},
}
MakeBus = Callable[..., WorkerBus]
MakeStore = Callable[..., AbstractAsyncContextManager[QueueStore]]
LIMITS = (
    "bus.redis.leases._CALL_TIMEOUT_S",
    "bus.redis.connections.CONNECT_TIMEOUT_S",
    "registry.own_leases.STORE_TIMEOUT_S",
    "registry.registry.STORE_TIMEOUT_S",
    "runner.runner_lifecycle._EVENTS_TIMEOUT_S",
    "runner.runner_lifecycle._STEP_TIMEOUT_S",
    "runner.runner._REPORT_TIMEOUT_S",
)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a broker or a handler takes is the machine's affair."""
    monkeypatch.setattr(WorkerBus.start, "__defaults__", (PATIENCE_S,))
    for limit in LIMITS:
        monkeypatch.setattr(f"pbus.{limit}", PATIENCE_S)


@pytest.fixture(params=[*FORGETTING, STREAMS])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    name: str = request.param
    return name


@pytest.fixture(params=[*FORGETTING[:2], *KEEPING])
def any_backend(request: pytest.FixtureRequest) -> str:
    """The backend under test, those included that keep messages until they are handled."""
    name: str = request.param
    return name


@pytest.fixture
def make_any_bus(any_backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that reach each other, whatever they promise."""
    return _make(any_backend, channel, request)


@pytest.fixture(params=KEEPING)
def make_keeping_bus(channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that keep messages until they are handled."""
    return _make(request.param, channel, request)


@pytest.fixture
def make_bus(backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that reach each other: one shared instance in memory."""
    make = _make(backend, channel, request)
    return (
        functools.partial(make, queue_options=FEW_ATTEMPTS) if backend == "redis-streams" else make
    )


@pytest.fixture(params=FORGETTING)
def make_forgetting_bus(channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses for what ends here and is kept elsewhere: by loss, stop or number."""
    return _make(request.param, channel, request)


def _make(backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    if backend == "memory":
        shared = AsyncQueueBus(channel=channel)
        return lambda **_: shared
    if backend.startswith("pgmq"):
        url = request.getfixturevalue("shared_database")
    else:
        url = request.getfixturevalue("valkey").url
    seal = SEALED.get(os.environ.get("PBUS_TEST_SEAL_AS", backend), {})
    if backend in {"redis", "pgmq-once"}:
        return lambda **options: connect(url, channel=channel, delivery=ONCE, **seal, **options)

    def make(**options: Any) -> WorkerBus:
        delivery_options = DeliveryOptions(**options.pop("queue_options", {}))
        keeping = {"delivery": "at-least-once", "delivery_options": delivery_options}
        return connect(url, channel=channel, **keeping, **seal, **options)

    return make


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("pgmq", marks=pytest.mark.pgmq),
    ]
)
def make_store(request: pytest.FixtureRequest, channel: str) -> MakeStore:
    """Makes stores of one channel, each as if in another process; `lease_s` shortens the lease."""
    return {"redis": _redis_store, "pgmq": _pgmq_store}[request.param](request, channel)


def _redis_store(request: pytest.FixtureRequest, channel: str) -> MakeStore:
    server: Valkey = request.getfixturevalue("valkey")
    endpoint = Endpoint(url=server.url, redis=None)
    return lambda **options: closing(RedisQueueStore(endpoint, Keys(channel), **options))


def _pgmq_store(request: pytest.FixtureRequest, channel: str) -> MakeStore:
    endpoint = PgEndpoint(dsn=request.getfixturevalue("shared_database"))
    return lambda **options: closing(standalone_store(endpoint, channel, **options))


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting fetch looks again only when it is woken or something is due."""
    for module in ("redis", "pgmq"):
        monkeypatch.setattr(f"pbus.bus.{module}.fetcher.POLL_S", 60.0)  # longer than any test


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("pgmq", marks=pytest.mark.pgmq),
    ]
)
def make_leases(
    request: pytest.FixtureRequest, channel: str
) -> MemoryLeases | RedisLeases | PgLeases:
    """Makes stores of leases of one channel; `pass_time` lets leases age."""
    if request.param == "memory":
        return MemoryLeases()
    if request.param == "redis":
        return RedisLeases(request.getfixturevalue("valkey").url, channel)
    return PgLeases(request.getfixturevalue("shared_database"), channel)
