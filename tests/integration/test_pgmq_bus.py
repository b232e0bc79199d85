"""What other buses on PGMQ get wrong, on a real Postgres."""

import asyncio
import contextlib

import pytest
from pgmq.async_queue import PGMQueue

from pbus import PgmqBus
from pbus.bus import connect
from pbus.bus.pgmq import fetcher, transport
from pbus.bus.pgmq.connections import ConnectionPair
from pbus.bus.pgmq.server.endpoint import Endpoint
from pbus.bus.pgmq.transport import PgTransport
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import MessageEncodeError
from pbus.messages import BusDataMessage, BusSystemMessage, BusWorkerRegistryMessage
from pbus.registry import WorkerRegistry
from pbus.settings import DeliveryOptions
from support.listeners import Listener
from support.postgres import query
from support.waiting import PATIENCE_S, happens, run, until

pytestmark = pytest.mark.pgmq

ONCE, KEPT = "at-most-once", "at-least-once"
both = pytest.mark.parametrize("delivery", [ONCE, KEPT])


class Tally(BusDataMessage):
    """A numbered message."""

    number: int


class Foghorn(BusSystemMessage):
    """Overtakes; never stored."""

    number: int


class LargeShipment(BusDataMessage):
    """Carries anything."""

    content: object


class Office(BusSubscriber):
    """A registry on a bus, as a runner has it, that waits for one worker."""

    def __init__(self, name, bus, awaited):
        self.name = name
        self.met = asyncio.Event()
        self._bus = bus
        self._registry = WorkerRegistry(name, bus, "session")
        self._awaited = awaited

    def accepts_bus_message(self, message):
        return isinstance(message, BusWorkerRegistryMessage)

    async def on_bus_message(self, message):
        self._registry.on_announcement(message)

    async def open(self, worker):
        await self._bus.start()
        await self._bus.subscribe(self)
        await self._registry.start()
        self._registry.watch(self._awaited, self._note)
        await self._registry.register(self._registry.new_lease(worker))
        await self._registry.set_ready(worker)

    async def close(self):
        await self._registry.stop()
        await self._bus.stop()

    async def _note(self, data):
        self.met.set()


def tallies(messages) -> list[int]:
    """The numbers among messages."""
    return [message.number for message in messages if isinstance(message, (Tally, Foghorn))]


@pytest.fixture
def make_bus(shared_database, channel):
    """Makes buses of one channel, each as if in another process."""
    return lambda **options: connect(shared_database, channel=channel, **options)


async def count(url, sql, *arguments) -> int:
    """What a query counts."""
    rows = await query(url, sql, *arguments)
    return int(rows[0][0])


@pytest.mark.parametrize("attempt", range(3))
def test_w31_simultaneous_starts_meet(make_bus, attempt):
    """Two runners that start at the same time know each other's workers."""

    async def main():
        offices = [Office(f"r{at}", make_bus(), f"w{1 - at}") for at in range(2)]
        try:
            await asyncio.gather(*(office.open(f"w{at}") for at, office in enumerate(offices)))
            for office in offices:
                await happens(office.met)
        finally:
            for office in offices:
                await office.close()

    run(main())


def test_w33_client_of_today_serves(channel, shared_database):
    """The pgmq client of today is taken, and none of its listings is needed."""

    async def main():
        where = (await query(shared_database, "SHOW unix_socket_directories"))[0][0]
        name = (await query(shared_database, "SELECT current_database(), current_user"))[0]
        queue = PGMQueue(
            host=where, port="5432", database=name[0], username=name[1], password="",
            init_extension=False,
        )  # fmt: skip
        listener = Listener("w")
        async with PgmqBus(pgmq=queue, channel=channel) as bus:
            await bus.subscribe(listener)
            await bus.send(Tally(source="a", target="w", number=1))
            assert [1] == tallies(await listener.heard(1))

    run(main())


def test_w46_unhandled_messages_outlive_process(make_bus):
    """What a process had taken and not handled when it died is handled by its successor, in order."""

    async def main():
        delivery_options = DeliveryOptions(declared=frozenset({"w"}))
        here, dead = make_bus(), make_bus(incarnation="dead-1", delivery_options=delivery_options)
        seen = []

        async def handle(message):
            if len(seen) == 5:
                await asyncio.Event().wait()
            seen.append(message.number)

        async with here:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(dead)
                await dead.subscribe(Listener("w", handle))
                for number in range(20):
                    await here.send(Tally(source="a", target="w", number=number))
                await until(lambda: len(seen) == 5)
                await until_settled(here, 15)
            late = Listener("w")
            async with make_bus(delivery_options=delivery_options) as successor:
                await successor.subscribe(late)
                assert list(range(5, 20)) == sorted(tallies(await late.heard(15)))
        assert list(range(5)) == seen

    async def until_settled(bus, left):
        async with asyncio.timeout(PATIENCE_S):
            while [left] != [one.backlog for one in await bus.queues.stats() if one.name == "w"]:
                await asyncio.sleep(0.01)

    run(main())


def test_w47_repeats_are_handled_once(make_bus):
    """A message stored, or given back, twice is handled once: handled ids are remembered."""

    async def main():
        listener = Listener("w")
        async with make_bus() as here, make_bus() as there:
            await there.subscribe(listener)
            message = Tally(source="a", target="w", number=1)
            await here.send(message)
            await listener.heard(1)
            async with asyncio.timeout(PATIENCE_S):  # until it is settled
                while any(one.backlog for one in await here.queues.stats()):
                    await asyncio.sleep(0.01)
            await here.send(message)  # the same id
            await here.send(Tally(source="a", target="w", number=2))
            assert [1, 2] == tallies(await listener.heard(2))

    run(main())


@both
@pytest.mark.parametrize(
    "names", [("p", "p_other"), ("a:b", "a/b"), ("x" * 60 + "1", "x" * 60 + "2")]
)
def test_w48_channels_keep_apart(shared_database, channel, names, delivery):
    """Channels whose names begin alike, or differ in one sign only, do not hear each other."""

    async def main():
        first, second = (
            connect(shared_database, channel=f"{channel}{name}", delivery=delivery)
            for name in names
        )
        own, other = Listener("w"), Listener("w")
        async with first, second:
            await first.subscribe(own)
            await second.subscribe(other)
            for number in range(3):
                await first.send(Tally(source="a", number=number))
                await first.send(Foghorn(source="a", number=number))
            await second.send(Tally(source="a", target="w", number=9))
            await second.send(Foghorn(source="a", number=9))
            assert [0, 0, 1, 1, 2, 2] == sorted(tallies(await own.heard(6)))
            assert [9, 9] == tallies(await other.heard(2))

    run(main())


@both
@pytest.mark.parametrize(
    "content",
    [
        "nul \0 inside",
        {"key\0": [1]},
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        1e308,
        "snow ☃ 𝄞",
        "\x7f\x1b",
    ],
)
def test_w49_awkward_values_arrive(make_bus, content, delivery):
    """What jsonb would refuse or change arrives as it was sent."""

    async def main():
        listener = Listener("w")
        async with make_bus(delivery=delivery) as here, make_bus(delivery=delivery) as there:
            await there.subscribe(listener)
            await here.send(LargeShipment(source="a", target="w", content=content))
            (message,) = await listener.heard(1)
            assert content == message.content

    run(main())


@pytest.mark.parametrize("content", ["\ud800", float("nan"), float("inf")])
def test_w49_impossible_values_refused(make_bus, content):
    """What no JSON reader could restore is an error at the sender that names the field."""

    async def main():
        async with make_bus() as bus:
            with pytest.raises(MessageEncodeError, match="content"):
                await bus.send(LargeShipment(source="a", target="w", content=content))

    run(main())


@both
def test_w50_no_waiting_for_polls(make_bus, monkeypatch, delivery):
    """Messages there and back need no poll: the server wakes who is concerned."""
    monkeypatch.setattr(transport, "_POLL_S", 1000.0)
    monkeypatch.setattr(fetcher, "POLL_S", 1000.0)
    monkeypatch.setattr("pbus.bus.queues.consumer.WAIT_S", 1000.0)

    async def main():
        here, there = make_bus(delivery=delivery), make_bus(delivery=delivery)
        answers = Listener("a")

        async def answer(message):
            await there.send(type(message)(source="w", target="a", number=message.number))

        async with here, there:
            await here.subscribe(answers)
            await there.subscribe(Listener("w", answer))
            for number in range(20):
                kind = Foghorn if number % 2 else Tally
                await here.send(kind(source="a", target="w", number=number))
                assert number == tallies(await answers.heard(number + 1))[-1]

    run(main())


@both
def test_w54_newcomers_miss_nothing(make_bus, delivery):
    """What is sent after a subscription was confirmed arrives, all of it."""

    async def main():
        async with make_bus(delivery=delivery) as here, make_bus(delivery=delivery) as there:
            for round_ in range(5):
                listener = Listener(f"w{round_}")
                noise = asyncio.create_task(chat(here))
                await there.subscribe(listener)
                for number in range(10):
                    kind = Foghorn if number % 2 else Tally
                    await here.send(kind(source="me", target=listener.name, number=number))
                await until(lambda heard=listener: mine(heard) == list(range(10)))
                noise.cancel()
                await asyncio.gather(noise, return_exceptions=True)

    async def chat(bus):
        while True:
            await bus.send(Tally(source="others", number=-1))

    def mine(listener):
        return sorted(message.number for message in listener.messages if message.source == "me")

    run(main())


def test_w55_dead_receivers_are_swept(shared_database, channel):
    """Messages for processes that died are removed with their lease, and no more are sent to them."""
    waiting = """SELECT count(*) FROM pbus.stream_payload w JOIN pbus.peer p ON p.id = w.peer
      WHERE p.channel = $1"""
    peers = "SELECT count(*) FROM pbus.peer WHERE channel = $1"
    pass_time = """UPDATE pbus.peer SET ends_at = now()
      WHERE channel = $1 AND name LIKE 'dead%'"""

    async def main():
        dead_lines = ConnectionPair(Endpoint(dsn=shared_database), channel)
        dead_lines.acquire()
        for number in range(3):
            await PgTransport(dead_lines, f"dead{number}", lambda *_: None, lease_s=1000.0).open()
        async with connect(shared_database, channel=channel) as here:
            for number in range(50):
                await here.send(Foghorn(source="a", number=number))
                await asyncio.sleep(0)
            await until_count(waiting, above=0)
            await query(shared_database, pass_time, channel)
            await until_count(peers, exactly=1)
            await until_count(waiting, exactly=0)
        await dead_lines.release()

    async def until_count(sql, *, above=None, exactly=None):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await count(shared_database, sql, channel)
                if found == exactly or (above is not None and found > above):
                    return
                await asyncio.sleep(0.02)

    run(main())


def test_released_process_is_forgotten_at_once(shared_database, channel):
    """The supervisor's word that a process died ends what is sent to it, lease or not."""

    async def main():
        lines = ConnectionPair(Endpoint(dsn=shared_database), channel)
        lines.acquire()
        await PgTransport(lines, "child-abc", lambda *_: None, lease_s=1000.0).open()
        async with connect(shared_database, channel=channel) as here:
            await here.leases.release(["child"])
            peers = "SELECT count(*) FROM pbus.peer WHERE channel = $1"
            assert 1 == await count(shared_database, peers, channel)
        await lines.release()

    run(main())


def test_follower_misses_are_counted(shared_database, channel, make_bus):
    """A follower who does not fetch gets no more than a bounded number, and is told how many not."""

    async def main():
        lines = ConnectionPair(Endpoint(dsn=shared_database), channel)
        lines.acquire()
        taken = []
        follower = PgTransport(lines, "f", lambda _, payload: taken.append(payload), follows=True)
        await follower.open()
        fill = """INSERT INTO pbus.stream_payload (peer, rank, payload)
          SELECT p.id, 2, 'x' FROM pbus.peer p, generate_series(1, 5000)
           WHERE p.channel = $1 AND p.is_follower"""
        await query(shared_database, fill, channel)
        async with make_bus() as here:
            await here.subscribe(Listener("w"))
            for number in range(7):
                await here.send(Tally(source="a", target="w", number=number))
            reading = asyncio.create_task(follower.run())
            await until(lambda: follower.missed == 7)
            await until(lambda: len(taken) >= 5000)
            await here.send(Tally(source="a", target="w", number=7))
            await until(lambda: any(b'"number":7' in payload for payload in taken))
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await follower.close()
        await lines.release()

    run(main())


@both
def test_followers_leave_nothing_behind(shared_database, channel, make_bus, delivery):
    """A tap sees both lanes, stored messages too, and is gone when it ends."""

    async def main():
        async with make_bus(delivery=delivery) as here:
            await here.subscribe(Listener("w"))
            async with here.tap() as tap:
                await here.send(Tally(source="a", target="w", number=1))
                await here.send(Foghorn(source="a", number=2))
                await here.send(Tally(source="a", target="nobody", number=3))
                seen = set()
                async with asyncio.timeout(PATIENCE_S):
                    async for item in tap:
                        seen.add((item.header.type, item.lane, item.header.target))
                        if len(seen) == 3:
                            break
            expected = {("Tally", "d", "w"), ("Foghorn", "s", None), ("Tally", "d", "nobody")}
            assert expected == seen
            assert 0 == tap.missed
            followers = "SELECT count(*) FROM pbus.peer WHERE channel = $1 AND is_follower"
            assert 0 == await count(shared_database, followers, channel)

    run(main())


def test_first_take_of_dead_gets_nothing(make_bus, shared_database, channel):
    """A take that comes after its process was said to be dead, its first one too, is refused."""

    async def main():
        async with make_bus() as here:
            await here.queues.requeue_held_by(["dead"])
            take = "SELECT * FROM pbus.queue_fetch($1, 'dead-7', '{w}', '{d}', '{1}', NULL, false, 30.0)"
            with pytest.raises(Exception, match="taken for dead"):
                await query(shared_database, take, channel)

    run(main())


def test_handled_ids_are_looked_up(database, channel):
    """Ids are looked up by id for a queue that is younger than the server's statistics, too."""

    async def main():
        async with connect(database, channel=channel) as bus:
            fill = """INSERT INTO pbus.handled
              SELECT 1000 + n % 3, 'id' || n, now() FROM generate_series(1, 3000) n"""
            await query(database, fill)
            await query(database, "ANALYZE pbus.handled")
            ask = """EXPLAIN SELECT (SELECT true FROM pbus.handled d
              WHERE d.queue_id = 2000 AND d.id = n::text) FROM generate_series(1, 9) n"""
            plan = [row[0] for row in await bus.queues._reader.call(ask)]
            assert any("handled_pkey" in line for line in plan), plan

    run(main())
