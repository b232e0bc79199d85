"""Settling in batches: what is settled alone waits for the next, unless others wait for it."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from pbus.bus.queues import settler as settling
from pbus.bus.queues.in_flight import InFlight
from pbus.bus.queues.settler import Settler
from pbus.bus.queues.store import Settlement, StoredMessage
from pbus.messages import Lane
from support.waiting import happens, run

LONG_S = 60.0


class Store:
    """Notes what is settled together."""

    def __init__(self):
        self.calls = []
        self.is_called = asyncio.Event()

    async def settle(self, settlements):
        self.calls.append([one.message.id for one in settlements])
        self.is_called.set()


def message(number, **marks):
    return StoredMessage("box", Lane.DATA, f"d1-{number}/0/1/2", str(number), b"{}", **marks)


@asynccontextmanager
async def running_settler(messages):
    store, in_flight = Store(), InFlight()
    for one in messages:
        in_flight.add(one)
    settler = Settler(store, in_flight)
    task = asyncio.create_task(settler.run())
    try:
        yield settler, store
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_acks_that_come_one_by_one_share_a_call(monkeypatch):
    """Also where nothing else is in flight when each is handled; the end waits for none."""
    monkeypatch.setattr(settling, "_GATHER_ALONE_S", LONG_S)

    async def main():
        first, second = message(1), message(2)
        async with running_settler([first]) as (settler, store):
            settler.enqueue(Settlement(first))
            for _ in range(5):
                await asyncio.sleep(0)
            settler.enqueue(Settlement(second))
            assert ([], False) == (store.calls, settler.is_idle)
            await settler.flush()
            assert ([["1", "2"]], True) == (store.calls, settler.is_idle)

    run(main())


def test_gathered_acks_are_settled_by_themselves():
    """No further message has to come."""

    async def main():
        one = message(1)
        async with running_settler([one]) as (settler, store):
            settler.enqueue(Settlement(one))
            await happens(store.is_called)
            assert [["1"]] == store.calls

    run(main())


@pytest.mark.parametrize(
    "settlement",
    [
        Settlement(message(1), how="retry", delay_s=1.0, reason="x"),
        Settlement(message(1), how="requeue"),
        Settlement(message(1), how="dead_letter", reason="x"),
        Settlement(message(1, is_poison_suspect=True)),
    ],
    ids=["retry", "requeue", "dead letter", "suspect"],
)
def test_what_others_wait_for_is_settled_at_once(monkeypatch, settlement):
    """A message that goes on to others, and a suspect: the next may end the process."""
    monkeypatch.setattr(settling, "_GATHER_ALONE_S", LONG_S)

    async def main():
        async with running_settler([settlement.message]) as (settler, store):
            settler.enqueue(settlement)
            await happens(store.is_called)
            assert [["1"]] == store.calls

    run(main())
