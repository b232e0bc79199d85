"""Removing from the broker what another system left there under the channels of a measurement."""

from collections.abc import Iterable

import asyncpg
from redis.asyncio import Redis

from pbus.urls import BACKEND_OF_SCHEME, url_scheme

_AT_ONCE = 1_000


def schema_of(channel: str) -> str:
    """The schema of Postgres for a channel."""
    return channel.replace(":", "_").replace("-", "_").lower()


async def remove_left_behind(url: str, channels: Iterable[str]) -> None:
    """Remove keys with a channel in their names, or the schemas of the channels.

    Call it once the processes of the other systems have ended.
    """
    if BACKEND_OF_SCHEME.get(url_scheme(url)) == "pgmq":
        await _drop_schemas(url, channels)
    else:
        await _remove_keys(url, channels)


async def _drop_schemas(url: str, channels: Iterable[str]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for channel in channels:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema_of(channel)} CASCADE")
    finally:
        await connection.close()


async def _remove_keys(url: str, channels: Iterable[str]) -> None:
    async with Redis.from_url(url) as redis:
        for channel in channels:
            found = [key async for key in redis.scan_iter(f"*{channel}*", count=_AT_ONCE)]
            for first in range(0, len(found), _AT_ONCE):
                await redis.unlink(*found[first : first + _AT_ONCE])
