"""The contract suite runs on every backend: `make_bus` makes buses of one channel, `make_mail` stores."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from pbus.bus import AsyncQueueBus, WorkerBus, connect
from pbus.bus.mail import MailStore
from pbus.bus.mailroom import DeliveryOptions
from pbus.bus.pgmq import Endpoint as PgEndpoint
from pbus.bus.pgmq import mail_store
from pbus.bus.redis.endpoint import Endpoint
from pbus.bus.redis.mail import RedisMailStore
from pbus.bus.redis.names import Names
from support.mailing import closing
from support.valkey import Valkey

REDIS = ("redis", "redis-streams")  # the second keeps messages until they are handled
MakeBus = Callable[..., WorkerBus]
MakeMail = Callable[..., AbstractAsyncContextManager[MailStore]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    name: str = request.param
    return name


@pytest.fixture(params=["memory", *(pytest.param(one, marks=pytest.mark.redis) for one in REDIS)])
def any_backend(request: pytest.FixtureRequest) -> str:
    """The backend under test, those included that keep messages until they are handled."""
    name: str = request.param
    return name


@pytest.fixture
def make_any_bus(any_backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that reach each other, whatever they promise."""
    if any_backend == "redis-streams":
        return request.getfixturevalue("make_keeping_bus")  # type: ignore[no-any-return]
    return _make(any_backend, channel, request)


@pytest.fixture
def make_keeping_bus(channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that keep messages until they are handled."""
    server: Valkey = request.getfixturevalue("valkey")

    def make(**options: Any) -> WorkerBus:
        mail = DeliveryOptions(**options.pop("mail", {}))
        keeping = {"delivery": "at-least-once", "mail_options": mail}
        return connect(server.url, channel=channel, **keeping, **options)

    return make


@pytest.fixture
def make_bus(backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    """Makes unstarted buses that reach each other: one shared instance in memory."""
    return _make(backend, channel, request)


def _make(backend: str, channel: str, request: pytest.FixtureRequest) -> MakeBus:
    if backend == "memory":
        shared = AsyncQueueBus(channel=channel)
        return lambda **_: shared
    server: Valkey = request.getfixturevalue("valkey")
    return lambda **options: connect(server.url, channel=channel, **options)


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("pgmq", marks=pytest.mark.pgmq),
    ]
)
def make_mail(request: pytest.FixtureRequest, channel: str) -> MakeMail:
    """Makes stores of one channel, each as if in another process; `lease_s` shortens the lease."""
    return {"redis": _redis_mail, "pgmq": _pgmq_mail}[request.param](request, channel)


def _redis_mail(request: pytest.FixtureRequest, channel: str) -> MakeMail:
    server: Valkey = request.getfixturevalue("valkey")
    endpoint = Endpoint(url=server.url, redis=None)
    return lambda **options: closing(RedisMailStore(endpoint, Names(channel), **options))


def _pgmq_mail(request: pytest.FixtureRequest, channel: str) -> MakeMail:
    endpoint = PgEndpoint(dsn=request.getfixturevalue("database"))
    return lambda **options: closing(mail_store(endpoint, channel, **options))
