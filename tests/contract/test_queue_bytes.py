"""What queues hold is bounded in bytes, and counted exactly."""

import pytest

from pbus.bus.queues.store import DEAD_BYTES, DEAD_KEPT, Settlement
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.bus.redis.scripts.common_lua import Script
from pbus.bus.redis.scripts.delivery_lua import SETTLE
from support.queue_helpers import (
    DATA,
    SYSTEM,
    Writer,
    fetch,
    handle,
    kept_bytes,
    pass_time,
    texts,
)
from support.waiting import run


async def size_of(store, queue="box"):
    """How many bytes a queue holds, as it is told."""
    return {one.name: one.backlog_bytes for one in await store.stats()}[queue]


@pytest.mark.parametrize("is_batch", [False, True])
def test_full_of_bytes_refuses(make_store, is_batch):
    """What does not fit by its bytes is refused with who holds how many, and fits when there is room."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True, max_bytes=10_000)
            await store.open("other", durable=True)
            writer = Writer()

            async def put(outgoing):
                others = [writer.to("other", "x")] if is_batch else []
                return (await store.put([outgoing, *others]))[0]

            assert not (await put(writer.to("box", "1" * 4_000))).is_full
            assert not (await put(writer.to("box", "2" * 4_000))).is_full
            held = await size_of(store)
            late = writer.to("box", "3" * 4_000)
            refused = await put(late)

            assert (True, 0) == (refused.is_full, refused.queues)
            assert f"its queue 'box' holds {held:,} bytes of at most 10,000" in refused.why
            assert "max_backlog_bytes" in refused.why
            assert 8_000 < held < 8_200
            assert held == await size_of(store)
            messages = await fetch(store)
            assert (await put(late)).is_full  # in flight counts
            await handle(store, messages[:1])
            assert not (await put(late)).is_full

    run(main())


def test_one_batch_fills_by_bytes(make_store):
    """Within a batch each entry finds what those before it took, a broadcast in each queue."""

    async def main():
        async with make_store() as store:
            for name in ("a", "b"):
                await store.open(name, durable=True, max_bytes=10_000)
            writer = Writer()
            texts_ = [str(n) * 4_000 for n in range(3)]
            stored = await store.put([
                *writer.each("a", *texts_),
                writer.to("*", "y" * 4_000, lane=SYSTEM),
                writer.to("b", "z"),
            ])

            assert [False, False, True, True, False] == [one.is_full for one in stored]
            assert "'a' holds" in stored[3].why
            await handle(store, await fetch(store, "a"))
            assert [False] == [
                one.is_full for one in await store.put([Writer("w2").to("*", "y" * 4_000)])
            ]
            assert await kept_bytes(store) == await size_of(store, "a") + await size_of(store, "b")

    run(main())


def test_empty_queue_takes_any_size(make_store):
    """A message larger than all that a queue may hold gets in when nothing else is there."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True, max_bytes=10_000)
            writer = Writer()
            (first,) = await store.put([writer.to("box", "x" * 50_000)])
            (second,) = await store.put([writer.to("box", "y")])

            assert [False, True] == [first.is_full, second.is_full]
            await handle(store, await fetch(store))
            assert 0 == await size_of(store)

    run(main())


@pytest.mark.parametrize("is_batch", [False, True])
def test_channel_is_bounded(make_store, is_batch):
    """All queues together hold four times what one may; those with little go on."""

    async def main():
        async with make_store() as store:
            writer = Writer()
            for name in "abcde":
                await store.open(name, durable=True, max_bytes=64_000)
            for name in "abcd":
                await store.put([writer.to(name, "x" * 62_000)])
            small, large = writer.to("e", "x" * 500), writer.to("e", "y" * 10_000)

            async def put(outgoing):
                spare = [Writer(f"w{outgoing.first}").to("e", "")] if is_batch else []
                return (await store.put([outgoing, *spare]))[0]

            assert not (await put(small)).is_full
            refused = await put(large)
            assert refused.is_full
            assert "all queues of the channel hold" in refused.why
            assert "of at most 256,000" in refused.why
            await handle(store, await fetch(store, "a"))
            assert not (await put(large)).is_full

    run(main())


def test_bytes_survive_all_ends(make_store):
    """Purged, retried later, dead-lettered, requeued, dropped, expired: the stats match what is there."""

    async def main():
        async with make_store() as store:

            async def check(*, is_empty=False):
                size = await size_of(store)
                assert await kept_bytes(store) == size
                assert (size == 0) == is_empty

            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", *"12345"), writer.to("box", "6", lane=SYSTEM)])
            messages = await fetch(store)
            await store.settle([
                Settlement(messages[0], how="retry", delay_s=60),
                Settlement(messages[1], how="dead_letter", reason="so it goes"),
                Settlement(messages[2], how="requeue"),
            ])
            await check()
            await store.settle([Settlement(messages[3])])
            await store.settle([Settlement(messages[3]), Settlement(messages[4])])
            await check()
            await store.mark_started(messages[5:])
            await store.requeue_held_by(["consumer"])
            await check()
            (dead,) = await store.dead_letters()
            await store.requeue_dead([dead.key])
            await check()
            for message in await fetch(store):
                await store.settle([Settlement(message, how="dead_letter")])
            await store.drop_dead([dead.key for dead in await store.dead_letters()])
            await check()
            await store.purge("box")
            await check(is_empty=True)

    run(main())


def test_expired_queue_leaves_no_bytes(make_store):
    """What an expired or removed queue held does not count for the channel."""

    async def main():
        async with make_store() as store:
            writer = Writer()
            for name in "abcd":
                await store.open(name, durable=name == "d", max_bytes=64_000)
                await store.put([writer.to(name, "x" * 63_000)])
            await store.renew(["d"])
            await pass_time(store, 3600)
            await store.renew(["d"])
            await store.purge("d", remove=True)
            await store.open("e", durable=True, max_bytes=64_000)
            stored = [(await store.put([writer.to("e", "y" * 20_000)]))[0] for _ in range(3)]

            assert ["e"] == [one.name for one in await store.stats()]
            assert [False] * 3 == [one.is_full for one in stored]
            assert await kept_bytes(store) == await size_of(store, "e")

    run(main())


def test_foreign_removal_is_counted_again(make_store):
    """What others took out of the broker stops to count, once it is noticed."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            for text in "1234":
                await store.put([writer.to("box", text * 1000)])
            messages = await fetch(store)
            await remove_all(store)
            await store.settle([Settlement(message) for message in messages[:2]])
            await store.settle([Settlement(message, how="retry") for message in messages[2:]])

            await store.renew(["box"])
            assert (0, 0) == (await size_of(store), await kept_bytes(store))
            await store.put([writer.to("box", "5")])
            assert ["5"] == texts(await store.fetch([("box", DATA, 9)], consumer="other", wait_s=0))
            assert await kept_bytes(store) == await size_of(store) > 0

    run(main())


def test_purged_strangers_do_not_count(make_store):
    """Entries that others wrote into a queue are purged, and take no bytes off the queue."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "mine")])
            (message,) = await fetch(store)
            if isinstance(store, RedisQueueStore):
                fields = ("a", "1", "b", "x" * 5_000)
                await store._scripts.plain("XADD", f"{store._key}:q:d:box", "*", *fields)
            else:
                queue = await queue_of(store)
                sql = (
                    f"INSERT INTO pgmq.q_{queue}_d (vt, message) VALUES (now(), to_jsonb($1::text))"
                )
                await store._writer.call(sql, "x" * 5_000)
            await store.purge("box")
            assert await kept_bytes(store) == await size_of(store) > 0
            await handle(store, [message])
            assert 0 == await size_of(store)
            assert 0 == (await store.stats())[0].backlog

    run(main())


async def queue_of(store):
    """The name of the one queue's queues on Postgres."""
    sql = "SELECT base FROM pbus.queue WHERE channel = $1"
    return (await store._writer.call(sql, store._channel))[0][0]


async def remove_all(store):
    """Remove what is in a queue behind its back."""
    if isinstance(store, RedisQueueStore):
        await store._scripts.plain("XTRIM", f"{store._key}:q:d:box", "MAXLEN", 0)
        return
    await store._writer.call(f"DELETE FROM pgmq.q_{await queue_of(store)}_d")


def test_dead_letters_are_bounded(make_store, monkeypatch, caplog):
    """The oldest dead letters fall, by their bytes and by their number; it is counted and said."""
    monkeypatch.setattr("pbus.bus.pgmq.queue_store.DEAD_BYTES", 200_000)
    monkeypatch.setattr("pbus.bus.pgmq.queue_store.DEAD_KEPT", 30)
    source = SETTLE.source.replace(f"{DEAD_KEPT}, {DEAD_BYTES}", "30, 200000")
    monkeypatch.setattr("pbus.bus.redis.queue_store.SETTLE", Script(source))

    async def main():
        async with make_store() as store:

            async def dead_letter(count, size):
                writer = Writer(f"{count} of {size}")
                for number in range(count):
                    await store.put([writer.to("box", f"{number} " + "x" * size)])
                messages = await fetch(store)
                await store.settle([
                    Settlement(one, how="dead_letter", reason="so") for one in messages
                ])
                found = await store.dead_letters()
                return [text.split()[0] for text in texts(found)], (await store.stats())[0]

            await store.open("box", durable=True)
            kept, report = await dead_letter(10, 50_000)
            assert 3 == len(kept) == report.dead
            assert ["7", "8", "9"] == kept
            assert 7 == report.dead_fell
            assert "7 dead letters of 'box' fell, the oldest" in caplog.text
            kept, report = await dead_letter(1, 500_000)
            assert (["0"], 10) == (kept, report.dead_fell)  # the newest stays, whatever its size
            assert 1 == await store.drop_dead([(await store.dead_letters())[0].key])
            kept, report = await dead_letter(40, 10)
            assert 28 <= len(kept) <= 30
            assert ["38", "39"] == kept[-2:]
            assert 50 - len(kept) == report.dead_fell
            requeued = await store.requeue_dead([one.key for one in await store.dead_letters()])
            assert len(kept) == requeued == (await store.stats())[0].backlog
            await handle(store, await fetch(store))
            kept, _ = await dead_letter(3, 50_000)
            assert ["0", "1", "2"] == kept  # what was put back counts no longer

    run(main())
