"""Messages that come with the wake-up on Redis: at once, in order, never lost or returned twice."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from pbus.bus.redis import wakeups
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
