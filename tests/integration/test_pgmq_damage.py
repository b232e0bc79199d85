"""Tables and queues of pbus are dropped, purged or truncated under running processes."""

import asyncio
import contextlib
import logging

import pytest

from pbus.bus import connect
from pbus.bus.pgmq.server.endpoint import Endpoint
from pbus.messages import BusDataMessage, BusSystemMessage
from pbus.settings import DeliveryOptions
from support.listeners import Listener
from support.postgres import query
from support.waiting import PATIENCE_S, run

pytestmark = pytest.mark.pgmq

ONE_QUEUE = "SELECT base FROM pbus.queue WHERE channel = $1 AND name = 'idle'"
TABLES = """SELECT string_agg(format('pbus.%I', relname), ', ') FROM pg_class
  WHERE relnamespace = 'pbus'::regnamespace AND relkind = 'r'"""


class Ring(BusDataMessage):
    """A numbered message that is kept."""

    number: int


class Bell(BusSystemMessage):
    """A numbered message that is not kept."""

    number: int


async def drop_queue(url, channel):
    ((queue,),) = await query(url, ONE_QUEUE, channel)
    await query(url, "SELECT pgmq.drop_queue($1)", f"{queue}_d")


async def purge_queue(url, channel):
    ((queue,),) = await query(url, ONE_QUEUE, channel)
    await query(url, "SELECT pgmq.purge_queue($1)", f"{queue}_d")


async def drop_functions(url, channel):
    ((queue,),) = await query(url, ONE_QUEUE, channel)
    await query(url, f"DROP FUNCTION pbus.fetch_{queue}, pbus.put_{queue}")
    await query(url, "TRUNCATE pbus.enqueued_count, pbus.dequeued_count")


async def truncate_all(url, channel):
    ((tables,),) = await query(url, TABLES)
    await query(url, f"TRUNCATE {tables} RESTART IDENTITY")


async def drop_table(url, channel):
    await query(url, "DROP TABLE pbus.in_flight, pbus.peer, pbus.sender_stream")


async def drop_pbus(url, channel):
    await query(url, "DROP SCHEMA pbus CASCADE")


async def drop_pgmq(url, channel):
    await query(url, "DROP SCHEMA pgmq CASCADE")


DAMAGES = [
    drop_queue, purge_queue, drop_functions, truncate_all, drop_table, drop_pbus, drop_pgmq,
]  # fmt: skip


class Pair:
    """A process that sends, and one with a worker."""

    def __init__(self, url, channel) -> None:
        delivery_options = DeliveryOptions(declared=frozenset({"w", "idle"}))
        self.here, self.there = (
            connect(url, channel=channel, delivery_options=delivery_options) for _ in "12"
        )
        self.worker, self.idle = Listener("w"), Listener("idle")
        self.number = 0

    async def arrives(self, kind, target) -> None:
        """Send again and again, as users do, until one of this kind arrives."""
        self.number += 1
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.here.send(kind(source="a", target=target, number=self.number))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        while not self.has(kind):
                            await asyncio.sleep(0.005)
                        return

    async def is_settled(self) -> None:
        """Wait until nothing is stored any more."""
        async with asyncio.timeout(PATIENCE_S):
            while any(one.backlog for one in await self.here.queues.stats()):
                await asyncio.sleep(0.01)

    def has(self, kind) -> bool:
        return any(
            isinstance(message, kind) and message.number == self.number
            for message in self.worker.messages
        )


def test_damage_heals(database, channel, caplog):
    """Within seconds all is there again: both ways, both lanes, broadcasts, leases; and it is said."""

    async def main():
        pair = Pair(database, channel)
        async with pair.here, pair.there:
            await pair.there.queues.open("idle", durable=True)
            await pair.there.subscribe(pair.worker)
            for damage in DAMAGES:
                await pair.is_settled()
                await pair.here.send(Ring(source="a", target="idle", number=0))
                await damage(database, channel)
                for target in ("w", None):
                    for kind in (Ring, Bell):
                        await pair.arrives(kind, target)
                await pair.there.queues.open("idle", durable=True)  # a supervisor does, every beat
                assert await pair.there.leases.leases() == []
                await pair.there.subscribe(pair.idle)  # what is stored can all be taken
                await pair.is_settled()
                await pair.there.unsubscribe(pair.idle)

    with caplog.at_level(logging.WARNING):
        run(main(), timeout=50)
    assert "a bug in pbus" not in caplog.text


def test_building_is_announced(database):
    """Whatever makes or mends tables says so before it begins: it may take minutes."""
    begun = []

    @contextlib.contextmanager
    def building():
        begun.append("begun")
        yield
        begun.append("ended")

    async def main():
        endpoint = Endpoint(dsn=database)
        for is_damaged, expected in ((False, 2), (False, 2), (True, 4)):
            connection = await endpoint.connect(is_damaged=is_damaged, building=building)
            await endpoint.close(connection)
            assert ["begun", "ended"] * (expected // 2) == begun

    run(main())
