"""Storing what is sent, without a broker."""

import asyncio

import pytest

from pbus.bus.coalescing import EVERYONE
from pbus.bus.queues.pending_put import EncodedMessage
from pbus.bus.queues.producer import QueueProducer
from pbus.bus.queues.store import PutResult
from pbus.errors import BrokerFaultError
from pbus.messages import Lane
from pbus.settings import BusSettings
from support.waiting import run


class PlainStore:
    """Stores nothing at once."""

    def put_now(self, entry, on_end):
        return False


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
