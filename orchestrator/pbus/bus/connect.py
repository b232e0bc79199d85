"""From a URL to a bus; the only place that loads a backend."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.queues.consumer import DeliveryOptions
from pbus.bus.queues.store import MAX_BACKLOG, MAX_BACKLOG_BYTES
from pbus.codec import DEFAULT_MAX_MESSAGE_BYTES, Encoding
from pbus.errors import BackendMissingError, BusError, BusUrlError
from pbus.seal import ENCRYPT_VARIABLE, KEY_VARIABLE
from pbus.urls import BACKEND_OF_SCHEME, mask_url, url_scheme

_SCHEMES = tuple(f"{scheme}://" for scheme in BACKEND_OF_SCHEME)


def connect(
    url: str,
    *,
    channel: str = "pbus",
    max_message_bytes: int | None = None,
    send_timeout: float = 10.0,
    incarnation: str | None = None,
    encoding: str | None = None,
    delivery: str | None = None,
    delivery_options: DeliveryOptions | None = None,
    key: str | None = None,
    encrypt: bool | None = None,
) -> WorkerBus:
    """A bus for this URL, not yet started; nothing is connected here.

    What is not given is as in the topology whose `pbus up` started this program, where that is
    about this very bus.

    Args:
        url: redis://, rediss:// or unix:// for Redis and Valkey, postgresql:// for PGMQ, memory://
            within the process.
        channel: Processes on one channel hear each other.
        max_message_bytes: The largest encoded message; else 4 MiB.
        send_timeout: Seconds a send waits for room.
        incarnation: Names this life of this process; random when not given.
        encoding: How messages are written, "json" (else) or "msgpack" (Redis only); both are read.
        delivery: "at-most-once", or "at-least-once": kept in the broker until handled. Else the
            second on Postgres and the first elsewhere.
        delivery_options: How stored messages are treated, with at-least-once.
        key: Without it nothing can be written to the channel; several with commas between them: the
            first one seals, all open. Of no use on memory://.
        encrypt: Nothing can be read without the key either.

    Raises:
        BusKeyError: The key cannot be used.
        BusUrlError: No backend has this scheme.
        BackendMissingError: The backend's driver is not installed.
        BusError: The backend has no such encoding.
    """
    around = _env_of_bus(url, channel)
    if delivery is None:
        delivery, given = _given(around)
        delivery_options = delivery_options or given
    encoding = encoding or around.get("PBUS_ENCODING", Encoding.JSON)
    if max_message_bytes is None:
        max_message_bytes = int(around.get("PBUS_MAX_MESSAGE_BYTES", DEFAULT_MAX_MESSAGE_BYTES))
    if key is None:
        key = around.get(KEY_VARIABLE)
    if encrypt is None:
        encrypt = bool(key) and around.get(ENCRYPT_VARIABLE) == "1"
    backend = BACKEND_OF_SCHEME.get(url_scheme(url))
    if backend == "memory":
        return AsyncQueueBus(channel=channel, send_timeout=send_timeout)
    options: dict[str, Any] = {
        "channel": channel,
        "max_message_bytes": max_message_bytes,
        "send_timeout": send_timeout,
        "incarnation": incarnation,
        "delivery_options": delivery_options,
        "key": key,
        "encrypt": encrypt,
    }
    if delivery is not None:
        options["delivery"] = delivery
    if backend == "redis":
        return _redis_bus(url, encoding=encoding, **options)
    if backend == "pgmq":
        return _pgmq_bus(url, encoding, options)
    raise BusUrlError(mask_url(url), _SCHEMES)


async def erase(url: str, channel: str) -> bool:
    """Remove all that a channel keeps in a broker, unless processes use it; others' is not touched.

    Returns:
        Whether it did: not while there are leases or records that have not run out.

    Raises:
        BusUnavailableError: The broker is not reached, or refuses.
        BackendMissingError: The backend's driver is not installed.
        BusUrlError: No backend has this scheme.
    """
    backend = BACKEND_OF_SCHEME.get(url_scheme(url))
    if backend == "redis":
        with _needing_redis():
            from pbus.bus.redis.erase import erase as erase_redis
        return await erase_redis(url, channel)
    if backend == "pgmq":
        with _needing_asyncpg():
            from pbus.bus.pgmq.erase import erase as erase_pgmq
        return await erase_pgmq(url, channel)
    if backend == "memory":
        return True
    raise BusUrlError(mask_url(url), _SCHEMES)


def _redis_bus(url: str, **options: Any) -> WorkerBus:
    with _needing_redis():
        from pbus.bus.redis import RedisBus
    return RedisBus(url=url, **options)


@contextlib.contextmanager
def _needing_redis() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"redis", "hiredis"}:
            raise BackendMissingError("Redis", str(error.name), "redis[hiredis]") from error
        raise


@contextlib.contextmanager
def _needing_asyncpg() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "asyncpg":
            raise BackendMissingError("PGMQ", "asyncpg", "asyncpg") from error
        raise


def _pgmq_bus(url: str, encoding: str, options: dict[str, Any]) -> WorkerBus:
    if encoding != Encoding.JSON:
        raise BusError("encoding 'msgpack' is for Redis: on Postgres messages are JSON")
    with _needing_asyncpg():
        from pbus.bus.pgmq import PgmqBus
    return PgmqBus(dsn=url, **options)


class _DeliveryEnv(msgspec.Struct, frozen=True, kw_only=True):
    """What `pbus up` says about delivery to the programs that it starts."""

    mode: str | None = None
    max_attempts: int = 5
    max_crash_attempts: int = 3
    max_backlog: int = MAX_BACKLOG
    max_backlog_bytes: int = MAX_BACKLOG_BYTES
    when_full: str = "wait"


def _env_of_bus(url: str, channel: str) -> Mapping[str, str]:
    """What `pbus up` put into the environment of its programs, if it is about this very bus."""
    here = (os.environ.get("PBUS_URL"), os.environ.get("PBUS_CHANNEL"))
    return os.environ if here == (url, channel) else {}


def _given(around: Mapping[str, str]) -> tuple[str | None, DeliveryOptions]:
    """How messages are delivered; no mode where that is not said."""
    given = _DeliveryEnv()
    with contextlib.suppress(msgspec.MsgspecError):
        given = msgspec.json.decode(around.get("PBUS_DELIVERY", "{}"), type=_DeliveryEnv)
    options = DeliveryOptions(
        max_attempts=given.max_attempts,
        max_crash_attempts=given.max_crash_attempts,
        max_backlog=given.max_backlog,
        max_backlog_bytes=given.max_backlog_bytes,
        refuse_when_full=given.when_full == "refuse",
        declared=frozenset({around.get("PBUS_WORKER", "")}) - {""},
    )
    return given.mode, options
