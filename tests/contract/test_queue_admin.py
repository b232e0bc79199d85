"""Queues as a whole, on every broker: leases, durability, stats, purging, and a random run against a model."""

import asyncio
import time

import pytest

from pbus.bus.queues.store import COMING_BACK_S, KEPT_UNTOUCHED_S, Settlement
from support.queue_helpers import (
    DATA,
    SYSTEM,
    Writer,
    backlog,
    be_away,
    fetch,
    handle,
    pass_time,
    texts,
)
from support.queue_model import QueueModel
from support.waiting import PATIENCE_S, run

LONG_S = 60.0  # longer than any test has patience for


def test_age_counts_from_the_first_storing(make_store):
    """A message that was tried again, or outlived its holder, is as old as it was."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "retried", "crashed")])
            retried, crashed = await fetch(store)
            first_taken_at = time.monotonic()
            await store.mark_started([crashed])
            await asyncio.sleep(0.05)  # what is not to be forgotten
            again = Settlement(retried, how="retry", delay_s=0.01, reason="a test")
            await store.settle([again])
            await store.requeue_held_by(["consumer"])
            found = []
            while len(found) < 2:
                found += await fetch(store, consumer="next", wait_s=PATIENCE_S)
            assert {"retried", "crashed"} == set(texts(found))
            assert all(message.stored_at < first_taken_at + 0.01 for message in found)

    run(main())


def test_unkept_queue_falls_with_its_lease(make_store):
    """A queue that is not durable is gone once it was not renewed for a lease; its messages later."""

    async def main():
        async with make_store(lease_s=LONG_S) as store:
            for name in ("box", "empty"):
                await store.open(name, durable=False)
            await store.open("kept", durable=True)
            await store.renew([])
            await store.put([Writer().to("box", "x")])
            await pass_time(store, LONG_S + 0.1)
            assert ["empty"] == await store.renew(["empty", "kept"])
            assert ["box", "kept"] == [report.name for report in await store.stats()]
            await pass_time(store, KEPT_UNTOUCHED_S)
            assert ["box"] == await store.renew(["box", "kept"])

            assert ["kept"] == [report.name for report in await store.stats()]
            assert [0, 1] == [
                one.queues
                for one in await store.put([Writer("b").to(n, "y") for n in ("box", "*")])
            ]
            assert [] == await fetch(store)
            await store.open("box", durable=False)
            assert [] == await fetch(store)  # nothing of its former incarnation

    run(main())


def test_queues_outlive_an_outage(make_store):
    """No process renewed anything for longer than a lease: queues stay a while for those that reconnect."""

    async def main():
        async with make_store(lease_s=LONG_S) as store, make_store(lease_s=LONG_S) as other:
            for name in ("back", "late"):
                await store.open(name, durable=False)
            await store.renew(["back", "late"])
            await be_away(store, LONG_S + 60)
            assert [] == await other.renew([])
            stored = await other.put([Writer().to("back", "x")])
            assert [] == await store.renew(["back"])
            assert ([1], ["x"]) == (
                [one.queues for one in stored],
                texts(await fetch(store, "back")),
            )
            await pass_time(store, COMING_BACK_S + 0.1)
            assert ["late"] == await store.renew(["late"])

    run(main())


def test_touched_queue_stays(make_store):
    """A queue that is touched in time outlives its first lease."""

    async def main():
        async with make_store(lease_s=LONG_S) as store:
            await store.open("box", durable=False)
            await store.put([Writer().to("box", "x")])
            for _ in range(4):
                await pass_time(store, 0.4 * LONG_S)
                assert [] == await store.renew(["box"])

            assert ["x"] == texts(await fetch(store))

    run(main())


def test_kept_queue_stays_kept(make_store):
    """Opening again changes nothing of what is in it, and who does not keep it changes nothing."""

    async def main():
        async with make_store(lease_s=LONG_S) as store:
            await store.open("box", durable=False)
            await store.open("box", durable=True, max_backlog=2)
            writer = Writer()
            await store.put([writer.to("box", "1")])
            await store.open("box", durable=False, max_backlog=100)
            await pass_time(store, 2 * LONG_S)
            assert [] == await store.renew([])

            assert (await store.put([writer.to("box", "2", "3")]))[0].is_full
            assert ["1"] == texts(await fetch(store))

    run(main())


def test_reports_say_what_is_there(make_store):
    """Backlog, in flight, age, tried before, dead: as they are."""

    async def main():
        async with make_store() as store:
            await store.open("b", durable=True)
            await store.open("a", durable=True)
            await store.put([Writer().to("b", "1", "2", "3", "4", "5", "6")])
            messages = await fetch(store, "b")
            await store.settle([
                Settlement(messages[0]),
                Settlement(messages[1], how="retry"),
                Settlement(messages[2], how="retry", delay_s=60),
                Settlement(messages[3], how="dead_letter"),
            ])
            await asyncio.sleep(0.05)
            empty, full = await store.stats()

            assert ("a", 0, 0, None, 0, 0) == (
                empty.name, empty.backlog, empty.in_flight, empty.oldest_s, empty.retries, empty.dead,
            )  # fmt: skip
            assert ("b", 4, 2, 2, 1) == (
                full.name, full.backlog, full.in_flight, full.retries, full.dead,
            )  # fmt: skip
            assert 0.04 < full.oldest_s < 2 * PATIENCE_S
            await store.requeue_held_by(["consumer"])
            (again, *_) = await fetch(store, "b")
            await handle(store, [again])
            _, full = await store.stats()
            assert (3, 2) == (full.backlog, full.in_flight)

    run(main())


def test_purge_leaves_what_is_in_flight(make_store):
    """Purging empties a queue of waiting messages; those in flight can still be settled."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put(writer.each("box", "held", "later", "1", "2"))
            held, later = await store.fetch([("box", DATA, 2)], consumer="consumer", wait_s=0)
            await store.settle([Settlement(later, how="retry", delay_s=60)])
            await store.put([writer.to("box", "3", "4", lane=SYSTEM)])

            assert 5 == await store.purge("box")
            (report,) = await store.stats()
            assert (1, 1, 0) == (report.backlog, report.in_flight, report.retries)
            await handle(store, [held])
            assert 0 == await backlog(store)
            await store.put([writer.to("box", "new")])
            assert ["new"] == texts(await fetch(store))

    run(main())


def test_removed_queue_leaves_nothing(make_store):
    """A removed queue is gone with its dead letters; its consumers may still settle."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put(writer.each("box", "1", "2", "3"))
            dead, held = await store.fetch([("box", DATA, 2)], consumer="consumer", wait_s=0)
            await store.settle([Settlement(dead, how="dead_letter")])

            assert 1 == await store.purge("box", remove=True)
            await store.settle([Settlement(held)])
            assert [] == await store.stats()
            assert [] == await store.dead_letters()
            assert 0 == (await store.put([writer.to("box", "x")]))[0].queues
            assert 0 == await store.purge("box", remove=True)
            await store.open("box", durable=True)
            assert [] == await fetch(store)
            assert 0 == await backlog(store)

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_books_balance_under_random_use(make_store, seed):
    """Whatever is done in whatever order, each message is where it was last put, and counted so."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            model = QueueModel(store, seed)
            for _ in range(150):
                await model.do_something()
                await model.check()
            await model.finish()

    run(main())
