"""Where the server is and how to connect: redis-py makes the connections, pbus keeps them."""

import socket
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from pbus.urls import mask_url

CONNECT_TIMEOUT_S = 3.0

TROUBLE = (RedisError, OSError, TimeoutError, EOFError)  # what a connection may end with
REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)  # trying again is no use

# What redis-py 8 adds so that a pool can move its connections: it is bound to that pool and to RESP3.
_POOL_OWN = ("maint_notifications_", "oss_cluster_", "orig_")


class Endpoint:
    """One server, from a URL or from a client the user made.

    Args:
        url: redis://, rediss:// or unix://.
        redis: A redis.asyncio.Redis; only its connection settings are used, it stays the user's.
    """

    def __init__(self, *, url: str | None, redis: "Redis | None") -> None:
        if redis is None:
            redis = Redis.from_url(url or "redis://localhost:6379")
        pool = redis.connection_pool
        self._class: type[AbstractConnection] = pool.connection_class
        self._settings: dict[str, Any] = {
            **{k: v for k, v in pool.connection_kwargs.items() if not k.startswith(_POOL_OWN)},
            "protocol": 2,
            "decode_responses": False,
            "retry": None,
            "retry_on_error": [],
            "retry_on_timeout": False,
            "health_check_interval": 0,  # the links look after themselves
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
        }
        self.url = mask_url(url) if url else self._describe()

    def connection(self) -> AbstractConnection:
        """A new connection, not yet connected."""
        return self._class(**self._settings)

    def client(self) -> "Redis":
        """A client for commands, with connections of its own and no retries of its own."""
        settings = {
            **self._settings,
            # No socket_timeout: redis-py would use asyncio.wait_for, which on Python 3.11 may swallow
            # a cancellation. Callers bound each call.
            "retry": Retry(NoBackoff(), 0),
            "socket_keepalive": True,
        }
        if "path" in settings:
            del settings["socket_keepalive"]
        pool = ConnectionPool(connection_class=self._class, max_connections=8, **settings)
        return Redis.from_pool(pool)

    def _describe(self) -> str:
        settings = self._settings
        if "path" in settings:
            return f"unix://{settings['path']}"
        return f"redis://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def reason_of(error: BaseException) -> str:
    """What went wrong, in the words a user needs."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        inner = cause.__cause__ or cause.__context__
        if inner is None or isinstance(inner, (KeyError, AttributeError)):
            break
        cause = inner
    if isinstance(error, (*REFUSALS, ResponseError)):
        return str(error)
    if isinstance(cause, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error) or type(error).__name__
