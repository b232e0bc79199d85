"""From a URL to a bus; the only place that loads a backend."""

from urllib.parse import urlsplit

from pbus.bus.base import WorkerBus
from pbus.bus.mailroom import DeliveryOptions
from pbus.bus.memory import AsyncQueueBus
from pbus.codec import DEFAULT_MAX_MESSAGE_BYTES, Encoding
from pbus.errors import BackendMissingError, BusUrlError
from pbus.urls import BACKEND_OF_SCHEME, mask_url

_SCHEMES = tuple(f"{scheme}://" for scheme in BACKEND_OF_SCHEME)


def connect(
    url: str,
    *,
    channel: str = "pbus",
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    send_timeout: float = 10.0,
    incarnation: str | None = None,
    encoding: str = Encoding.JSON,
    delivery: str = "at-most-once",
    mail_options: DeliveryOptions | None = None,
) -> WorkerBus:
    """A bus for this URL, not yet started; nothing is connected here.

    Args:
        url: redis://, rediss:// or unix:// for Redis and Valkey, memory:// within the process.
        channel: Processes on one channel hear each other.
        max_message_bytes: The largest encoded message.
        send_timeout: Seconds a send waits for room.
        incarnation: Names this life of this process; random when not given.
        encoding: How messages are written, "json" or "msgpack" (Redis only); both are read.
        delivery: "at-most-once", or "at-least-once": kept in the broker until handled.
        mail_options: How stored messages are treated, with at-least-once.

    Raises:
        BusUrlError: No backend has this scheme.
        BackendMissingError: The backend's driver is not installed.
    """
    backend = BACKEND_OF_SCHEME.get(urlsplit(url).scheme)
    if backend == "memory":
        return AsyncQueueBus(channel=channel, send_timeout=send_timeout)
    if backend != "redis":
        raise BusUrlError(mask_url(url), _SCHEMES)
    try:
        from pbus.bus.redis import RedisBus
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"redis", "hiredis"}:
            raise BackendMissingError("Redis", str(error.name), "redis[hiredis]") from error
        raise
    return RedisBus(
        url=url,
        channel=channel,
        max_message_bytes=max_message_bytes,
        send_timeout=send_timeout,
        incarnation=incarnation,
        encoding=encoding,
        delivery=delivery,
        mail_options=mail_options,
    )
