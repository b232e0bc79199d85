"""Storing what is sent, without a broker."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from pbus.bus.coalescing import EVERYONE
from pbus.bus.queues.pending_put import EncodedMessage
from pbus.bus.queues.producer import QueueProducer
from pbus.bus.queues.store import PutResult
from pbus.errors import BrokerFaultError, BusUnavailableError
from pbus.messages import Lane
from pbus.settings import BusSettings
from support.waiting import run


class PlainStore:
    """Stores nothing at once."""

    put_now = None


class FaultyStore(PlainStore):
    """Raises what no store should, once."""

    def __init__(self) -> None:
        self.is_faulty = True

    async def put(self, entries):
        if self.is_faulty:
            self.is_faulty = False
            raise ValueError("a bug")
        return [PutResult(queues=1) for _ in entries]


def test_fault_costs_one_batch(caplog: pytest.LogCaptureFixture):
    """A bug below is raised at its senders, logged, and stops no later ones."""

    async def main():
        dispatch = QueueProducer(FaultyStore(), "me", BusSettings(send_timeout=5.0))
        tasks = [asyncio.create_task(chore()) for chore in dispatch.tasks()]
        try:
            with pytest.raises(ValueError, match="a bug"):
                await dispatch.put(EncodedMessage("w", Lane.DATA, "1", b"{}"))
            assert 1 == await dispatch.put(EncodedMessage("w", Lane.DATA, "2", b"{}"))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(main())

    assert "storing messages failed" in caplog.text


class ChoosyStore(PlainStore):
    """Stores no batch that has a certain message in it."""

    def __init__(self) -> None:
        self.stored: list[str] = []

    async def put(self, entries):
        ids = [id_ for entry in entries for id_ in entry.ids]
        if "2" in ids:
            raise BrokerFaultError("the broker", "it is too large for it")
        self.stored += ids
        return [PutResult(queues=1) for _ in entries]


def test_impossible_message_costs_one_sender():
    """What the broker cannot store is told to its sender at once; its neighbours are stored in order."""

    async def main():
        store = ChoosyStore()
        dispatch = QueueProducer(store, "me", BusSettings(send_timeout=60.0))
        waiting = [dispatch.put(EncodedMessage("w", Lane.DATA, str(n), b"{}")) for n in range(5)]
        tasks = [asyncio.create_task(chore()) for chore in dispatch.tasks()]
        try:
            results = await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert ["0", "1", "3", "4"] == store.stored
        assert [1, 1, BrokerFaultError, 1, 1] == [
            type(one) if isinstance(one, Exception) else one for one in results
        ]

    run(main())


class FullStore(PlainStore):
    """Stores no batch with message `bad`, and at first has no room for `w`."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.stored: list[str] = []

    async def put(self, entries):
        ids = [id_ for entry in entries for id_ in entry.ids]
        if "bad" in ids:
            raise BrokerFaultError("the broker", "it is too large for it")
        if self.refusals and "w" in {entry.address for entry in entries}:
            self.refusals -= 1
            return [PutResult(queues=0, is_full=True) for _ in entries]
        self.stored += ids
        return [PutResult(queues=1) for _ in entries]


@pytest.mark.parametrize("refusals", [1, 2, 4])
def test_impossible_message_keeps_refused_in_order(refusals: int):
    """Beside a message that cannot be stored, those for a full mailbox wait in their order."""

    async def main():
        store = FullStore(refusals)
        dispatch = QueueProducer(store, "me", BusSettings(send_timeout=60.0))
        sent = [("w", "1"), ("w", "2"), ("other", "bad"), (EVERYONE, "3"), ("w", "4"), ("w", "5")]
        waiting = [dispatch.put(EncodedMessage(to, Lane.DATA, id_, b"{}")) for to, id_ in sent]
        tasks = [asyncio.create_task(chore()) for chore in dispatch.tasks()]
        try:
            await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert list("12345") == store.stored

    run(main())


class QuickStore:
    """Stores one message at once when it is told to, and notes how each was stored."""

    def __init__(self):
        self.ends = []
        self.posted, self.put_together = [], []

    def put_now(self, entry, on_end):
        self.posted += entry.ids
        self.ends.append(on_end)
        return True

    async def put(self, entries):
        self.put_together.append([id_ for entry in entries for id_ in entry.ids])
        return [PutResult(queues=1) for _ in entries]


@asynccontextmanager
async def quick_producer():
    """A producer over a QuickStore, that runs."""
    store = QuickStore()
    producer = QueueProducer(store, "me", BusSettings(send_timeout=60.0))
    tasks = [asyncio.create_task(chore()) for chore in producer.tasks()]
    await asyncio.sleep(0)
    try:
        yield producer, store
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stored(producer, *ids):
    return [producer.put(EncodedMessage("w", Lane.DATA, id_, b"{}")) for id_ in ids]


def test_single_message_is_stored_at_once():
    """Before put() returns; its sender is told in the reader's turn."""

    async def main():
        async with quick_producer() as (producer, store):
            for id_ in "12":
                (sent,) = stored(producer, id_)
                assert not sent.done()
                store.ends.pop()(PutResult(1))
                assert (True, 1) == (sent.done(), sent.result())
            assert (["1", "2"], []) == (store.posted, store.put_together)

    run(main())


def test_messages_that_come_meanwhile_go_together():
    """After the one under way, in order; and what comes in numbers no longer begins with one alone."""

    async def main():
        async with quick_producer() as (producer, store):
            first, *others = stored(producer, *"1234")
            for _ in range(5):
                await asyncio.sleep(0)
            assert (["1"], []) == (store.posted, store.put_together)
            store.ends.pop()(PutResult(1))
            assert [1] * 4 == await asyncio.gather(first, *others)
            assert [1, 1] == await asyncio.gather(*stored(producer, *"56"))
            assert ["1"] == store.posted
            assert [["2", "3", "4"], ["5", "6"]] == store.put_together
            await asyncio.gather(*stored(producer, "7"))
            (sent,) = stored(producer, "8")
            store.ends.pop()(PutResult(1))
            assert 1 == await sent
            assert ["1", "8"] == store.posted

    run(main())


def test_unknown_outcome_is_put_again_before_later_ones():
    """The store drops it by its number if it is there."""

    async def main():
        async with quick_producer() as (producer, store):
            sent = stored(producer, *"12")
            store.ends.pop()(None)
            assert [1, 1] == await asyncio.gather(*sent)
            assert [["1", "2"]] == store.put_together

    run(main())


def test_end_tells_the_sender_of_what_is_under_way():
    """Its outcome comes too late."""

    async def main():
        async with quick_producer() as (producer, store):
            sent = stored(producer, *"12")
            producer.fail_all(BusUnavailableError("the broker", "the bus was stopped"))
            results = await asyncio.gather(*sent, return_exceptions=True)
            assert [BusUnavailableError] * 2 == list(map(type, results))
            store.ends.pop()(PutResult(1))
            assert [] == store.put_together

    run(main())


def test_sender_that_left_stops_nothing():
    """Its message is stored; a later one follows."""

    async def main():
        async with quick_producer() as (producer, store):
            (sent,) = stored(producer, "1")
            sent.cancel()
            store.ends.pop()(PutResult(1))
            (later,) = stored(producer, "2")
            store.ends.pop()(PutResult(1))
            assert 1 == await later

    run(main())


def test_nothing_is_stored_at_once_before_the_start():
    """What was sent before goes first, together."""

    async def main():
        store = QuickStore()
        producer = QueueProducer(store, "me", BusSettings(send_timeout=60.0))
        sent = stored(producer, *"12")
        tasks = [asyncio.create_task(chore()) for chore in producer.tasks()]
        assert [1, 1] == await asyncio.gather(*sent)
        assert ([], [["1", "2"]]) == (store.posted, store.put_together)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())
