"""From a URL to a bus; the only place that loads a backend."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Unpack, cast

from pbus.bus.base import WorkerBus
from pbus.bus.broker_info import BrokerInfo
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.otel import trace_if_configured
from pbus.errors import BackendMissingError, BusUrlError
from pbus.settings import BusOptions, BusSettings
from pbus.urls import BACKEND_OF_SCHEME, Backend, mask_url, url_scheme

_METRICS_SDK = "opentelemetry.sdk.metrics"
_SCHEMES = tuple(f"{scheme}://" for scheme in BACKEND_OF_SCHEME)


def connect(
    url: str, *, incarnation: str | None = None, **options: Unpack[BusOptions]
) -> WorkerBus:
    """A bus for this URL, not yet started; nothing is connected here.

    What is not given is as in the topology whose `pbus up` started this program, where that is
    about this very bus; else as `BusSettings` says, and at-least-once on Postgres.

    Args:
        url: redis://, rediss:// or unix:// for Redis and Valkey, postgresql:// for PGMQ, memory://
            within the process.
        incarnation: Names this run of this process; random when not given.
        **options: `channel`, `max_message_bytes`, `encoding`, `key`, `encrypt`, `delivery`,
            `delivery_options`, `send_timeout` and `stats`; see `pbus.settings.BusSettings`.

    Raises:
        BusKeyError: The key cannot be used.
        BusUrlError: No backend has this scheme.
        BackendMissingError: The backend's driver is not installed.
        BusError: The backend has no such encoding.
    """
    bus = make_bus(BusSettings.for_url(url, options, os.environ), incarnation=incarnation)
    trace_if_configured(bus, os.environ)
    return bus


def make_bus(settings: BusSettings, *, incarnation: str | None = None) -> WorkerBus:
    """A bus with these settings, not yet started; nothing is taken from the environment.

    Raises:
        BusError: As `connect`.
    """
    url = settings.url or ""
    backend = _backend_of(url)
    if backend == "redis":
        with _needing_redis():
            from pbus.bus.redis import RedisBus
        return RedisBus(url=url, incarnation=incarnation, **settings.options())
    if backend == "pgmq":
        with _needing_asyncpg():
            from pbus.bus.pgmq import PgmqBus
        return PgmqBus(dsn=url, incarnation=incarnation, **settings.options())
    return AsyncQueueBus(
        channel=settings.channel, send_timeout=settings.send_timeout, stats=settings.stats
    )


def load_driver(backend: Backend) -> None:
    """Load what a backend needs, early: without other threads a driver is loaded sooner.

    Raises:
        BackendMissingError: The backend's driver is not installed.
    """
    if backend == "redis":
        with _needing_redis():
            from pbus.bus.redis import RedisBus  # noqa: F401 - only to have it
    elif backend == "pgmq":
        with _needing_asyncpg():
            from pbus.bus.pgmq import PgmqBus  # noqa: F401


async def erase(url: str, channel: str) -> bool:
    """Remove all that a channel keeps in a broker, unless processes use it; others' is not touched.

    Returns:
        Whether it did: not while there are leases or records that have not run out.

    Raises:
        BusUnavailableError: The broker is not reached, or refuses.
        BackendMissingError: The backend's driver is not installed.
        BusUrlError: No backend has this scheme.
    """
    backend = _backend_of(url)
    if backend == "redis":
        with _needing_redis():
            from pbus.bus.redis.erase import erase as erase_redis
        return await erase_redis(url, channel)
    if backend == "pgmq":
        with _needing_asyncpg():
            from pbus.bus.pgmq.erase import erase as erase_pgmq
        return await erase_pgmq(url, channel)
    return True


async def inspect_broker(url: str, channel: str) -> BrokerInfo:
    """Ask a broker what it is; nothing is written and nothing installed.

    Raises:
        BusUnavailableError: The broker is not reached, or refuses.
        BackendMissingError: The backend's driver is not installed.
        BusUrlError: No backend has this scheme.
    """
    if _backend_of(url) == "redis":
        with _needing_redis():
            from pbus.bus.redis.inspect_server import inspect_server as inspect_redis
        return await inspect_redis(url, channel)
    with _needing_asyncpg():
        from pbus.bus.pgmq.inspect_server import inspect_server as inspect_postgres
    return await inspect_postgres(url)


def _backend_of(url: str) -> Backend:
    backend = BACKEND_OF_SCHEME.get(url_scheme(url))
    if backend is None:
        raise BusUrlError(mask_url(url), _SCHEMES)
    return backend


@contextlib.contextmanager
def _needing_redis() -> Iterator[None]:
    try:
        with _without_metrics_sdk():
            yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"redis", "hiredis"}:
            raise BackendMissingError("Redis", str(error.name), "redis[hiredis]") from error
        raise


@contextlib.contextmanager
def _without_metrics_sdk() -> Iterator[None]:
    """Keep redis-py from loading OpenTelemetry's SDK, a tenth of the time of a process's start.

    It is loaded when metrics of redis-py are turned on. Another thread might import it meanwhile:
    where there is one, redis-py loads it.
    """
    if {_METRICS_SDK, "redis"} & sys.modules.keys() or threading.active_count() > 1:
        yield
        return
    modules = cast("dict[str, Any]", sys.modules)
    modules[_METRICS_SDK] = None  # importing it is an ImportError, which redis-py expects
    try:
        yield
    finally:
        del modules[_METRICS_SDK]


@contextlib.contextmanager
def _needing_asyncpg() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "asyncpg":
            raise BackendMissingError("PGMQ", "asyncpg", "asyncpg") from error
        raise
