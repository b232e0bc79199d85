"""Purging a queue on every broker: all that waits falls, what is in flight stays whole."""

import asyncio
import contextlib

import pytest

from pbus.bus.pgmq import queue_store as pgmq_store
from pbus.bus.queues.store import Settlement
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.bus.redis.scripts.admin_lua import KEPT_AT_ONCE, PURGED_AT_ONCE
from support.queue_helpers import (
    DATA,
    SYSTEM,
    Writer,
    backlog,
    fetch,
    handle,
    kept_bytes,
    texts,
)
from support.waiting import PATIENCE_S, run

MANY = KEPT_AT_ONCE + 50  # in flight: Redis purges in slices


async def base_of(store):
    """The name of the queue's tables on Postgres."""
    sql = "SELECT base FROM pbus.queue WHERE channel = $1"
    return (await store._writer.call(sql, store._channel))[0][0]


@contextlib.asynccontextmanager
async def used_by_another(store):
    """Hold a lock on a table, as a dump does; not on Redis, where nothing locks."""
    if isinstance(store, RedisQueueStore):
        yield
        return
    connection = await store._writer._endpoint.connect_bare()
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT FROM pgmq.q_{await base_of(store)}_d LIMIT 1")
            yield
    finally:
        await connection.close()


async def taken(store, many, *, lane=DATA, consumer="consumer"):
    """Take so many messages, in fetches of what a process fetches."""
    found = []
    while len(found) < many:
        wanted = [("box", lane, min(1_000, many - len(found)))]
        found += await store.fetch(wanted, consumer=consumer, wait_s=0)
    return found


async def see_whole(store, held, expected):
    """What is in flight is given back once its holder is dead, in order; then the queue is empty."""
    (report,) = await store.stats()
    counts = (report.backlog, report.in_flight, report.retries, report.backlog_bytes)
    assert (len(held), len(held), 0, await kept_bytes(store)) == counts
    assert [] == await fetch(store, consumer="other")
    await store.put([Writer("later").to("box", "new")])
    assert len(held) == await store.requeue_held_by(["consumer"])
    again = await taken(store, len(held) + 1, consumer="other")
    assert [*expected, "new"] == texts(again)
    await handle(store, again)
    (report,) = await store.stats()
    assert (0, 0, 0) == (report.backlog, report.in_flight, report.backlog_bytes)


@pytest.mark.parametrize("in_flight", [0, 3, MANY])
def test_all_but_what_is_in_flight_falls(make_store, in_flight):
    """However much is in flight: it stays in its consumer's hands, and its counts are right."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            waiting = PURGED_AT_ONCE * 2 + 7
            await store.put(writer.each("box", *map(str, range(in_flight + waiting))))
            held = await taken(store, in_flight)
            await store.put([writer.to("box", *"abc", lane=SYSTEM)])

            assert waiting + 3 == await store.purge("box")
            assert 0 == await store.purge("box")
            await see_whole(store, held, map(str, range(in_flight)))

    run(main())


@pytest.mark.parametrize("in_flight", [2, MANY])
def test_parts_of_entries_in_flight_stay(make_store, in_flight):
    """Entries of many messages, some of them settled; retries and what was given back fall."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "retry", "back")])
            retry, back = await fetch(store, consumer="first")
            await store.settle([Settlement(retry, how="retry", delay_s=60)])
            await store.settle([Settlement(back, how="requeue")])
            (back,) = await fetch(store, consumer="first")
            await store.settle([Settlement(back, how="retry", delay_s=0)])
            entries = [writer.to("box", f"{n}a", f"{n}b") for n in range(in_flight)]
            await store.put(entries)
            again, *held = await taken(store, 1 + 2 * in_flight)
            assert ["back"] == texts([again])
            await store.settle([Settlement(again, how="retry", delay_s=0)])
            await handle(store, held[::2])
            await store.put([writer.to("box", "x", "y")])

            assert 4 == await store.purge("box")
            await see_whole(store, held[1::2], [f"{n}b" for n in range(in_flight)])

    run(main())


def test_purge_in_slices_while_others_use_a_table(make_store, monkeypatch):
    """A dump that reads a table does not keep a queue from being purged."""
    monkeypatch.setattr(pgmq_store, "PURGED_AT_ONCE", 10)

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put(Writer().each("box", *map(str, range(45))))
            held = await taken(store, 12)
            await store.put([Writer("w").to("box", "s", lane=SYSTEM)])
            async with used_by_another(store):
                assert 34 == await store.purge("box")
            await see_whole(store, held, map(str, range(12)))

    run(main())


def test_purge_among_senders_and_consumers(make_store):
    """Messages sent and handled meanwhile: each is handled or falls, and the counts add up."""

    async def main():
        async with make_store() as store, make_store() as other, make_store() as third:
            await store.open("box", durable=True)
            sent, handled, is_over, has_sent = 0, 0, False, False

            async def send():
                nonlocal sent, has_sent
                writer = Writer()
                while not is_over:
                    (result, *_) = await store.put([writer.to("box", "x", "y")])
                    sent += 2 * result.queues
                has_sent = True

            async def consume():
                nonlocal handled
                while not has_sent or await backlog(third):
                    found = await fetch(other)
                    await handle(other, found)
                    handled += len(found)

            fell = 0
            async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(send())
                tasks.create_task(consume())
                for _ in range(8):
                    before = sent
                    while sent < before + 20:
                        await asyncio.sleep(0)
                    fell += await third.purge("box")
                is_over = True
            assert sent == handled + fell
            (report,) = await store.stats()
            assert (0, 0, 0) == (report.backlog, report.in_flight, report.backlog_bytes)

    run(main())


def test_lease_of_a_purged_queue(make_store):
    """A queue that is not durable ends by itself after it was purged with messages in flight."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=False)
            await store.renew(["box"])
            await store.put(Writer().each("box", *"abc"))
            (held,) = await taken(store, 1)
            assert 2 == await store.purge("box")
            if isinstance(store, RedisQueueStore):
                assert await store._scripts.plain("PTTL", f"{store._key}:q:d:box") > 0
            await handle(store, [held])
            assert [] == await store.renew(["box"])

    run(main())


def test_removed_with_messages_in_flight(make_store):
    """What falls is what waited; what was in flight is gone, and settled without a trace."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", *"abcde")])
            held = await taken(store, 5)
            await handle(store, held[:2])
            await store.put([Writer("w").to("box", *"fgh")])
            assert 3 == await store.purge("box", remove=True)
            assert 0 == await store.purge("box", remove=True)
            assert 0 == await store.purge("box")
            await handle(store, held)
            assert [] == await store.stats()

    run(main())


@pytest.mark.pgmq
def test_purge_gives_the_disk_back(shared_database, channel):
    """The tables of a purged queue are as small as new ones, with what is in flight in them."""

    async def main():
        store = pgmq_store.standalone_store(pgmq_store.Endpoint(dsn=shared_database), channel)
        try:
            await store.open("box", durable=True)
            await store.put(Writer().each("box", *["x" * 900] * 1_000))
            held = await taken(store, 3)
            sql = f"SELECT pg_total_relation_size('pgmq.q_{await base_of(store)}_d')"
            ((before,),) = await store._writer.call(sql)
            await store.purge("box")
            ((after,),) = await store._writer.call(sql)
            assert after < 100_000 < before
            await see_whole(store, held, ["x" * 900] * 3)
        finally:
            await store.close()

    run(main())


def test_age_and_retries_without_reading_all(make_store):
    """The oldest counts, whether it came the usual way, was tried again or was given back."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "first")])
            (first,) = await fetch(store)
            await asyncio.sleep(0.05)  # an age
            await store.put(writer.each("box", "second", "third"))
            await store.settle([Settlement(first, how="retry", delay_s=60)])
            (report,) = await store.stats()
            assert report.retries == 1
            assert 0.04 < report.oldest_s
            await asyncio.sleep(0.05)
            second, third = await fetch(store)
            await handle(store, [second])
            await store.settle([Settlement(third, how="retry", delay_s=60)])
            await store.put([writer.to("box", "fourth", lane=SYSTEM)])
            (report,) = await store.stats()
            assert (3, 2) == (report.backlog, report.retries)
            assert 0.09 < report.oldest_s
            assert 3 == await store.purge("box")
            (report,) = await store.stats()
            assert (0, 0, None) == (report.backlog, report.retries, report.oldest_s)

    run(main())


def test_dead_letters_go_back_in_parts(make_store, monkeypatch):
    """However many are put back or dropped, one call of the broker is about a bounded number."""
    monkeypatch.setattr("pbus.bus.queues.store.SETTLED_AT_ONCE", 10)

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", *map(str, range(25)))])
            dead = [Settlement(one, how="dead_letter") for one in await fetch(store)]
            await store.settle(dead)
            keys = [one.key for one in await store.dead_letters()]
            sizes = calls_about(store, monkeypatch)
            assert 25 == await store.requeue_dead(["nonsense", *keys, *keys])
            assert max(sizes) <= 10 < sum(sizes)
            assert [] == await store.dead_letters()

            await store.settle([Settlement(one, how="dead_letter") for one in await fetch(store)])
            keys = [one.key for one in await store.dead_letters()]
            sizes.clear()
            assert 25 == await store.drop_dead([*keys, "nonsense"])
            assert 0 == await store.drop_dead(keys)
            assert max(sizes) <= 10 < sum(sizes)
            assert 0 == await store.drop_dead([])
            assert 0 == await backlog(store)

    run(main())


def calls_about(store, monkeypatch):
    """How many dead letters each call from now on is about."""
    sizes = []
    if isinstance(store, RedisQueueStore):
        place, name = store._scripts, "run"
    else:
        place, name = store._writer, "call"
    plain = getattr(place, name)

    async def note(first, second, *arguments, **options):
        if isinstance(store, RedisQueueStore) and first == "care":
            sizes.append(len(arguments) // 2)
        elif "_dead(" in str(first):
            sizes.append(len(arguments[0]))
        return await plain(first, second, *arguments, **options)

    monkeypatch.setattr(place, name, note)
    return sizes
