"""Batches on every bus: in order, with one wait, failures told by position."""

import asyncio
import contextlib

import pytest

from pbus import in_trace
from pbus.client import Client
from pbus.errors import (
    BatchError,
    BusClosedError,
    BusError,
    BusFullError,
    BusUnavailableError,
    MessageEncodeError,
    MessageTooLargeError,
)
from pbus.messages import BusDataMessage, BusLocalMessage, BusSystemMessage
from pbus.routing_keys import owner_of
from support.job_helpers import Asker, Doer, Note, hosted
from support.listeners import Listener
from support.queue_helpers import grow_old
from support.waiting import finishes, run, until


class BatchAlarm(BusSystemMessage):
    """A system message."""


class BatchMurmur(BusDataMessage, BusLocalMessage):
    """A message that stays here."""


class BatchLoad(BusDataMessage):
    """A message of some size."""

    number: int
    load: str


def note(number, target="w", **fields):
    return Note(source="a", target=target, number=number, **fields)


def numbers(messages):
    return [message.number for message in messages if isinstance(message, Note)]


def test_batches_arrive_in_order(make_any_bus):
    """Batches, broadcasts among them, and single sends arrive in the order in which they were sent."""

    async def main():
        listener = Listener("w")
        async with make_any_bus() as here, make_any_bus() as there:
            await there.subscribe(listener)
            await here.send_all([note(n, None if n % 7 == 0 else "w") for n in range(300)])
            await here.send(note(300))
            async with here.batch() as batch:
                for number in range(301, 400):
                    batch.send(note(number))
            assert list(range(400)) == numbers(await listener.heard(400))

    run(main())


def test_failures_by_position(make_any_bus):
    """What cannot be sent is told by its position; the others arrive."""

    async def main():
        listener = Listener("w")
        async with make_any_bus() as here, make_any_bus() as there:
            await there.subscribe(listener)
            with pytest.raises(BatchError, match=r"2 of 4 messages .* at 1: ") as caught:
                await here.send_all([note(0), note(1, key=""), note(2), note(3, key="a\nb")])
            assert [1, 3] == list(caught.value.failures)
            assert {MessageEncodeError} == set(map(type, caught.value.failures.values()))
            assert [0, 2] == numbers(await listener.heard(2))

    run(main())


def test_block_that_raises_sends_nothing(make_any_bus):
    """A block that raises sends nothing; a batch that is over takes nothing; empty ones do nothing."""

    async def main():
        listener = Listener("w")
        async with make_any_bus() as here, make_any_bus() as there:
            await there.subscribe(listener)
            with pytest.raises(LookupError):
                async with here.batch() as batch:
                    batch.send(note(1))
                    raise LookupError
            with pytest.raises(BusError, match="ended"):
                batch.send(note(2))
            await here.send_all([])
            await here.send_all([note(3)])
            assert [3] == numbers(await listener.heard(1))

    run(main())


def test_closed_bus_refuses_batches(make_any_bus):
    """A bus that is not started, or stopped, raises as send() does."""

    async def main():
        bus = make_any_bus()
        with pytest.raises(BusClosedError, match="not started"):
            await bus.send_all([note(1)])
        async with bus:
            pass
        with pytest.raises(BusClosedError, match="stopped"):
            async with bus.batch() as batch:
                batch.send(note(2))

    run(main())


class BatchDoer(Doer):
    """Remembers what came."""

    def __init__(self, name):
        super().__init__(name)
        self.came = []

    async def on_bus_message(self, message):
        if isinstance(message, (Note, BatchAlarm, BatchMurmur)):
            self.came.append(message)


def test_worker_batches_reach_groups(make_any_bus):
    """Keys go to their replica in order, system and local messages arrive, all are counted once."""

    async def main():
        asker, near, doers = Asker(), BatchDoer("near"), [BatchDoer("doer.1"), BatchDoer("doer.2")]
        async with hosted(make_any_bus, [asker, near], doers):
            before = asker.sent
            keyed = [note(n, "doer", key=f"k{n % 4}") for n in range(40)]
            free = [note(n, "doer") for n in range(40, 50)]
            others = [BatchAlarm(source="a", target="near"), BatchMurmur(source="a", target="near")]
            await asker.send_all([*keyed, *free, *others])
            await until(lambda: sum(len(doer.came) for doer in (near, *doers)) == 52)
            assert 52 == asker.sent - before
            assert {BatchAlarm, BatchMurmur} == set(map(type, near.came))
            for key in {message.key for message in keyed}:
                found = [[m.number for m in doer.came if m.key == key] for doer in doers]
                assert [[], [n for n in range(40) if f"k{n % 4}" == key]] == sorted(found)

    run(main())


def test_large_batches_arrive_whole(make_any_bus):
    """More than a sender may have unconfirmed, or without credit: in order; what is too large is told."""

    async def main():
        listener = Listener("w")
        async with make_any_bus() as here, make_any_bus() as there:
            await there.subscribe(listener)
            loads = ["x" * 200_000] * 30
            if here is not there:  # in memory nothing is encoded
                loads[17] = "x" * (here.max_message_bytes + 1)
            batch = [
                BatchLoad(source="a", target="w", number=number, load=load)
                for number, load in enumerate(loads)
            ]
            with contextlib.ExitStack() as stack:
                if here is not there:
                    caught = stack.enter_context(pytest.raises(BatchError))
                await here.send_all(batch)
            if here is not there:
                del batch[17]
                ((position, error),) = caught.value.failures.items()
                assert (17, MessageTooLargeError) == (position, type(error))
            arrived = await listener.heard(len(batch))
            assert [one.number for one in batch] == [one.number for one in arrived]

    run(main())


def test_batch_is_of_the_trace_it_is_sent_in(make_any_bus):
    """Each message; also of a batch whose block ends outside of the trace."""

    async def main():
        listener = Listener("w")
        async with make_any_bus() as here, make_any_bus() as there:
            await there.subscribe(listener)
            with in_trace():
                await here.send_all([note(n) for n in range(3)])
                await here.send(note(3))
            async with here.batch() as batch:
                with in_trace():
                    batch.send(note(4))
                    batch.send(note(5))
                batch.send(note(6))
            arrived = [one.trace_id for one in await listener.heard(7)]
            assert [1, 1, 1] == [len(set(arrived[:4])), len(set(arrived[4:6])), len({arrived[6]})]
            assert 3 == len(set(arrived))

    run(main())


def test_clients_send_batches(make_any_bus):
    """Keys go to their replicas, in order; a wrong one is told by its position."""

    async def main():
        doers = [BatchDoer("doer.1"), BatchDoer("doer.2"), BatchDoer("other")]
        async with hosted(make_any_bus, doers), Client(make_any_bus()) as client:
            keyed = [note(n, "doer", key=f"k{n % 4}") for n in range(20)]
            with pytest.raises(BatchError) as caught:
                await client.send_all([*keyed, note(20, "other"), note(21, "doer", key="")])
            assert [21] == list(caught.value.failures)
            await until(lambda: sum(len(doer.came) for doer in doers) == 21)
            names = ["doer.1", "doer.2"]
            for doer in doers[:2]:
                own = [n for n in range(20) if owner_of(f"k{n % 4}", names) == doer.name]
                assert own == numbers(doer.came)
            assert [20] == numbers(doers[2].came)

    run(main())


def test_full_target_fails_alone(make_keeping_bus):
    """All messages to it, from the first for which there is no room on; those to others arrive."""

    async def main():
        options = {"queue_options": {"max_backlog": 2, "when_full": "refuse"}}
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        free = Listener("free")
        async with here, there:
            await there.subscribe(Listener("w", lambda _: asyncio.Event().wait()))
            await there.subscribe(free)
            await here.send_all([note(0), note(1)])
            with pytest.raises(BatchError, match="2 of 4 messages") as caught:
                await here.send_all([note(2), note(3, "free"), note(4), note(5, "free")])
            assert {0: BusFullError, 2: BusFullError} == {
                position: type(error) for position, error in caught.value.failures.items()
            }
            assert [3, 5] == numbers(await free.heard(2))
            assert 2 == next(one.backlog for one in await here.queues.stats() if one.name == "w")

    run(main())


def test_batch_waits_for_room_and_may_be_cancelled(make_keeping_bus):
    """As a single send; what a cancelled batch has not stored is not stored, later messages are."""

    async def main():
        options = {"queue_options": {"max_backlog": 2}}
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        gate = asyncio.Event()
        listener = Listener("w", lambda _: gate.wait())
        async with here, there:
            await there.subscribe(listener)
            await here.send_all([note(0), note(1)])
            given_up = asyncio.create_task(here.send_all([note(n) for n in range(2, 6)]))
            waiting = asyncio.create_task(here.send_all([note(n) for n in range(6, 12)]))
            await asyncio.wait({given_up, waiting}, timeout=0.2)
            assert (False, False) == (given_up.done(), waiting.done())
            given_up.cancel()
            await asyncio.wait({given_up})
            gate.set()
            await finishes(waiting)
            assert [0, 1, *range(6, 12)] == numbers(await listener.heard(8))

    run(main())


def test_bus_that_stops_tells_a_batch(make_keeping_bus):
    """A batch that waits for room is told of each message that is not stored."""

    async def main():
        options = {"queue_options": {"max_backlog": 1}}
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        async with here, there:
            await there.subscribe(Listener("w", lambda _: asyncio.Event().wait()))
            await here.send(note(0))
            waiting = asyncio.create_task(here.send_all([note(1), note(2)]))
            await asyncio.wait({waiting}, timeout=0.1)
            await here.stop()
            with pytest.raises(BatchError) as caught:
                await finishes(waiting)
            assert [0, 1] == list(caught.value.failures)
            kinds = set(map(type, caught.value.failures.values()))
            assert kinds <= {BusClosedError, BusUnavailableError}

    run(main())


def test_keys_of_a_removed_queue_go_elsewhere(make_keeping_bus):
    """A batch for a replica that is gone for good reaches the next owner, in order, and is no loss."""

    async def main():
        asker, doers = Asker(), [BatchDoer(f"doer.{n}") for n in (1, 2, 3)]
        key = next(
            f"k{n}" for n in range(99) if owner_of(f"k{n}", [d.name for d in doers])[-1] == "3"
        )
        async with hosted(make_keeping_bus, [asker], doers[:2], doers[2:]) as (*_, runner):
            await asker.send_all([note(0, "doer", key=key)])
            await until(lambda: numbers(doers[2].came) == [0])
            await runner.remove_workers("doer.3")
            await grow_old(runner.bus.queues)
            await runner.bus.queues.purge("doer.3", remove=True)
            await asker.send_all([note(n, "doer", key=key) for n in range(1, 5)])
            other = next(one for one in doers if one.name == owner_of(key, ["doer.1", "doer.2"]))
            await until(lambda: numbers(other.came) == [1, 2, 3, 4])
            assert (0, {}) == (asker.bus.counters.undelivered, asker.bus.counters.unreached)

    run(main())
