"""Messages that come with the wake-up on Redis: at once, in order, never lost or returned twice."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from pbus.bus.queues.store import PutResult
from pbus.bus.redis import wakeups
from pbus.bus.redis.connections import close
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.bus.redis.server.endpoint import Endpoint
from pbus.errors import BusUnavailableError
from support.queue_helpers import DATA, Writer, backlog, closing, fetch, handle, texts
from support.waiting import finishes, happens, run, until

pytestmark = pytest.mark.redis

LONG_S = 60.0


@pytest.fixture
def make_store(valkey, channel):
    def make():
        return closing(RedisQueueStore(Endpoint(url=valkey.url, redis=None), Keys(channel)))

    return make


@asynccontextmanager
async def waiting_store(make_store):
    """A store that puts, one that fetches, and a task that waits there and is armed."""
    async with make_store() as here, make_store() as there:
        await here.open("box", durable=True)
        waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
        await until(lambda: is_armed(there))
        yield here, there, waiting


def is_armed(store):
    """Whether the server wakes the consumer of a store when data comes."""
    return any(("box", DATA) in one.armed for one in store._fetcher._consumers.values())


async def in_flight(store):
    return [(one.backlog, one.in_flight) for one in await store.stats()]


def payloads_kept(store):
    """Keep the payloads that wake a store, in place of reading them."""
    kept, link = [], store._wakeups._link
    came = asyncio.Event()

    def keep(payload):
        kept.append(payload)
        came.set()

    link._on_payload = keep
    return kept, came


def test_message_comes_with_the_wake_up(make_store):
    """One ask arms the consumer, none fetches; several messages at once are asked for."""

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            asked = []
            ask_once = there._fetcher._ask_once
            there._fetcher._ask_once = lambda *a, **k: asked.append(1) or ask_once(*a, **k)
            await here.put([Writer().to("box", "x")])
            messages = await finishes(waiting)
            assert (["x"], []) == (texts(messages), asked)
            assert [(1, 1)] == await in_flight(here)
            await handle(there, messages)
            assert [(0, 0)] == await in_flight(here)

            again = asyncio.create_task(fetch(there, wait_s=LONG_S))
            await until(lambda: is_armed(there))
            await here.put([Writer("other").to("box", "y", "z")])
            assert ["y", "z"] == texts(await finishes(again))
            assert 1 == len(asked)  # it waited on after the push

    run(main())


def test_single_messages_keep_their_order(make_store):
    """Whether pushed or asked for: each once, in order, with nothing left."""
    total = 300

    async def main():
        async with make_store() as here, make_store() as there:
            await here.open("box", durable=True)

            async def write():
                writer = Writer()
                for number in range(total):
                    await here.put([writer.to("box", str(number))])

            writing = asyncio.create_task(write())
            taken = []
            while len(taken) < total:
                messages = await fetch(there, wait_s=1)
                taken += map(int, texts(messages))
                await handle(there, messages)
            await finishes(writing)
            assert list(range(total)) == taken
            assert 0 == await backlog(here)

    run(main())


def test_lost_push_is_found_by_the_next_ask(make_store, monkeypatch):
    """Before any later message; should it come after all, it is not returned again."""
    monkeypatch.setattr("pbus.bus.redis.fetcher.POLL_S", 0.05)

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            waiting.cancel()
            await asyncio.wait({waiting})
            on_payload = there._wakeups._on_payload
            kept, came = payloads_kept(there)
            again = asyncio.create_task(fetch(there, wait_s=LONG_S))
            writer = Writer()
            await here.put([writer.to("box", "lost")])
            await happens(came)
            await here.put([writer.to("box", "later")])
            messages = await finishes(again)
            while len(messages) < 2:
                messages += await fetch(there, wait_s=1)
            assert ["lost", "later"] == texts(messages)
            for payload in kept:
                on_payload(payload)
            assert [] == await fetch(there, wait_s=0.2)
            await handle(there, messages)
            for payload in kept:
                on_payload(payload)
            assert [] == await fetch(there, wait_s=0.2)
            assert [(0, 0)] == await in_flight(here)

    run(main())


def test_push_between_two_takes_is_returned_by_the_next(make_store):
    """Before what is asked for; what no take comes for is given to others."""

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            waiting.cancel()
            await asyncio.wait({waiting})
            writer = Writer()
            await here.put([writer.to("box", "early")])
            await until(lambda: there._wakeups._early)
            await here.put([writer.to("box", "later")])
            messages = await fetch(there, wait_s=LONG_S)
            while len(messages) < 2:
                messages += await fetch(there, wait_s=LONG_S)
            assert ["early", "later"] == texts(messages)
            await handle(there, messages)

            again = asyncio.create_task(fetch(there, wait_s=LONG_S))
            await until(lambda: is_armed(there))
            again.cancel()
            await asyncio.wait({again})
            await here.put([writer.to("box", "for another")])
            assert ["for another"] == texts(await fetch(here, consumer="another", wait_s=LONG_S))

    run(main())


def test_push_that_cannot_be_requeued_is_found_again(make_store, monkeypatch):
    """The broker was away for a moment: the message is held by this process, and comes with its next ask."""
    monkeypatch.setattr(wakeups, "_KEPT_S", 0.0)

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            waiting.cancel()
            await asyncio.wait({waiting})
            settle, failed = there.settle, asyncio.Event()

            async def fail(settlements):
                failed.set()
                raise BusUnavailableError("the broker", "it is away")

            there.settle = fail
            await here.put([Writer().to("box", "x")])
            await happens(failed)
            there.settle = settle
            assert ["x"] == texts(await fetch(there, wait_s=LONG_S))

    run(main())


@pytest.mark.parametrize(
    "payload",
    [
        b"!",
        b"!d",
        b"!dconsumer\nbox",
        b"!dconsumer\nbox\nno-id\n1\nid\n{}",
        b"!xconsumer\nbox\n1-0\n1\nid\n{}",
        b"!d\xff\nbox\n1-0\n1\nid\n{}",
        b"!dconsumer\nbox\n1-0\nsoon\nid\n{}",
        b"!dconsumer\nbox\n1-0\n1\n\xff\n{}",
        b"!dsomeone\nbox\n1-0\n1\nid\n{}",
    ],
)
def test_wake_ups_of_others_are_ignored(make_store, payload):
    """What is no pushed message wakes no waiter, and stops no later one."""

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            there._wakeups._on_payload(payload)
            await asyncio.sleep(0)
            assert not waiting.done()
            await here.put([Writer().to("box", "x")])
            assert ["x"] == texts(await finishes(waiting))

    run(main())


def test_large_and_repeated_messages_are_asked_for(make_store):
    """A body that would crowd the subscription, and an id that was handled before, are not pushed."""

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            writer = Writer()
            await here.put([writer.to("box", "x" * 100_000, ids=["large"])])
            messages = await finishes(waiting)
            assert 100_000 == len(texts(messages)[0])
            await handle(there, messages)
            again = asyncio.create_task(fetch(there, wait_s=LONG_S))
            await until(lambda: is_armed(there))
            await here.put([writer.to("box", "again", ids=["large"])])
            await until(lambda: again.done() or is_armed(there))
            await here.put([writer.to("box", "new", ids=["new"])])
            assert ["new"] == texts(await finishes(again))

    run(main())


def asks_of(store):
    """Note the asks of a store from now on."""
    asked, ask_once = [], store._fetcher._ask_once
    store._fetcher._ask_once = lambda *a, **k: asked.append(1) or ask_once(*a, **k)
    return asked


def test_consumer_waits_on_after_a_push(make_store):
    """Messages that come one by one are handed over while one fetch waits; several are asked for."""

    async def main():
        async with make_store() as here, make_store() as there:
            pushed, writer = [], Writer()
            there.on_push = pushed.append
            await here.open("box", durable=True)
            waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
            await until(lambda: is_armed(there))
            asked = asks_of(there)
            for number in range(5):
                await here.put([writer.to("box", str(number))])
                await until(lambda: len(pushed) == number + 1)  # noqa: B023 - awaited here
                await handle(there, pushed[-1:])
            assert list("01234") == texts(pushed)
            assert ([], False) == (asked, waiting.done())
            await here.put([writer.to("box", "5", "6")])
            assert [] == await finishes(waiting)  # what is wanted may be less by now
            messages = await fetch(there, wait_s=LONG_S)
            assert ["5", "6"] == texts(messages)
            await handle(there, messages)
            assert [(0, 0)] == await in_flight(here)

    run(main())


def test_much_in_flight_is_asked_for(make_store):
    """Pushes alone give a consumer no more than it has room for; order holds beyond that."""

    async def main():
        async with make_store() as here, make_store() as there:
            got, writer = [], Writer()
            there.on_push = got.append
            await here.open("box", durable=True)
            waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
            await until(lambda: is_armed(there))
            for number in range(17):
                await here.put([writer.to("box", str(number))])
            got += await finishes(waiting)
            assert list(map(str, range(17))) == texts(got)
            assert not is_armed(there)
            asked = asks_of(there)
            await here.put([writer.to("box", "17")])
            while len(got) < 18:
                got += await fetch(there, wait_s=LONG_S)
            assert list(map(str, range(18))) == texts(got)
            assert asked
            assert [(18, 18)] == await in_flight(here)

    run(main())


def test_consumer_with_little_room_asks_each_time(make_store):
    """What it has room for may be less after each message."""

    async def main():
        async with make_store() as here, make_store() as there:
            writer = Writer()
            await here.open("box", durable=True)
            for text in "ab":
                fetching = there.fetch([("box", DATA, 1)], consumer="consumer", wait_s=LONG_S)
                waiting = asyncio.create_task(fetching)
                await until(lambda: is_armed(there))
                await here.put([writer.to("box", text)])
                assert [text] == texts(await finishes(waiting))
                assert not is_armed(there)

    run(main())


def test_waiting_consumers_take_turns(make_store):
    """Each message goes to the one that has waited longest since its last one."""

    async def main():
        async with make_store() as here, make_store() as one, make_store() as two:
            got, writer = {one: [], two: []}, Writer()
            await here.open("box", durable=True)
            waiting = []
            for name, store in (("one", one), ("two", two)):
                store.on_push = got[store].append
                waiting.append(asyncio.create_task(fetch(store, consumer=name, wait_s=LONG_S)))
                await until(lambda: is_armed(store))  # noqa: B023 - awaited here
            for number in range(6):
                await here.put([writer.to("box", str(number))])
            await until(lambda: sum(map(len, got.values())) == 6)
            assert [["0", "2", "4"], ["1", "3", "5"]] == [texts(some) for some in got.values()]
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    run(main())


def test_push_lost_with_its_connection_comes_before_later_ones(make_store, monkeypatch):
    """A later message that is pushed over the next connection waits until the lost one is found."""
    monkeypatch.setattr("pbus.bus.redis.fetcher.POLL_S", LONG_S)

    async def main():
        async with make_store() as here, make_store() as there:
            got, writer = [], Writer()
            there.on_push = got.append
            await here.open("box", durable=True)
            waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
            await until(lambda: is_armed(there))
            link = there._wakeups._link
            on_payload = link._on_payload
            kept, came = payloads_kept(there)
            await here.put([writer.to("box", "lost")])
            await happens(came)
            link._on_payload = on_payload
            await close(link._connection)
            await until(lambda: link.opened == 2 and link.is_up)
            await here.put([writer.to("box", "later")])
            while len(got) < 2:
                got += await finishes(waiting)
                waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
            assert ["lost", "later"] == texts(got)
            on_payload(kept[0])
            await handle(there, got)
            await here.put([writer.to("box", "next")])
            await until(lambda: len(got) == 3)
            assert ["lost", "later", "next"] == texts(got)
            waiting.cancel()
            await asyncio.wait({waiting})

    run(main())


async def put_now(store, entry):
    """The outcome of putting an entry at once; False where that did not begin."""
    ended = asyncio.get_running_loop().create_future()
    return await finishes(ended) if store.put_now(entry, ended.set_result) else False


def test_put_now_stores_what_needs_one_step(make_store):
    """All else is left to put(): which has to open a connection, or to refuse."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True, max_backlog=4)
            writer = Writer()
            assert await put_now(store, writer.to("box", "0")) is False  # not connected
            fresh = Writer()
            await store.put([fresh.to("box", "1")])
            second = fresh.to("box", "2")
            assert PutResult(1) == await put_now(store, second)
            assert await put_now(store, second) is None  # it is there
            assert PutResult(1) == await put_now(store, fresh.to("box", "3"))
            assert await put_now(store, writer.to("box", "9")) is None  # its first is missing
            assert await put_now(store, fresh.to("nowhere", "4")) is None
            assert await put_now(store, fresh.to("*", "4")) is False
            assert await put_now(store, fresh.to("box", "4", "5")) is False
            await store.put([Writer("third").to("box", "4")])
            assert await put_now(store, fresh.to("box", "full")) is None
            assert list("1234") == texts(await fetch(store))

    run(main())


def test_requeued_push_is_forgotten(make_store, monkeypatch):
    """What was pushed and not fetched comes once when all is requeued; the consumer waits again after it."""
    monkeypatch.setattr("pbus.bus.redis.fetcher.POLL_S", LONG_S)
    monkeypatch.setattr(wakeups, "_KEPT_S", LONG_S)

    async def main():
        async with waiting_store(make_store) as (here, there, waiting):
            await here.put([Writer().to("box", "x")])
            await handle(there, await finishes(waiting))
            await here.put([Writer("other").to("box", "y")])  # no take waits for it
            await until(lambda: there._wakeups._early)
            assert 1 == await there.requeue_held_by(["consumer"])

            found = []

            async def take():
                while len(found) < 2:
                    found.extend(await fetch(there, wait_s=LONG_S))

            taking = asyncio.create_task(take())
            await until(lambda: found)
            await here.put([Writer("third").to("box", "z")])
            await finishes(taking)
            assert ["y", "z"] == texts(found)
            await handle(there, found)
            assert [(0, 0)] == await in_flight(here)

    run(main())
