"""Lease stores of every backend, and ways to let their time pass."""

import contextlib
from collections.abc import AsyncIterator

from pbus.bus.memory_leases import MemoryLeaseStore
from pbus.bus.pgmq import Endpoint, HealingConnection, PgLeaseStore
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.leases import RedisLeaseStore
from pbus.bus.redis.server.endpoint import Endpoint as RedisEndpoint
from pbus.leases import LeaseStore


class MemoryLeases:
    """Stores of one process share one, by a clock that the test moves."""

    def __init__(self) -> None:
        self._now = 0.0
        self._stores: dict[str, LeaseStore] = {}

    @contextlib.asynccontextmanager
    async def __call__(self, suffix: str = "") -> AsyncIterator[LeaseStore]:
        yield self._stores.setdefault(suffix, MemoryLeaseStore(lambda: self._now))

    async def pass_time(self, store: LeaseStore, seconds: float) -> None:
        """Let leases age."""
        del store
        self._now += seconds


class RedisLeases:
    """Stores on a server, where leases can be made older."""

    def __init__(self, url: str, channel: str) -> None:
        self._endpoint = RedisEndpoint(url=url, redis=None)
        self._channel = channel

    @contextlib.asynccontextmanager
    async def __call__(self, suffix: str = "") -> AsyncIterator[LeaseStore]:
        store = RedisLeaseStore(self._endpoint, Keys(self._channel + suffix))
        try:
            yield store
        finally:
            await store.close()

    async def pass_time(self, store: LeaseStore, seconds: float) -> None:
        """Let leases age."""
        for key in (store._keys[0], store._record_keys[0], store._stats_keys[0]):
            for name in await store._redis.zrange(key, 0, -1):
                await store._redis.zincrby(key, -1000 * seconds, name)


class PgLeases:
    """Stores in a database, where leases can be made older."""

    def __init__(self, url: str, channel: str) -> None:
        self._endpoint = Endpoint(dsn=url)
        self._channel = channel

    @contextlib.asynccontextmanager
    async def __call__(self, suffix: str = "") -> AsyncIterator[LeaseStore]:
        link = HealingConnection(self._endpoint, "test")
        try:
            yield PgLeaseStore(link, self._channel + suffix)
        finally:
            await link.close()

    async def pass_time(self, store: LeaseStore, seconds: float) -> None:
        """Let leases age."""
        for table in ("lease", "record", "stats"):
            sql = f"UPDATE pbus.{table} SET ends_at = ends_at - $1::float8 * interval '1 s'"
            await store._link.call(sql, seconds)
