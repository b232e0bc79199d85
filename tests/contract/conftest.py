"""The contract suite runs on every backend: `make_bus` makes buses of one channel, `make_mail` stores."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from pbus.bus import AsyncQueueBus, WorkerBus, connect
from pbus.bus.mail import MailStore
from pbus.bus.pgmq import Endpoint as PgEndpoint
from pbus.bus.pgmq import mail_store
from pbus.bus.redis.endpoint import Endpoint
from pbus.bus.redis.mail import RedisMailStore
from pbus.bus.redis.names import Names
from support.mailing import closing
from support.valkey import Valkey

MakeBus = Callable[..., WorkerBus]
MakeMail = Callable[..., AbstractAsyncContextManager[MailStore]]


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
