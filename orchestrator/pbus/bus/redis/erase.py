"""Removing all that a channel keeps on a Redis server."""

from pbus.bus.redis.endpoint import TROUBLE, Endpoint, reason_of
from pbus.bus.redis.names import Names
from pbus.errors import BusUnavailableError

_AT_ONCE = 1000

# By the server's clock: how many leases and records have not run out.
_LIVING = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
  + redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')
"""


async def erase(url: str, channel: str) -> bool:
    """Remove the keys of a channel, unless processes use it; see `connect.erase`."""
    names = Names(channel)
    endpoint = Endpoint(url=url, redis=None, key=names.key(""))
    redis = endpoint.client(max_connections=1)
    try:
        if await redis.eval(_LIVING, 2, names.key("leases"), names.key("records")):
            return False
        async for key in redis.scan_iter(match=names.all_keys(), count=_AT_ONCE):
            await redis.unlink(key)
    except TROUBLE as error:
        raise BusUnavailableError(endpoint.url, reason_of(error)) from error
    finally:
        await redis.aclose(close_connection_pool=True)
    return True
