"""Redis Sentinel: the primary of a service is where its sentinels say."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from pbus.bus.redis.server.cluster import Node
from pbus.errors import BusError
from pbus.urls import split_url

logger = logging.getLogger(__name__)

_SENTINEL = "+sentinel://"
_PORT = 26379
_ASK_S = 1.0  # for each sentinel; the others may know


class Primary:
    """Knows the primary of one service.

    Args:
        service: What the sentinels call it.
        sentinels: Each makes a connection to one, not yet connected.

    Attributes:
        service: Its name.
        version: Another one when the primary is another server.
    """

    def __init__(self, service: str, sentinels: Sequence[Callable[[], AbstractConnection]]) -> None:
        self.version = 0
        self.service = service
        self._ask = deque(sentinels)  # in turn
        self._last: Node | None = None
        self._lock = asyncio.Lock()

    async def locate(self) -> Node:
        """The primary, as of now.

        Raises:
            RedisError: No sentinel answers, or none knows the service.
        """
        async with self._lock:
            reason = "none is named"
            for _ in range(len(self._ask)):
                try:
                    async with asyncio.timeout(_ASK_S):
                        return self._settle(await self._find(self._ask[0]()))
                except (RedisError, OSError, TimeoutError) as error:
                    reason = str(error) or "no answer in time"
                    self._ask.rotate(-1)
            raise RedisConnectionError(f"no sentinel tells the primary of {self.service}: {reason}")

    def invalidate(self) -> None:
        """The primary does not answer; sentinels are asked each time in any case."""

    async def _find(self, connection: AbstractConnection) -> Node:
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
            found = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        if not found:
            raise ResponseError(f"the sentinel knows no service {self.service!r}")
        return Node(found[0].decode(), int(found[1]))

    def _settle(self, node: Node) -> Node:
        if self._last is not None and self._last != node:
            self.version += 1
            logger.warning("the primary of %s is now %s:%d", self.service, *node)
        self._last = node
        return node


def plain_url(url: str) -> str:
    """The URL as redis-py reads it, which knows no sentinels: what it says of the primary."""
    if _SENTINEL not in url:
        return url
    parts = split_url(url.replace(_SENTINEL, "://", 1))
    user, at, _ = parts.netloc.rpartition("@")
    database = parts.path.strip("/").partition("/")[2]
    query = [pair for pair in parse_qsl(parts.query) if not pair[0].startswith("sentinel_")]
    plain = parts._replace(
        netloc=f"{user}{at}localhost", path=f"/{database}", query=urlencode(query)
    )
    return plain.geturl()


def plain_class(pool: Any) -> type[AbstractConnection]:
    """The class that connects: for sentinels not redis-py's own, which asks its pool.

    Raises:
        BusError: The client is of a replica.
    """
    kind: type[AbstractConnection] = pool.connection_class
    if not hasattr(pool, "sentinel_manager"):
        return kind
    if not pool.is_master:
        raise BusError("a replica cannot carry a bus", hint="use sentinel.master_for(...)")
    return SSLConnection if issubclass(kind, SSLConnection) else Connection


def primary_of(url: str | None, pool: Any, timeout_s: float) -> Primary | None:
    """The primary where a URL, or the client of a pool, goes by sentinels; else None."""
    if url is not None:
        return _of_url(url, pool, timeout_s) if _SENTINEL in url else None
    if not hasattr(pool, "sentinel_manager"):
        return None
    own = {"decode_responses": False, "protocol": 2}
    pools = [client.connection_pool for client in pool.sentinel_manager.sentinels]
    makers = [_maker(one.connection_class, {**one.connection_kwargs, **own}) for one in pools]
    return Primary(pool.service_name, makers)


def _of_url(url: str, pool: Any, timeout_s: float) -> Primary:
    parts = split_url(url)
    asked = dict(parse_qsl(parts.query))
    settings = {
        **{key: one for key, one in pool.connection_kwargs.items() if key.startswith("ssl_")},
        **{key: asked.get(f"sentinel_{key}") for key in ("username", "password")},
        "socket_connect_timeout": timeout_s,
        "protocol": 2,
    }
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    makers = [
        _maker(
            pool.connection_class,
            {**settings, "host": one.hostname or "localhost", "port": one.port or _PORT},
        )
        for one in hosts
    ]
    return Primary(unquote(parts.path.strip("/").partition("/")[0]), makers)


def _maker(kind: Any, settings: dict[str, Any]) -> Callable[[], AbstractConnection]:
    return lambda: kind(**settings)
