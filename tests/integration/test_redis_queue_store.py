"""Queues on Redis: outages, lost replies, keys, dead consumers, and how fast they are."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from redis import Redis

from pbus.bus.queues.store import HANDLED_KEPT, QueueStore, Settlement
from pbus.bus.redis.encoding import encode
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.bus.redis.scripts.admin_lua import KEPT_AT_ONCE
from pbus.bus.redis.scripts.delivery_lua import TAKE
from pbus.bus.redis.server.endpoint import Endpoint
from pbus.errors import BusUnavailableError
from support import queue_consumer_process
from support.proxy import Proxy
from support.queue_helpers import DATA, SYSTEM, Writer, backlog, closing, fetch, handle, texts
from support.queue_model import QueueModel
from support.valkey import Valkey, _free_port
from support.waiting import PATIENCE_S, finishes, run

pytestmark = pytest.mark.redis


def store_at(url: str, channel: str, **options: float) -> RedisQueueStore:
    """A store, not yet connected."""
    return RedisQueueStore(Endpoint(url=url, redis=None), Keys(channel), **options)


@pytest.fixture
def redis(valkey: Valkey) -> Iterator[Redis]:
    """A plain client, to look at what is there."""
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def durable_valkey() -> Iterator[Valkey]:
    """A Valkey that keeps what it was told."""
    # "everysec" keeps writes back while a busy disk is synced, and a kill loses them.
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


async def use_everything(store: QueueStore, seed: int = 0) -> None:
    """Make every kind of key."""
    await store.open("box", durable=True)
    model = QueueModel(store, seed)
    for _ in range(60):
        await model.do_something()
    await store.open("brief", durable=False)
    await store.renew(["brief"])
    waiting = asyncio.create_task(fetch(store, "brief", wait_s=20))
    await asyncio.wait({waiting}, timeout=0.1)
    waiting.cancel()
    await asyncio.wait({waiting})
    await store.put([Writer("w").to("*", "1", "2")])
    first, second = await fetch(store, "brief", consumer="gone")
    await store.settle([
        Settlement(first, how="retry", delay_s=60),
        Settlement(second, how="dead_letter"),
    ])
    await store.requeue_held_by(["unheard-of"])


def test_nothing_is_left_of_removed_queues(valkey, channel, redis):
    """When all queues are removed, no key of the channel is there."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await use_everything(store)
            kinds = {
                key.removeprefix(f"{{{channel}}}:queues") for key in redis.keys(f"*{channel}*")
            }
            messages = await fetch(store)
            for report in await store.stats():
                await store.purge(report.name, remove=True)
            await handle(store, messages)  # what comes too late brings nothing back
            await store.requeue_held_by(["h1", "gone"])
            await store.renew(["box", "brief"])

            assert {":box:box", ":dead:brief", ":done:1:box", ":gone", ":later:brief"} < kinds
            assert [] == redis.keys(f"*{channel}*")

    run(main())


def test_queue_of_the_vanished_expires(valkey, channel, redis):
    """If all processes of a channel vanish, Redis itself expires what is not durable."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("brief", durable=False)
            await store.put([Writer().to("brief", "1")])
            await handle(store, await fetch(store, "brief"))
            await store.renew(["brief"])
            assert [] == [key for key in redis.keys(f"*{channel}*") if redis.ttl(key) < 0]
            await store.open("brief", durable=True)
            await store.renew(["brief"])

            assert [] == [key for key in redis.keys(f"*{channel}*:q:*") if redis.ttl(key) >= 0]
            assert -1 == redis.ttl(f"{{{channel}}}:queues")

    run(main())


def test_keys_share_one_cluster_slot(channel):
    """Everything works on a cluster node, which refuses to touch two slots in one script."""

    async def main():
        node = Valkey("--cluster-enabled", "yes", "--cluster-port", str(_free_port()), tcp=True)
        with node as server:
            with Redis.from_url(server.url) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                    await asyncio.sleep(0.05)
            async with closing(store_at(server.url, channel)) as store:
                await use_everything(store)
                (dead, *_) = await store.dead_letters("brief")
                assert 1 == await store.requeue_dead([dead.key])
                await store.purge("box")

                assert ["box", "brief"] == [report.name for report in await store.stats()]

    run(main())


def test_any_bytes_are_kept(valkey, channel):
    """Bodies need not be text (they may be MessagePack), through retries and burials."""
    bodies = [bytes(range(256)), b"", b"\x00\xff\n", b"x"]

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            outgoing = Writer().to("box", *"abcd")
            outgoing.bodies[:] = bodies
            await store.put([outgoing])
            messages = await fetch(store)
            assert bodies == [message.body for message in messages]
            await store.settle([Settlement(one, how="retry") for one in messages])
            messages = await fetch(store)
            assert bodies == [message.body for message in messages]
            await store.settle([Settlement(one, how="dead_letter") for one in messages])

            assert bodies == [message.body for message in await store.dead_letters()]

    run(main())


def test_scripts_are_loaded_again(valkey, channel, redis):
    """A server that forgot its scripts, as after a restart, is given them again."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            writer = Writer()
            for text in ("before", "after"):
                await store.put([writer.to("box", text)])
                messages = await fetch(store)
                assert [text] == texts(messages)
                await handle(store, messages)
                redis.script_flush()

    run(main())


def test_absent_server_is_an_error(channel):
    """Without a server every call says so within its time."""

    async def main():
        async with closing(store_at("redis://:secret@127.0.0.1:1", channel)) as store:
            for call in (
                store.open("box", durable=True),
                store.put([Writer().to("box", "x")]),
                fetch(store, wait_s=0.2),
                store.stats(),
                store.dead_letters(),
            ):
                with pytest.raises(BusUnavailableError, match=r"127\.0\.0\.1:1") as caught:
                    await asyncio.wait_for(call, PATIENCE_S)
                assert "secret" not in str(caught.value)

    run(main())


def test_full_memory_stores_nothing(own_valkey, channel):
    """A server out of memory refuses the batch as a whole, and what is held can be settled."""

    async def main():
        with Redis.from_url(own_valkey.url) as redis:
            async with closing(store_at(own_valkey.url, channel)) as store:
                await store.open("box", durable=True)
                writer = Writer()
                await store.put([writer.to("box", "1", "2")])
                messages = await fetch(store)
                await store.settle([Settlement(messages.pop(), how="retry", delay_s=0.01)])
                redis.config_set("maxmemory", 1)
                with pytest.raises(BusUnavailableError, match="maxmemory"):
                    await store.put(writer.each("box", "3", "4"))
                messages += await fetch(store, consumer="other", wait_s=1)
                await store.settle([
                    Settlement(messages[1], how="dead_letter"),
                    Settlement(messages[0]),
                ])
                redis.config_set("maxmemory", 0)
                (report,) = await store.stats()

                assert ["1", "2"] == texts(messages)
                assert (0, 0, 1) == (report.backlog, report.in_flight, report.dead)

    run(main())


@pytest.mark.parametrize("in_flight", [1, KEPT_AT_ONCE + 1])
def test_full_memory_is_purged(own_valkey, channel, in_flight):
    """A server out of memory can be emptied, however much is in flight."""

    async def main():
        with Redis.from_url(own_valkey.url) as redis:
            async with closing(store_at(own_valkey.url, channel)) as store:
                await store.open("box", durable=True)
                await store.put(Writer().each("box", *["x"] * (in_flight + 9)))
                held = []
                while len(held) < in_flight:
                    wanted = [("box", DATA, min(1_000, in_flight - len(held)))]
                    held += await store.fetch(wanted, consumer="consumer", wait_s=0)
                redis.config_set("maxmemory", 1)
                try:
                    assert 9 == await store.purge("box")
                    await handle(store, held)
                finally:
                    redis.config_set("maxmemory", 0)
                (report,) = await store.stats()
                assert (0, 0, 0) == (report.backlog, report.in_flight, report.backlog_bytes)

    run(main())


def test_missing_keys_harm_one_queue_only(valkey, channel, redis):
    """Keys that were deleted (or that Redis evicted) cost that queue its messages, and no other."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            writer = Writer()
            for name in ("broken", "sound"):
                await store.open(name, durable=True)
            await store.put([writer.to("*", "1", "2")])
            messages = await fetch(store, "broken")
            redis.delete(*redis.keys(f"*{channel}*:broken"))
            await store.settle([Settlement(messages[0])])
            assert [] == await fetch(store, "broken")
            assert 1 == (await store.put([writer.to("*", "3")]))[0].queues
            await store.requeue_held_by(["consumer"])
            await store.purge("broken")
            assert ["broken", "sound"] == [report.name for report in await store.stats()]
            assert ["1", "2", "3"] == texts(await fetch(store, "sound"))
            await store.open("broken", durable=True)
            await store.put([writer.to("*", "4")])

            assert ["4"] == texts(await fetch(store, "broken"))

    run(main())


def test_handled_ids_are_bounded(valkey, channel, redis):
    """At least the last 100,000 handled ids are known, and never more than twice as many."""
    pack, rounds = 1000, 2 * HANDLED_KEPT // 1000 + 50

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            writer = Writer()
            for turn in range(rounds):
                ids = [f"{turn}-{number}" for number in range(pack)]
                outgoing = writer.to("box", *[""] * pack, ids=ids)
                outgoing.bodies[:] = [b"{}"] * pack
                await store.put([outgoing])
                await handle(store, await fetch(store))
            kept = sum(redis.scard(f"{{{channel}}}:queues:done:{which}:box") for which in (0, 1))
            oldest = rounds - HANDLED_KEPT // pack
            await store.put([writer.to("box", "again", ids=[f"{oldest}-0"])])

            assert HANDLED_KEPT <= kept <= 2 * HANDLED_KEPT
            assert [] == await fetch(store)

    run(main())


def test_old_senders_are_forgotten(valkey, channel, redis):
    """The numbers of senders that fell silent do not gather for ever."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            last = f"{{{channel}}}:queues:last:box"
            redis.hset(last, mapping={f"old-{number}|1|d": "7 1000" for number in range(500)})
            for number in range(64):
                await store.put([Writer(f"new-{number}").to("box", "x")])

            assert redis.hlen(last) <= 64
            assert 64 == len(await fetch(store))

    run(main())


def test_the_dead_get_nothing(valkey, channel, redis):
    """What a process had asked before it was killed, and Redis reads late, gives it no message."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x")])
            await store.requeue_held_by(["dead"])
            ask = encode(([("box", "d", 10, 0, [])], 1, 0, [], []))
            late = redis.register_script(TAKE.source)

            assert [] == late(keys=[f"{{{channel}}}:queues"], args=["dead-1", ask])
            assert ["x"] == texts(await fetch(store))

    run(main())


def test_killers_go_to_the_end(valkey, channel):
    """What is given back comes before the backlog, but not what had started when its process died."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            await store.put(Writer().each("box", "killer", "b", "c"))
            await store.fetch([("box", DATA, 1)], consumer="incarnation-1", wait_s=0)
            await store.requeue_held_by(["incarnation-1"])
            messages = await fetch(store, consumer="incarnation-2")
            assert ["killer", "b", "c"] == texts(messages)
            await store.mark_started(messages[:1])
            await store.requeue_held_by(["incarnation-2"])

            assert ["b", "c", "killer"] == texts(await fetch(store))

    run(main())


def test_consumers_of_the_dead_are_removed(valkey, channel, redis):
    """Incarnations come and go; the consumer groups do not grow with them."""

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            writer = Writer()
            for number in range(5):
                await store.put([writer.to("box", "x", lane=SYSTEM), writer.to("box", "y")])
                await fetch(store, consumer=f"incarnation-{number}")
                await store.requeue_held_by([f"incarnation-{number}"])
            names = [
                consumer["name"]
                for queue in "dsDS"
                for consumer in redis.xinfo_consumers(f"{{{channel}}}:queues:q:{queue}:box", "g")
            ]

            assert [] == names
            assert 10 == await backlog(store)

    run(main())


def test_lost_answers_lose_nothing(valkey, channel):
    """Connections that break at any moment, on both sides: nothing is lost, nothing comes twice."""
    total = 1800

    async def main():
        async with Proxy(str(valkey.socket)) as path:
            here, there = store_at(path.url, channel), store_at(path.url, channel)
            async with closing(here), closing(there):
                await here.open("box", durable=True)
                seen: list[str] = []
                writing = asyncio.create_task(_write(here, total))
                reading = asyncio.create_task(_read(there, total, seen))
                dice = random.Random(7)
                for count in range(60, total, 60):
                    while len(seen) < count:
                        await asyncio.sleep(dice.uniform(0.0, 0.005))
                    path.restore()  # closes all connections
                await finishes(writing, 20)
                await finishes(reading, 20)

                assert list(map(str, range(total))) == sorted(seen, key=int)
                assert 0 == await backlog(there)

    run(main())


def test_confirmed_messages_survive_kill(durable_valkey, channel):
    """Redis with an append-only file, killed and started again: what was confirmed is there, once."""
    total = 3000

    async def main():
        here, there = store_at(durable_valkey.url, channel), store_at(durable_valkey.url, channel)
        async with closing(here), closing(there):
            await here.open("box", durable=True)
            seen: list[str] = []
            writing = asyncio.create_task(_write(here, total))
            reading = asyncio.create_task(_read(there, total, seen))
            for count in (total // 4, total // 2):
                while len(seen) < count:
                    await asyncio.sleep(0.005)
                await asyncio.to_thread(durable_valkey.kill)
                await asyncio.to_thread(durable_valkey.start)
            await finishes(writing, 30)
            await finishes(reading, 30)

            assert list(map(str, range(total))) == sorted(seen, key=int)
            assert 0 == await backlog(there)

    run(main(), 60)


def test_killed_consumers_lose_nothing(valkey, channel, tmp_path):
    """Processes killed at any moment, their messages requeued at once: every number is handled."""
    total, log = 6000, tmp_path / "handled"

    async def main():
        async with closing(store_at(valkey.url, channel)) as store:
            await store.open("box", durable=True)
            with _Consumers(valkey.url, channel, log) as consumers:
                consumers.start()
                consumers.start()
                dice = random.Random(3)
                writing = asyncio.create_task(_write(store, total))
                while consumers.start_count < 8 or not writing.done() or await backlog(store) > 0:
                    await asyncio.sleep(dice.uniform(0.0, 0.02))
                    if (
                        consumers.start_count < 8
                        and log.stat().st_size > consumers.start_count * 3000
                    ):
                        await store.requeue_held_by([consumers.kill(dice)])
                        consumers.start()
            await finishes(writing)

            handled = log.read_text().split()
            assert 8 == consumers.start_count
            assert set(map(str, range(total))) == set(handled)
            assert (
                len(handled) - total <= 10 * consumers.start_count
            )  # what was in hand when they died
            (report,) = await store.stats()
            assert (0, 0, 0) == (report.in_flight, report.retries, report.dead)

    run(main(), 60)


def test_waiting_goes_on_after_restart(durable_valkey, channel):
    """A take that waited when the server died is woken once both are back."""

    async def main():
        here, there = store_at(durable_valkey.url, channel), store_at(durable_valkey.url, channel)
        async with closing(here), closing(there):
            await here.open("box", durable=True)
            # Who is not woken sleeps on: this is longer than anybody waits for the test.
            waiting = asyncio.create_task(_take_stubbornly(there, 1000.0))
            await asyncio.wait({waiting}, timeout=0.3)
            await asyncio.to_thread(durable_valkey.kill)
            await asyncio.to_thread(durable_valkey.start)
            await here.put([Writer().to("box", "x")])

            assert ["x"] == texts(await finishes(waiting))

    run(main())


class _Consumers:
    """Processes that handle messages and record them, each with an incarnation of its own."""

    def __init__(self, url: str, channel: str, log: Path) -> None:
        self.start_count = 0
        self._command = [sys.executable, str(Path(queue_consumer_process.__file__)), url, channel]
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(Path(queue_consumer_process.__file__).parents[1]),
        }
        self._output = log.open("ab")
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start one more."""
        self.start_count += 1
        holder = f"incarnation-{self.start_count}"
        self._running[holder] = subprocess.Popen(
            [*self._command, holder], stdout=self._output, env=self._environ
        )

    def kill(self, dice: random.Random) -> str:
        """End one of them as kill -9 does, and return its incarnation."""
        holder = dice.choice(sorted(self._running))
        victim = self._running.pop(holder)
        victim.kill()
        victim.wait()
        return holder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        self._output.close()


async def _write(store: QueueStore, total: int) -> None:
    """Put numbers, three in an entry, each batch until it is confirmed."""
    writer = Writer()
    for number in range(0, total, 6):
        names = [str(one) for one in range(number, number + 6)]
        batch = [writer.to("box", *names[:3]), writer.to("box", *names[3:])]
        while True:
            try:
                await store.put(batch)
                break
            except BusUnavailableError:
                await asyncio.sleep(0.02)


async def _read(store: QueueStore, total: int, seen: list[str]) -> None:
    """Handle what comes until all is there, each batch until it is settled."""
    while len(seen) < total:
        messages = await _take_stubbornly(store)
        seen += texts(messages)
        while True:
            try:
                await handle(store, messages)
                break
            except BusUnavailableError:
                await asyncio.sleep(0.02)


async def _take_stubbornly(store: QueueStore, wait_s: float = 5.0) -> list:
    while True:
        try:
            if messages := await store.fetch([("box", DATA, 10)], consumer="reader", wait_s=wait_s):
                return messages
        except BusUnavailableError:
            await asyncio.sleep(0.02)
