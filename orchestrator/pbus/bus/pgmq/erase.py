"""Removing all that a channel keeps in a database."""

import asyncio

from pbus.bus.pgmq.server import installation
from pbus.bus.pgmq.server.endpoint import CONNECT_TIMEOUT_S, TROUBLE, Endpoint, failure
from pbus.errors import BusUnavailableError

_ERASE_S = 60.0


async def erase(url: str, channel: str) -> bool:
    """Remove rows and queues of a channel, unless processes use it; see `connect.erase`."""
    endpoint = Endpoint(dsn=url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            bare = await endpoint.connect_bare()
            try:
                is_known = await installation.is_installed(bare)
            finally:
                await endpoint.close(bare)
        if not is_known:
            return True
        connection = await endpoint.connect()
        try:
            async with asyncio.timeout(_ERASE_S):
                await connection.execute(f"SET statement_timeout = {_ERASE_S * 1000:.0f}")
                return bool(await connection.fetchval("SELECT pbus.channel_erase($1)", channel))
        finally:
            await endpoint.close(connection)
    except BusUnavailableError:
        raise
    except TROUBLE as error:
        raise failure(endpoint.url, error) from error
