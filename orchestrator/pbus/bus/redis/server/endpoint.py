"""The server's address and the way to connect: redis-py makes the connections, pbus keeps them."""

import asyncio
import logging
import socket
import ssl
import time
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from pbus.bus.redis.server.cluster import ChannelNode, Node, located
from pbus.bus.redis.server.sentinel import Primary, plain_class, plain_url, primary_of
from pbus.concurrency.forks import hold_connection
from pbus.urls import mask_url

try:
    from redis.driver_info import DriverInfo
except ImportError:  # an older redis-py
    _DRIVER: dict[str, Any] = {}
else:
    # Otherwise each connection reads and parses the metadata of its package.
    _DRIVER = {"driver_info": DriverInfo()}

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
_CLUSTER = "+cluster://"
_SAY_EVERY_S = 60.0
_LEAVE_EVERY_S = 1.0

TROUBLE = (RedisError, OSError, TimeoutError, EOFError)  # what a connection may end with
REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)  # trying again is no use
MOVING = (AskError, TryAgainError, ClusterDownError)  # what a cluster says while a slot migrates

# A timeout of asyncio comes from the cancellation that it made, other errors from a look-up.
_NO_REASONS = (KeyError, AttributeError, asyncio.CancelledError)

# What redis-py 8 adds so that a pool can move its connections: it is bound to that pool and to RESP3.
_POOL_OWN = ("maint_notifications_", "oss_cluster_", "orig_")


class Endpoint:
    """One server, from a URL or from a client the user made.

    Args:
        url: redis://, rediss:// or unix://; redis+cluster:// and rediss+cluster:// name any node of a
            cluster, redis+sentinel://host,host/service/db the sentinels of a service.
        redis: A redis.asyncio.Redis; only its connection settings are used, it stays the user's.
        key: Of a cluster, the node that has this key is meant.

    Raises:
        BusError: The client is of a sentinel's replica.
    """

    def __init__(self, *, url: str | None, redis: "Redis | None", key: str = "") -> None:
        url = url or (None if redis else "redis://localhost:6379")
        if redis is None:
            redis = Redis.from_url(plain_url(url or "").replace(_CLUSTER, "://", 1))
        pool = redis.connection_pool
        self._class: type[AbstractConnection] = _held(plain_class(pool))
        self._settings = _settings_of(pool, self._class)
        self.url = mask_url(url) if url else self._describe()
        self._node: ChannelNode | Primary | None = None
        self._left = 0  # how often we turned away from a replica
        self._left_at = float("-inf")
        self._said: dict[str, float] = {}
        self._locate(url, pool, key)

    def _locate(self, url: str | None, pool: Any, key: str) -> None:
        """Find the server by a cluster's nodes or by sentinels, where that is what the URL names."""
        if url and _CLUSTER in url:
            self._node = self._find_node(key)
        elif (primary := primary_of(url, pool, CONNECT_TIMEOUT_S)) is not None:
            self._node = primary
            self.url = self.url if url else f"redis+sentinel://{primary.service}"
        if self._node is not None:
            self._class = located(self._class, self._node)

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._settings.get("db") or 0)

    @property
    def may_move(self) -> bool:
        """Whether keys move from one server to another, as in a cluster."""
        return isinstance(self._node, ChannelNode)

    @property
    def version(self) -> int:
        """Another one when it is another server now: connections to the old one are to be left."""
        return self._left + (0 if self._node is None else self._node.version)

    def on_error_reply(self, reply: Exception) -> bool:
        """Follow a reply by which a server refers us to another, or takes no writes; returns False for others."""
        if isinstance(reply, MovedError) and isinstance(self._node, ChannelNode):
            self._node.moved(reply)
            return True
        if isinstance(reply, (ReadOnlyError, MasterDownError)) or "READONLY" in str(reply):
            self._leave(reply)
            return True
        return False

    def complain(self, error: BaseException) -> None:
        """Say what the server refuses, each reason once a minute."""
        reason, now = reason_of(error), time.monotonic()
        kind = reason[:40]
        if now >= self._said.get(kind, now):
            self._said[kind] = now + _SAY_EVERY_S
            logger.warning("the broker at %s refuses: %s; trying again", self.url, reason)

    def _leave(self, reply: Exception) -> None:
        """Connect again, as it is another server by now or will be soon: this one is a replica."""
        self.complain(reply)
        now = time.monotonic()
        if now - self._left_at >= _LEAVE_EVERY_S:
            self._left_at = now
            self._left += 1
            if self._node is not None:
                self._node.invalidate()

    def connection(self) -> AbstractConnection:
        """A new connection, not yet connected."""
        return self._class(**self._settings)

    def client(self, *, max_connections: int) -> "Redis":
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
        pool = ConnectionPool(
            connection_class=self._class, max_connections=max_connections, **settings
        )
        return Redis.from_pool(pool)

    def _find_node(self, key: str) -> ChannelNode:
        plain, settings = self._class, self._settings
        seed = Node(settings.get("host", "localhost"), settings.get("port", 6379))

        def connection(node: Node) -> AbstractConnection:
            return plain(**{**settings, **node._asdict()})

        return ChannelNode(seed, key, connection)

    def _describe(self) -> str:
        settings = self._settings
        if "path" in settings:
            return f"unix://{settings['path']}"
        return f"redis://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _settings_of(pool: Any, connection_class: type[AbstractConnection]) -> dict[str, Any]:
    """The settings of a pool's connections, as far as they are not pbus' own affair."""
    settings: dict[str, Any] = {
        **{k: v for k, v in pool.connection_kwargs.items() if not k.startswith(_POOL_OWN)},
        "protocol": 2,
        "decode_responses": False,
        "retry": None,
        "retry_on_error": [],
        "retry_on_timeout": False,
        "health_check_interval": 0,  # connections are watched here
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }
    if issubclass(connection_class, SSLConnection):
        # Before redis-py 6 a certificate of any host was as good as the server's own.
        settings.setdefault("ssl_check_hostname", _wants_certificate(settings))
    settings.pop("connection_pool", None)  # of a sentinel's client
    is_named = settings.keys() & {"driver_info", "lib_name", "lib_version"}
    return settings if is_named else {**settings, **_DRIVER}


def _wants_certificate(settings: dict[str, Any]) -> bool:
    """Whether the server has to show a certificate that is good; so it is unless said otherwise."""
    return settings.get("ssl_cert_reqs", "required") in {"required", ssl.CERT_REQUIRED}


def _held(base: type[AbstractConnection]) -> type[AbstractConnection]:
    """A connection class whose connections are this process' own: a forked child has none."""

    class HeldConnection(base):  # type: ignore[misc,valid-type]
        async def _connect(self) -> None:
            await super()._connect()
            hold_connection(self, _transport_of)

    return HeldConnection


def _transport_of(connection: AbstractConnection) -> asyncio.BaseTransport | None:
    writer = connection._writer  # noqa: SLF001 - redis-py has no other way to it
    return None if writer is None else writer.transport


def reason_of(error: BaseException) -> str:
    """Say what went wrong, in the words a user needs."""
    cause = _first_cause(error)
    if isinstance(error, MovedError):
        return "another node of the cluster has this channel's keys (use redis+cluster://)"
    if isinstance(error, (*REFUSALS, ResponseError)):
        return str(error)
    if isinstance(cause, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror}: {cause.filename}" if cause.filename else cause.strerror
    return str(error) or type(error).__name__


def _first_cause(error: BaseException) -> BaseException:
    inner = error.__cause__ or error.__context__
    while inner is not None and not isinstance(inner, _NO_REASONS):
        error, inner = inner, inner.__cause__ or inner.__context__
    return error
