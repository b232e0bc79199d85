"""From a URL to a bus; the only place that loads a backend."""

from urllib.parse import urlsplit

from pbus.bus.base import WorkerBus
from pbus.bus.memory import AsyncQueueBus
from pbus.codec import DEFAULT_MAX_MESSAGE_BYTES, Encoding
from pbus.errors import BackendMissingError, BusUrlError
from pbus.urls import BACKEND_OF_SCHEME, mask_url

_SCHEMES = tuple(f"{scheme}://" for scheme in (*BACKEND_OF_SCHEME, "memory"))


def connect(
    url: str,
    *,
    channel: str = "pbus",
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    send_timeout: float = 10.0,
    incarnation: str | None = None,
    encoding: str = Encoding.JSON,
) -> WorkerBus:
    """A bus for this URL, not yet started; nothing is connected here.

    Args:
        url: redis://, rediss:// or unix:// for Redis and Valkey, memory:// within the process.
        channel: Processes on one channel hear each other.
        max_message_bytes: The largest encoded message.
        send_timeout: Seconds a send waits for room.
        incarnation: Names this life of this process; random when not given.
        encoding: How messages are written, "json" or "msgpack" (Redis only); both are read.

    Raises:
        BusUrlError: No backend has this scheme.
        BackendMissingError: The backend's driver is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return AsyncQueueBus(channel=channel, send_timeout=send_timeout)
    if BACKEND_OF_SCHEME.get(scheme) != "redis":
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
    )
