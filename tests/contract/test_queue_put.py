"""Putting into queues, on every broker: once, in full, to its address, within bounds."""

from support.queue_helpers import (
    DATA,
    SYSTEM,
    Writer,
    backlog,
    fetch,
    handle,
    texts,
)
from support.waiting import run


def test_put_is_taken_once(make_store):
    """A message is fetched with the id and body that were put, and by no other consumer meanwhile."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            outgoing = Writer().to("box", "hello", ids=["id-1"])
            (stored,) = await store.put([outgoing])
            (message,) = await fetch(store)

            assert (1, False) == (stored.queues, stored.is_full)
            assert ("box", DATA, "id-1") == (message.queue, message.lane, message.id)
            assert (1, 0, False) == (message.attempt, message.crashes, message.is_poison_suspect)
            assert ["hello"] == texts([message])
            assert [] == await fetch(store)
            assert [] == await fetch(store, consumer="sibling")
            await handle(store, [message])
            assert [] == await fetch(store)
            assert 0 == await backlog(store)

    run(main())


def test_bodies_come_back_unharmed(make_store):
    """What JSON can say survives: NUL, a lone surrogate, huge integers, no text, a mebibyte."""
    bodies = [
        rb'{"text":"a\u0000b"}',
        rb'{"text":"\ud800"}',
        b'{"text":123456789012345678901234567890}',
        b'{"text":1e400,"nested":[[],{}],"text2":1.0}',
        '{"text":"smörgås 🍞"}'.encode(),
        b'{"text":"' + b"x" * 1024 * 1024 + b'"}',
    ]

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            for body in bodies:
                outgoing = writer.to("box", "")
                outgoing.bodies[0] = body
                await store.put([outgoing])

            assert bodies == [message.body for message in await fetch(store)]

    run(main())


def test_broadcast_reaches_every_queue(make_store):
    """A broadcast is copied into every queue that exists, and handled apart in each."""

    async def main():
        async with make_store() as store:
            for name in ("a", "b", "c"):
                await store.open(name, durable=True)
            (stored,) = await store.put([Writer().to("*", "news", "more")])
            await handle(store, await fetch(store, "a"))

            assert 3 == stored.queues
            assert ["news", "more"] == texts(await fetch(store, "b"))
            assert [0, 2, 2] == [report.backlog for report in await store.stats()]

    run(main())


def test_unknown_queue_stores_nothing(make_store):
    """A message for a queue that does not exist is stored nowhere, and fetching from it is no error."""

    async def main():
        async with make_store() as store:
            stored = await store.put([Writer().to("nobody", "x"), Writer().to("*", "x")])

            assert [(0, False), (0, False)] == [(one.queues, one.is_full) for one in stored]
            assert [] == await fetch(store, "nobody")
            assert [] == await store.stats()

    run(main())


def test_repeated_batch_is_ignored(make_store):
    """A batch written again, as after a lost answer, is stored once; also what overlaps it."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer, again = Writer(), Writer()
            batch = [writer.to("box", "1", "2"), writer.to("box", "3"), writer.to("*", "4")]
            first = await store.put(batch)
            second = await store.put(batch)
            await store.put([again.to("box", "1", "2", "3", "new")])

            assert first == second
            assert ["1", "2", "3", "4", "new"] == texts(await fetch(store))
            assert 5 == await backlog(store)

    run(main())


def test_streams_are_numbered_apart(make_store):
    """Other senders, other streams of a sender and other lanes have numbers of their own."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer("a").to("box", "1")])
            await store.put([Writer("b").to("box", "2")])
            await store.put([Writer("a", stream=2).to("box", "3")])
            await store.put([Writer("a").to("box", "4", lane=SYSTEM)])
            await store.put([Writer("a").to("*", "5")])

            assert ["1", "2", "3", "4", "5"] == sorted(texts(await fetch(store)))

    run(main())


def test_numbers_may_have_gaps(make_store):
    """A sender that gave up some messages goes on with the next number."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "1")])
            writer.to("box", "given", "up")
            await store.put([writer.to("box", "4")])

            assert ["1", "4"] == texts(await fetch(store))

    run(main())


def test_full_queue_refuses_whole(make_store):
    """What does not fit is stored not at all, and fits once something was handled."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True, max_backlog=3)
            await store.open("other", durable=True, max_backlog=3)
            writer = Writer()
            await store.put([writer.to("box", "1", "2")])
            late = writer.to("box", "3", "4")
            refused, small, elsewhere = await store.put([
                late,
                writer.to("box", "5"),
                writer.to("other", "6"),
            ])

            assert (True, 0) == (refused.is_full, refused.queues)
            assert small.is_full  # or it would overtake
            assert (False, 1) == (elsewhere.is_full, elsewhere.queues)
            messages = await fetch(store)
            assert ["1", "2"] == texts(messages)
            assert (await store.put([late]))[0].is_full  # in flight counts
            await handle(store, messages[:1])
            assert not (await store.put([late]))[0].is_full
            assert ["3", "4"] == texts(await fetch(store))

    run(main())


def test_refused_keeps_its_place(make_store):
    """Nothing of a lane overtakes a refused broadcast, nor a broadcast what was refused."""

    async def main():
        async with make_store() as store:
            await store.open("full", durable=True, max_backlog=2)
            await store.open("free", durable=True)
            writer = Writer()
            await store.put([writer.to("full", "1")])
            batch = [
                writer.to("full", "2", "3"),
                writer.to("free", "4"),
                writer.to("*", "5"),
                writer.to("free", "6"),
                writer.to("free", "7", lane=SYSTEM),
            ]
            stored = await store.put(batch)

            assert [True, False, True, True, False] == [one.is_full for one in stored]
            assert ["7", "4"] == texts(await fetch(store, "free"))
            await handle(store, await fetch(store, "full"))
            stored = await store.put([
                one for one, was in zip(batch, stored, strict=True) if was.is_full
            ])
            assert [False, True, True] == [one.is_full for one in stored]

    run(main())


def test_repeated_batch_is_never_refused(make_store):
    """What was stored before the answer was lost is confirmed, even if the queue is full now."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True, max_backlog=2)
            batch = [Writer().to("box", "1", "2")]
            await store.put(batch)
            (stored,) = await store.put(batch)

            assert (1, False) == (stored.queues, stored.is_full)

    run(main())


def test_oversized_entry_fits_empty(make_store):
    """An entry of more messages than a queue may hold gets in when nothing else is there."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True, max_backlog=2)
            writer = Writer()
            first = await store.put([writer.to("box", "1", "2", "3")])
            second = await store.put([writer.to("box", "4")])

            assert [False, True] == [first[0].is_full, second[0].is_full]

    run(main())


def test_names_do_not_collide(make_store):
    """Mailboxes whose names contain each other share nothing."""
    names = ["x", "x.1", "x.10", "x-1", "x_1", "X"]

    async def main():
        async with make_store() as store:
            writer = Writer()
            for name in names:
                await store.open(name, durable=True)
                await store.put([writer.to(name, name)])
            await store.purge("x", remove=True)

            assert [[name] for name in names[1:]] == [
                texts(await fetch(store, name)) for name in names[1:]
            ]

    run(main())


def test_shared_queue_gets_no_broadcast(make_store):
    """What replicas share gets what is sent to it, but no copy of a broadcast."""

    async def main():
        async with make_store() as store:
            await store.open("x", durable=True, shared=True)
            await store.open("x.1", durable=True)
            writer = Writer()
            stored = await store.put([writer.to("*", "all"), writer.to("x", "one")])

            assert [1, 1] == [one.queues for one in stored]
            assert ["one"] == texts(await fetch(store, "x"))
            assert ["all"] == texts(await fetch(store, "x.1"))

    run(main())
