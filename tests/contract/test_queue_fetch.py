"""Fetching from queues, on every broker: order, lanes, limits, waiting and waking."""

import asyncio
import time

from support.queue_helpers import (
    DATA,
    SYSTEM,
    Writer,
    backlog,
    fetch,
    handle,
    texts,
)
from support.waiting import PATIENCE_S, finishes, run, until

LONG_S = 60.0  # longer than any test has patience for


def test_order_is_kept(make_store):
    """Messages come oldest first, over entries of many messages and of one."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "1", "2", "3"), writer.to("box", "4")])
            await store.put([writer.to("box", "5", "6")])

            assert ["1", "2", "3", "4", "5", "6"] == texts(await fetch(store))

    run(main())


def test_lanes_are_apart(make_store):
    """Only the lanes asked for are taken."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "slow"), writer.to("box", "fast", lane=SYSTEM)])
            first = await store.fetch([("box", SYSTEM, 10)], consumer="consumer", wait_s=0)
            second = await store.fetch([("box", DATA, 10)], consumer="consumer", wait_s=0)

            assert (["fast"], [SYSTEM]) == (texts(first), [one.lane for one in first])
            assert (["slow"], [DATA]) == (texts(second), [one.lane for one in second])

    run(main())


def test_no_more_than_asked(make_store):
    """Each queue gives as many messages as were asked of it."""

    async def main():
        async with make_store() as store:
            writer = Writer()
            for name in ("a", "b"):
                await store.open(name, durable=True)
                await store.put(writer.each(name, "1", "2", "3", "4", "5"))
            messages = await store.fetch([("a", DATA, 3), ("b", DATA, 1)], consumer="h", wait_s=0)
            rest = await store.fetch([("a", DATA, 9), ("b", DATA, 2)], consumer="h", wait_s=0)

            assert [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")] == sorted(
                (message.queue, *texts([message])) for message in messages
            )
            assert [("a", "4"), ("a", "5"), ("b", "2"), ("b", "3")] == sorted(
                (message.queue, *texts([message])) for message in rest
            )

    run(main())


def test_waiting_take_is_woken(make_store, no_polls):
    """A take that waits returns as soon as another process puts something."""

    async def main():
        async with make_store() as here, make_store() as there:
            await here.open("box", durable=True)
            writer = Writer()
            for text in ("cold", "warm"):
                waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
                await asyncio.wait({waiting}, timeout=0.3)
                assert not waiting.done()
                await here.put([writer.to("box", text)])
                messages = await finishes(waiting)

                assert [text] == texts(messages)
                await handle(there, messages)

    run(main())


def test_empty_take_ends_in_time(make_store):
    """A take that finds nothing returns nothing when its time is over."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await fetch(store)
            started = time.monotonic()

            assert [] == await fetch(store, wait_s=0.3)
            assert 0.25 < time.monotonic() - started < PATIENCE_S

    run(main())


def test_take_can_be_interrupted(make_store):
    """A take that waits returns early when told so, and nothing is lost by it."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            waiting = asyncio.create_task(fetch(store, wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.2)
            await store.wake_fetchers()

            assert [] == await finishes(waiting)
            await store.put([Writer().to("box", "x")])
            assert ["x"] == texts(await fetch(store, wait_s=PATIENCE_S))

    run(main())


def test_replicas_share_a_queue(make_store):
    """Several processes take from one queue; each message reaches one of them.

    Who has got something keeps it until the other has got something, too.
    """
    total = 300

    async def main():
        async with make_store() as here, make_store() as first, make_store() as second:
            await here.open("box", durable=True)
            taken: list[str] = []
            busy: set[str] = set()

            async def replica(store, holder):
                while len(taken) < total:
                    messages = await store.fetch([("box", DATA, 2)], consumer=holder, wait_s=0.2)
                    taken.extend(texts(messages))
                    if messages:
                        busy.add(holder)
                        await until(lambda: len(busy) == 2)
                    await handle(store, messages)

            async with asyncio.TaskGroup() as group:
                group.create_task(replica(first, "first"))
                group.create_task(replica(second, "second"))
                writer = Writer()
                for number in range(0, total, 10):
                    names = [str(one) for one in range(number, number + 10)]
                    await here.put(writer.each("box", *names))

            assert list(range(total)) == sorted(map(int, taken))
            assert {"first", "second"} == busy
            assert 0 == await backlog(here)

    run(main())


def test_every_idle_sibling_is_woken(make_store):
    """When all replicas wait, two messages reach two of them, and a third one the third."""

    async def main():
        async with make_store() as here, make_store() as a, make_store() as b, make_store() as c:
            await here.open("box", durable=True)
            waiting = {
                asyncio.create_task(one.fetch([("box", DATA, 1)], consumer=name, wait_s=LONG_S))
                for name, one in {"a": a, "b": b, "c": c}.items()
            }
            await asyncio.wait(waiting, timeout=0.5)
            writer = Writer()
            await here.put(writer.each("box", "1", "2"))
            await until(lambda: sum(task.done() for task in waiting) == 2)
            await here.put(writer.each("box", "3"))

            found = [texts(await finishes(task)) for task in waiting]
            assert [["1"], ["2"], ["3"]] == sorted(found)

    run(main())


def test_wake_of_the_busy_is_passed_on(make_store, no_polls):
    """A replica that stopped waiting does not keep the message from the one that still waits."""

    async def main():
        async with make_store() as here, make_store() as gone, make_store() as idle:
            await here.open("box", durable=True)
            given_up = asyncio.create_task(fetch(gone, consumer="gone", wait_s=LONG_S))
            await asyncio.wait({given_up}, timeout=0.3)
            waiting = asyncio.create_task(fetch(idle, consumer="idle", wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.3)
            given_up.cancel()
            await asyncio.wait({given_up})
            await here.put([Writer().to("box", "x")])

            assert ["x"] == texts(await finishes(waiting))

    run(main())


def test_cancelled_takes_lose_nothing(make_store):
    """Whenever a take is cancelled, what it had taken comes with a later one, once."""
    total = 400

    async def main():
        async with make_store() as here, make_store() as there:
            await here.open("box", durable=True)
            taken: list[str] = []

            async def write():
                writer = Writer()
                for number in range(0, total, 4):
                    names = [str(one) for one in range(number, number + 4)]
                    await here.put([writer.to("box", *names)])

            writing = asyncio.create_task(write())
            patience, most = 0.0, 0.1
            while len(taken) < total:
                patience = patience * 1.2 + 0.0003  # cut early, late, and now and then not
                if patience > most:
                    patience, most = 0.0, most * 1.2  # or a slow machine would take nothing ever
                taking = asyncio.create_task(fetch(there, wait_s=1))
                await asyncio.wait({taking}, timeout=patience)
                taking.cancel()
                await asyncio.wait({taking})
                if not taking.cancelled():
                    messages = taking.result()
                    taken.extend(texts(messages))
                    await handle(there, messages)
            await finishes(writing)

            assert list(range(total)) == sorted(map(int, taken))
            assert 0 == await backlog(here)

    run(main())


def test_holder_takes_on_several_tasks(make_store):
    """One process may wait for different queues at the same time."""

    async def main():
        async with make_store() as here, make_store() as there:
            waiting = []
            for name in ("a", "b"):
                await here.open(name, durable=True)
                waiting.append(asyncio.create_task(fetch(there, name, wait_s=LONG_S)))
            await asyncio.wait(waiting, timeout=0.3)
            await here.put([Writer().to("b", "for b")])
            assert ["for b"] == texts(await finishes(waiting[1]))
            assert not waiting[0].done()
            await here.put([Writer().to("a", "for a")])

            assert ["for a"] == texts(await finishes(waiting[0]))

    run(main())


def test_handled_id_is_skipped(make_store):
    """A message whose id was handled before, sent again under a new number, is not returned."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.open("other", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "once", ids=["same"])])
            await handle(store, await fetch(store))
            await store.put([writer.to("box", "again", "new", ids=["same", "fresh"])])
            await store.put([writer.to("box", "again", ids=["same"])])
            await store.put([writer.to("other", "here", ids=["same"])])
            messages = await fetch(store)

            assert ["new"] == texts(messages)
            assert 1 == await backlog(store)
            assert ["here"] == texts(await fetch(store, "other"))
            await handle(store, messages)
            assert 0 == await backlog(store)

    run(main())
