"""Messages that Postgres pushes with the notification: to which consumer, in which order, none lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pbus.bus.pgmq.queue_store import PgmqQueueStore, standalone_store
from pbus.bus.pgmq.server.endpoint import Endpoint
from pbus.bus.queues.store import Settlement
from pbus.errors import BusUnavailableError
from support.postgres import query
from support.queue_helpers import DATA, SYSTEM, Writer, fetch, handle, texts
from support.waiting import PATIENCE_S, run, until

pytestmark = pytest.mark.pgmq


class Handler:
    """Takes from `box`, again and again, and notes what it got.

    Attributes:
        asked: How often it asked the server for messages.
    """

    def __init__(self, store: PgmqQueueStore, consumer: str = "consumer") -> None:
        self.store = store
        self.consumer = consumer
        self.messages = []
        self.asked = 0
        self._ask = store.fetcher._query
        store.fetcher._query = self._count

    async def _count(self, wanted, consumer):
        self.asked += 1
        return await self._ask(wanted, consumer)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(BusUnavailableError):  # as a queue consumer does
                messages = await fetch(self.store, consumer=self.consumer, wait_s=PATIENCE_S)
                self.messages += messages
                await handle(self.store, messages)

    async def has(self, *expected: str) -> None:
        """Wait until it got so many, and see that it is these."""
        await until(lambda: len(self.messages) >= len(expected))
        assert list(expected) == texts(self.messages)

    async def is_waited_for(self, database: str) -> None:
        """Wait until the server hands over to it."""
        async with asyncio.timeout(PATIENCE_S):
            while not await query(
                database,
                "SELECT FROM pbus.push_consumer w JOIN pbus.consumer h ON h.name = w.consumer"
                " WHERE w.channel = $1 AND w.consumer = $2",
                self.store._channel,
                self.consumer,
            ):
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def handling(store, database, consumer="consumer") -> AsyncIterator[Handler]:
    """A handler to which the server hands over."""
    handler = Handler(store, consumer)
    task = asyncio.create_task(handler.run())
    try:
        await handler.is_waited_for(database)
        yield handler
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextlib.asynccontextmanager
async def stored(database, channel, *, shared=False, **options) -> AsyncIterator[PgmqQueueStore]:
    """A store with a queue."""
    store = standalone_store(Endpoint(dsn=database), channel, **options)
    try:
        await store.open("box", durable=True, shared=shared)
        yield store
    finally:
        await store.close()


def test_message_comes_unasked(database, channel, monkeypatch):
    """Who has emptied its queue gets the next messages without asking, in both lanes, in order."""
    monkeypatch.setattr("pbus.bus.pgmq.fetcher._EMPTY_S", PATIENCE_S)  # nor does it look around

    async def main():
        async with stored(database, channel) as store, handling(store, database) as handler:
            asked, writer = handler.asked, Writer()
            for number in range(20):
                lane = SYSTEM if number % 5 == 0 else DATA
                await store.put([writer.to("box", str(number), lane=lane)])
                await until(lambda whole=number + 1: len(handler.messages) == whole)
            assert [str(number) for number in range(20)] == texts(handler.messages)
            assert asked == handler.asked

    run(main())


def test_nothing_is_overtaken(database, channel):
    """A pushed message stays behind those in the queue, however batches and single messages mix."""

    async def main():
        async with stored(database, channel) as store, handling(store, database) as handler:
            writer, count = Writer(), 0
            for size in (1, 1, 3, 1, 40, 1, 1, 1, 2, 1) * 5:
                names = [str(count + each) for each in range(size)]
                await store.put(writer.each("box", *names))
                count += size
            await handler.has(*map(str, range(count)))

    run(main())


def test_too_long_for_a_notification(database, channel):
    """A long message is taken as ever, and the next short one comes after it."""

    async def main():
        async with stored(database, channel) as store, handling(store, database) as handler:
            writer = Writer()
            long = [char * 9000 for char in "aé"]
            short = ["ü" * 2000, '"\\\n\0' * 500, "\N{GRINNING FACE}"]
            for text in (*long, *short):
                await store.put([writer.to("box", text)])
            await handler.has(*long, *short)

    run(main())


def test_lost_notification_loses_nothing(database, channel):
    """What was handed over to a broken connection is found by the next one, once."""

    async def main():
        async with stored(database, channel) as store, handling(store, database) as handler:
            staying = asyncio.create_task(store._reader.run())  # a bus has it run
            writer = Writer()
            sent = 0
            for _ in range(3):
                (own,) = store._connections._handlers
                unread = []
                while not unread:  # one that comes while he takes is not handed over
                    store._connections._handlers[own] = unread.append  # the connection ends before
                    await store.put([writer.to("box", str(sent))])
                    sent += 1
                    await until(lambda whole=sent: unread or len(handler.messages) == whole)  # noqa: B023
                ours = "application_name = 'pbus' AND datname = current_database()"
                await query(
                    database, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"
                )
                await until(lambda whole=sent: len(handler.messages) == whole)
                await handler.is_waited_for(database)
            held = "SELECT count(*) FROM pbus.in_flight WHERE channel = $1"
            async with asyncio.timeout(PATIENCE_S):
                while (await query(database, held, channel))[0][0]:
                    await asyncio.sleep(0.01)
            staying.cancel()
            await asyncio.wait({staying})

    run(main())


def test_take_that_reconnects_finds_all(database, channel):
    """A message pushed to a lost connection is found, too, when it is the next fetch that connects."""

    async def main():
        async with (
            stored(database, channel) as store,
            stored(database, channel) as other,
            handling(store, database) as handler,
        ):
            writer = Writer()
            await other.put([writer.to("box", "1")])
            await handler.has("1")
            pid = (await store._reader.call("SELECT pg_backend_pid()"))[0][0]
            await query(database, f"SELECT pg_terminate_backend({pid})")
            await until(lambda: not store._reader.is_up)
            await other.put([writer.to("box", "2")])
            store.fetcher.wakeups.notified(set())
            await handler.has("1", "2")

    run(main())


def test_dead_are_handed_nothing(database, channel):
    """After a process was given up, its messages wait for the next."""

    async def main():
        async with stored(database, channel) as store, stored(database, channel) as other:
            writer = Writer()
            async with handling(store, database, "dead.1"):
                pass
            await other.requeue_held_by(["dead"])
            await other.put([writer.to("box", "1")])
            assert ["1"] == texts(await fetch(other, consumer="next"))

    run(main())


def test_given_up_gets_back_what_was_handed(database, channel):
    """What a dead process was handed and had not settled goes to the next, at once."""

    async def main():
        async with stored(database, channel) as store, stored(database, channel) as other:
            writer = Writer()
            async with handling(store, database, "dead.1"):
                pass
            await other.put([writer.to("box", "1")])
            assert [] == await fetch(other, consumer="next")
            await other.requeue_held_by(["dead"])
            (message,) = await fetch(other, consumer="next")
            assert (["1"], True) == (texts([message]), message.is_poison_suspect)

    run(main())


def test_silent_holder_loses_what_was_handed(database, channel):
    """No process needs to report the death."""

    async def main():
        async with (
            stored(database, channel, hold_s=0.2) as store,
            stored(database, channel, hold_s=0.2) as other,
        ):
            async with handling(store, database, "silent"):
                pass
            await other.put([Writer().to("box", "1")])
            async with asyncio.timeout(PATIENCE_S):
                while not (messages := await fetch(other, consumer="next")):
                    await other.renew(["box"])
                    await asyncio.sleep(0.02)
            assert ["1"] == texts(messages)

    run(main())


def test_replicas_are_not_handed(database, channel):
    """A queue that several take from keeps its messages until one asks."""

    async def main():
        async with stored(database, channel, shared=True) as store:
            taking = asyncio.create_task(fetch(store, consumer="one", wait_s=PATIENCE_S))
            await until(lambda: store.fetcher.push._subscribed)
            await store.put([Writer().to("box", "1")])
            assert ["1"] == texts(await taking)
            assert [] == await query(
                database, "SELECT FROM pbus.push_consumer WHERE channel = $1", channel
            )

    run(main())


def test_left_queue_is_not_handed(database, channel):
    """Who wants other queues than before gets nothing of those it left."""

    async def main():
        async with stored(database, channel) as store:
            await store.open("next", durable=True)
            async with handling(store, database):
                pass
            taking = asyncio.create_task(fetch(store, "next", wait_s=PATIENCE_S))
            waits = (
                "SELECT m.name FROM pbus.push_consumer w JOIN pbus.queue m ON m.id = w.queue_id"
                " WHERE w.channel = $1"
            )
            async with asyncio.timeout(PATIENCE_S):
                while [row[0] for row in await query(database, waits, channel)] != ["next"]:
                    await asyncio.sleep(0.01)
            writer = Writer()
            await store.put([writer.to("box", "1")])
            await store.put([writer.to("next", "2")])
            assert ["2"] == texts(await taking)
            assert ["1"] == texts(await fetch(store, consumer="other"))

    run(main())


def test_handed_for_what_was_left_meanwhile(database, channel):
    """What came for a queue that its consumer then left is given to it, to give it to others."""

    async def main():
        async with stored(database, channel) as store:
            await store.open("next", durable=True)
            async with handling(store, database) as handler:
                pass
            await store.put([Writer().to("box", "1")])
            await until(
                lambda: store.fetcher.push._prefetched
            )  # it has left and the server does not know
            asked = handler.asked
            (message,) = await fetch(store, "next", wait_s=PATIENCE_S)
            assert ("box", ["1"]) == (message.queue, texts([message]))
            assert handler.asked - asked <= 1
            await store.settle([Settlement(message=message, how="requeue")])
            assert ["1"] == texts(await fetch(store, consumer="other", wait_s=PATIENCE_S))

    run(main())


def test_handed_for_what_another_call_wants(database, channel):
    """A consumer with several calls gets each message in the one that wants it."""

    async def main():
        async with stored(database, channel) as store:
            await store.open("next", durable=True)
            async with handling(store, database):
                pass
            await store.put([Writer().to("box", "1")])
            await until(lambda: store.fetcher.push._prefetched)
            messages = store.fetcher.push._prefetched.pop("consumer")
            taking = asyncio.create_task(fetch(store, wait_s=PATIENCE_S))
            await until(lambda: store.fetcher.wakeups._waiting)
            store.fetcher.push._prefetched["consumer"] = messages
            assert [] == await fetch(store, "next")
            assert ["1"] == texts(await taking)

    run(main())


def test_retry_holds_the_next_back(database, channel):
    """While a message waits for another try the others are taken as ever, and none is lost."""

    async def main():
        async with stored(database, channel) as store:
            async with handling(store, database):
                pass
            writer = Writer()
            await store.put([writer.to("box", "1")])
            (message,) = await fetch(store, wait_s=PATIENCE_S)
            await store.settle([
                Settlement(message=message, how="retry", delay_s=0.05, reason="no")
            ])
            await store.put([writer.to("box", "2")])
            found = []
            async with asyncio.timeout(PATIENCE_S):
                while len(found) < 2:
                    found += await fetch(store, wait_s=PATIENCE_S)
            assert ["1", "2"] == sorted(texts(found))

    run(main())


def test_answers_are_bounded_in_bytes(database, channel):
    """However many queues are full, a take carries a few MiB, also of what was lost before."""
    most = 6 * 1024 * 1024
    boxes, each = [f"box{number}" for number in range(6)], 3

    async def main():
        async with stored(database, channel) as store:
            writer = Writer()
            for box in boxes:
                await store.open(box, durable=True)
                await store.put(writer.each(box, *(str(n) * 450_000 for n in range(each))))
            wanted = [(box, lane, 100) for box in boxes for lane in (SYSTEM, DATA)]

            async def rest() -> None:
                found = {box: [] for box in boxes}
                while sum(map(len, found.values())) < len(boxes) * each:
                    messages = await store.fetch(wanted, consumer="consumer", wait_s=PATIENCE_S)
                    assert 0 < sum(len(message.body) for message in messages) < most
                    for message in messages:
                        found[message.queue].append(texts([message])[0][0])
                assert all(list("012") == numbers for numbers in found.values())

            async with asyncio.timeout(PATIENCE_S):
                await rest()
                store.fetcher.uncertainty._held.clear()  # as though no answer had come
                store.fetcher.uncertainty.doubt("consumer")
                await rest()
            assert [] == await store.fetch(wanted, consumer="consumer", wait_s=0.0)
            assert not store.fetcher.uncertainty._uncertain

    run(main())
