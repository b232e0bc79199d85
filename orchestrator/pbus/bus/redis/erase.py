"""Removing all that a channel keeps on a Redis server."""

import contextlib

from redis.exceptions import NoPermissionError

from pbus.bus.redis.keys import Keys
from pbus.bus.redis.scripts.common_lua import PRELUDE
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint, reason_of
from pbus.errors import BusUnavailableError

_AT_ONCE = 1000
_KEYS = (
    "queues",
    "leases",
    "records",
    "workers",
    "version",
    "changes",
    "record",
    "activations",
    "followed",
    "stats",
    "stat",
)

# Returns how many leases and records have not run out; removes the keys if there are none.
_ERASE = (
    PRELUDE
    + """
local living = 0
for i = 2, 3 do living = living + call('ZCOUNT', KEYS[i], '(' .. now, '+inf') end
if living > 0 then return living end
for _, box in ipairs(call('ZRANGE', boxes, 0, -1)) do remove(box) end
call('UNLINK', gone, touched, since, unpack(KEYS))
return 0
"""
)


async def erase(url: str, channel: str) -> bool:
    """Remove the keys of a channel, unless processes use it; see `connect.erase`."""
    names = Keys(channel)
    endpoint = Endpoint(url=url, redis=None, key=names.key(""))
    redis = endpoint.client(max_connections=1)
    try:
        if await redis.eval(_ERASE, len(_KEYS), *map(names.key, _KEYS)):
            return False
        with contextlib.suppress(NoPermissionError):  # it finds what the indexes have lost
            async for key in redis.scan_iter(match=names.all_keys(), count=_AT_ONCE):
                await redis.unlink(key)
    except TROUBLE as error:
        raise BusUnavailableError(endpoint.url, reason_of(error)) from error
    finally:
        await redis.aclose(close_connection_pool=True)
    return True
