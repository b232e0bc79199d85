"""Facts about a Redis server, with rights that every user has."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from pbus.bus.broker_info import BrokerInfo
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.server.endpoint import CONNECT_TIMEOUT_S, REFUSALS, TROUBLE, Endpoint, reason_of
from pbus.errors import BrokerRefusedError, BusUnavailableError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TRIES = 3
_PRODUCTS = {"redis": "Redis", "valkey": "Valkey"}


async def inspect_server(url: str, channel: str) -> BrokerInfo:
    """Ask a server what it is; see `connect.inspect_broker`."""
    endpoint = Endpoint(url=url, redis=None, key=Keys(channel).key(""))
    redis = endpoint.client(max_connections=1)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await _ask(redis)
    except REFUSALS as error:
        raise BrokerRefusedError(endpoint.url, reason_of(error)) from error
    except TROUBLE as error:
        raise BusUnavailableError(endpoint.url, reason_of(error)) from error
    finally:
        await redis.aclose(close_connection_pool=True)


async def _ask(redis: "Redis") -> BrokerInfo:
    product, version = await _identity(redis)
    latencies, ahead_s = [], 0.0
    for _ in range(_TRIES):
        before = time.monotonic()
        seconds, micros = await redis.time()
        latencies.append(time.monotonic() - before)
        if latencies[-1] == min(latencies):
            ahead_s = seconds + micros / 1e6 - time.time() + latencies[-1] / 2
    return BrokerInfo(
        product=product,
        version=version,
        latency_s=min(latencies),
        ahead_s=ahead_s,
        may_evict=await _policy(redis),
    )


async def _identity(redis: "Redis") -> tuple[str, str]:
    with contextlib.suppress(ResponseError):  # an older server
        reply: Any = await redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
        words = [one.decode() if isinstance(one, bytes) else one for one in reply]
        facts = dict(zip(words[::2], words[1::2], strict=False))
        name = str(facts.get("server", "redis"))
        return _PRODUCTS.get(name, name), str(facts.get("version", "unknown"))
    return "Redis", "5 or older"


async def _policy(redis: "Redis") -> str | None:
    with contextlib.suppress(ResponseError):  # few may ask
        found: Any = await redis.config_get("maxmemory*")
        if int(found.get("maxmemory", 0)) and found.get("maxmemory-policy") != "noeviction":
            return str(found["maxmemory-policy"])
    return None
