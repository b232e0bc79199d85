"""Facts about a Postgres server and what pbus has in it; nothing is installed."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from asyncpg.exceptions import InsufficientPrivilegeError

from pbus.bus.broker_info import BrokerInfo
from pbus.bus.pgmq.server import installation
from pbus.bus.pgmq.server.endpoint import CONNECT_TIMEOUT_S, TROUBLE, Endpoint, failure
from pbus.errors import BusUnavailableError

if TYPE_CHECKING:
    import asyncpg

_TRIES = 3


async def inspect_server(url: str) -> BrokerInfo:
    """Ask a server what it is; see `connect.inspect_broker`."""
    endpoint = Endpoint(dsn=url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await endpoint.connect_bare()
            try:
                return await _ask(connection)
            finally:
                await endpoint.close(connection)
    except BusUnavailableError:
        raise
    except TROUBLE as error:
        raise failure(endpoint.url, error) from error


async def _ask(connection: "asyncpg.Connection[Any]") -> BrokerInfo:
    latencies, ahead_s = [], 0.0
    for _ in range(_TRIES):
        before = time.monotonic()
        now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        latencies.append(time.monotonic() - before)
        if latencies[-1] == min(latencies):
            ahead_s = now - time.time() + latencies[-1] / 2
    version = await connection.fetchval("SELECT current_setting('server_version')")
    return BrokerInfo(
        product="Postgres",
        version=str(version).split(" ")[0],
        latency_s=min(latencies),
        ahead_s=ahead_s,
        pgmq=await _pgmq(connection),
        schema=await installation.state_of(connection),
    )


async def _pgmq(connection: "asyncpg.Connection[Any]") -> str:
    """The version of the extension; "SQL" where its SQL alone is there, or "missing"."""
    version: str | None = await connection.fetchval(
        "SELECT extversion FROM pg_extension WHERE extname = 'pgmq'"
    )
    if version is not None:
        return version
    try:
        return "SQL" if await installation.has_pgmq(connection) else "missing"
    except InsufficientPrivilegeError:  # its schema is there, for the functions of pbus alone
        return "SQL"
