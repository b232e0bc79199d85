"""A primary found by its sentinels, and found again after a failover."""

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio.sentinel import Sentinel

from pbus import connect
from pbus.bus.redis import RedisBus
from pbus.errors import BusError, BusUnavailableError
from pbus.messages import BusDataMessage
from support.listeners import Listener
from support.sentinel import SERVICE, Watched
from support.waiting import run, until

pytestmark = pytest.mark.redis


class Memo(BusDataMessage):
    """A numbered message."""

    number: int


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """A service with a primary, a replica and sentinels."""
    with Watched() as watched:
        yield watched


def test_sentinels_that_know_nothing(watched: Watched, channel: str):
    """An unknown service is named; a client of a replica is refused."""
    host, port = watched.hosts[0]
    bus = connect(f"redis+sentinel://{host}:{port}/other", channel=channel)

    async def main() -> None:
        with pytest.raises(BusUnavailableError, match="no service 'other'"):
            await bus.start(timeout=1)
        with pytest.raises(BusError, match="master_for"):
            RedisBus(redis=Sentinel(watched.hosts).slave_for(SERVICE), channel=channel)

    run(main())


def test_failover(watched: Watched, channel: str):
    """By URL and by redis-py's client, with a database; when the primary dies all move on."""
    hosts = ",".join(f"{host}:{port}" for host, port in [("127.0.0.1", 1), *watched.hosts])
    url = f"redis+sentinel://{hosts}/{SERVICE}/1"

    async def main() -> None:
        client = Sentinel(watched.hosts).master_for(SERVICE, db=1)
        here, there = RedisBus(redis=client, channel=channel), connect(url, channel=channel)
        kept = connect(url, channel=channel, delivery="at-least-once", send_timeout=30)
        listener, keeper = Listener("w"), Listener("k")
        await there.subscribe(listener)
        await kept.subscribe(keeper)
        assert f"redis+sentinel://{SERVICE}" == here.url
        async with here, there, kept:
            await here.send(Memo(source="a", target="w", number=1))
            await listener.heard(1)
            await asyncio.to_thread(watched.primary.kill)
            await until(watched.is_promoted)
            await kept.send(Memo(source="a", target="k", number=2))
            await until(lambda: here.is_connected and there.is_connected)
            await here.send(Memo(source="a", target="w", number=3))
            await until(lambda: 3 in [one.number for one in listener.messages])
            await keeper.heard(1)
            await here.leases.put_record("r", b"x", ttl_s=60)
            assert {"r": b"x"} == await there.leases.records()

    run(main())
