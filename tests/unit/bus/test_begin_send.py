"""Sending as far as nothing is to be waited for: counts, errors, and buses with a send() of their own."""

from typing import Any

import pytest

from pbus import AsyncQueueBus, BaseWorker, BusClosedError, MessageEncodeError, WorkerRunner
from pbus.bus.base import WorkerBus
from pbus.bus.redis.bus import RedisBus
from pbus.bus.stream.write_queue import YIELD_BYTES
from pbus.messages import BusDataMessage, Lane
from support.waiting import run


class BegunNote(BusDataMessage):
    """One message."""

    value: Any = None


class Noting:
    """Notes what is sent."""

    def __init__(self):
        super().__init__()
        self.noted = []

    async def send(self, message):
        self.noted.append(type(message).__name__)
        return await super().send(message)


class OwnBus(AsyncQueueBus):
    """Overrides send()."""

    noted = ()

    async def send(self, message):
        self.noted = [*self.noted, type(message).__name__]
        return await super().send(message)


class Inherited(OwnBus):
    """Inherits a send() that is not the library's."""


class Twice(Inherited):
    """Overrides an overridden send()."""

    async def send(self, message):
        return await super().send(message)


class Mixed(Noting, AsyncQueueBus):
    """Has a send() from beside the buses."""


class Publishing(WorkerBus):
    """Brings a transport of its own, as its contract says."""

    def __init__(self):
        super().__init__()
        self.noted = []

    async def publish(self, message):
        self.noted.append(type(message).__name__)
        return False


async def send_as_worker(bus):
    worker = BaseWorker("sender")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(worker)
    async with bus:
        await worker.send_bus_message(BegunNote(source="sender"))
        return worker.sent


@pytest.mark.parametrize("kind", [OwnBus, Inherited, Twice, Mixed, Publishing])
def test_own_methods_of_a_bus_are_called(kind):
    """A bus of the user's own sees each message of a worker once, wherever its method comes from."""
    bus = kind()

    assert 1 == run(send_as_worker(bus))
    assert 1 == list(bus.noted).count("BegunNote")
    assert bus.counters.sent >= 1


def test_sending_is_counted_once_it_succeeded():
    """A message that cannot be carried, or finds the bus stopped, is not counted as sent."""

    async def main():
        bus = brokered()
        worker = BaseWorker("sender")
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(worker)
        with pytest.raises(MessageEncodeError):
            await worker.send_bus_message(BegunNote(source="sender", value={1: 2}))
        assert (0, 0) == (worker.sent, bus.counters.sent)
        await worker.send_bus_message(BegunNote(source="sender"))
        assert (1, 1) == (worker.sent, bus.counters.sent)
        bus.is_running = False
        with pytest.raises(BusClosedError):
            await worker.send_bus_message(BegunNote(source="sender"))
        assert (1, 1) == (worker.sent, bus.counters.sent)

    run(main())


def brokered():
    bus = RedisBus(url="redis://127.0.0.1:1/0")  # never connected
    bus.is_running = True
    return bus


def test_wait_is_returned_where_there_is_one():
    """Only a message of a full buffer leaves something to be awaited; then it is counted."""

    async def main():
        bus = brokered()
        buffer = bus._send_buffers[Lane.DATA]
        rests = []
        for _ in range(3):
            rest = bus.begin_send(BegunNote(source="s", target="t", value="x" * YIELD_BYTES))
            rests.append(rest is not None)
            before = bus.counters.sent
            if rest is not None:
                assert await rest
                assert before + 1 == bus.counters.sent
        assert [True, False, True] == rests  # a new stream; room; its turn to yield
        assert 3 == bus.counters.sent
        (batch, *_) = buffer.queue.take_nowait()
        assert 3 == len(batch.lines)

    run(main())


def test_order_holds_between_both_ways():
    """Messages that wait and messages that do not keep the order in which they were sent."""

    async def main():
        bus = brokered()
        for number in range(500):
            size = YIELD_BYTES // 3 if number % 7 == 0 else 10
            message = BegunNote(source="s", target="t", value=[number, "x" * size])
            rest = bus.begin_send(message)
            if rest is not None:
                await rest
            if number == 0:
                bus._send_buffers[Lane.DATA].grant("receiver", "t", 1, 0, 1 << 40)
            if number % 50 == 49:
                for batch in taken(bus):
                    written.extend(batch.lines)
                    bus._send_buffers[Lane.DATA].written(batch, 1)

    def taken(bus):
        queue = bus._send_buffers[Lane.DATA].queue
        while batches := queue.take_nowait():
            yield from batches

    written = []
    run(main())
    numbers = [int(line.split(b'"value":[')[1].split(b",")[0]) for line in written]
    assert list(range(500)) == numbers
