"""A lane's queue and gate: what is held back, what passes, who waits for room; urgent ones first."""

import asyncio
from types import SimpleNamespace

import pytest

from pbus.bus import AsyncQueueBus
from pbus.bus.lane_gate import LaneGate
from pbus.bus.local import lane
from pbus.bus.local.delivery import UnstoredDelivery
from pbus.bus.local.lane import LaneQueue
from pbus.bus.stream.receiver import BatchCompletion
from pbus.codec import Encoding, encode_message
from pbus.messages import BusDataMessage, BusJobMessage, BusSystemMessage
from support.listeners import Listener
from support.waiting import happens, run, until


class LanePage(BusDataMessage):
    """One page."""

    number: int = 0
    text: str = ""


class LaneAlarm(BusSystemMessage):
    """Something urgent."""

    number: int = 0


def page(number, text=""):
    return LanePage(source="test", target="w", number=number, text=text)


def job(number):
    return BusJobMessage(source="test", target="w", job_id=str(number))


def passing_jobs(**options):
    return LaneGate(lambda kind: issubclass(kind, BusJobMessage), **options)


def taken(queue):
    """The numbers of all that may be handled now."""
    numbers = []
    while True:
        try:
            message, _ = queue.get_nowait()
        except IndexError:
            return numbers
        numbers.append(int(getattr(message, "job_id", 0)) or message.number)


class Told(UnstoredDelivery):
    """A receipt that remembers."""

    def __init__(self):
        self.is_done = False

    def done(self):
        self.is_done = True


def test_held_messages_keep_their_order():
    """While a lane is held jobs pass; afterwards the others come as if nothing had been."""
    queue = LaneQueue(100, passing_jobs())
    queue.extend_nowait((message, None) for message in (page(1), job(2), page(3)))
    queue.gate.hold()
    assert [2] == taken(queue)
    queue.gate.hold()
    queue.extend_nowait((message, None) for message in (page(4), job(5)))
    assert ([5], 3, 3) == (taken(queue), queue.held, len(queue))
    queue.gate.release()
    queue.put_nowait((page(6), None))
    assert [] == taken(queue)
    queue.gate.release()
    assert [1, 3, 4, 6] == taken(queue)


def test_shut_lane_lets_nothing_in():
    """Before a lane is opened nothing passes; opened while held, jobs do."""
    queue = LaneQueue(100, passing_jobs(is_shut=True))
    queue.extend_nowait((message, None) for message in (page(1), job(2)))
    assert [] == taken(queue)
    queue.gate.hold()
    queue.gate.open()
    assert [2] == taken(queue)
    queue.gate.release()
    assert [1] == taken(queue)


def test_encoded_messages_are_told_apart():
    """Bytes are looked at by their type; what is no message goes to where it is refused.

    A message of an unknown type keeps its place: it may be for a worker that takes such.
    """
    queue = LaneQueue(100, passing_jobs())
    queue.gate.hold()
    asked, packed = encode_message(job(2)), encode_message(job(3), encoding=Encoding.MSGPACK)
    passing, unknown = [b"{}", asked, packed, b"\xff"], b'{"type":"No","source":"a"}'
    for body in (encode_message(page(1)), unknown, *passing):
        queue.put_nowait((body, None))
    assert passing == [queue.get_nowait()[0] for _ in passing]
    assert 2 == queue.held
    queue.gate.release()
    assert unknown == [queue.get_nowait()[0] for _ in range(2)][1]


def test_reader_finds_a_job_behind_many():
    """However much must be looked at, the reader comes to what passes, and is woken for it."""

    async def main():
        queue = LaneQueue(10_000, passing_jobs())
        queue.gate.hold()
        queue.extend_nowait((page(number), None) for number in range(5_000))
        reading = asyncio.create_task(queue.wait())
        await asyncio.sleep(0)
        queue.put_nowait((job(7), None))
        async with asyncio.timeout(5):
            await reading
        assert [7] == taken(queue)
        reading = asyncio.create_task(queue.wait())
        await asyncio.sleep(0)
        queue.gate.release()
        async with asyncio.timeout(5):
            await reading
        assert list(range(5_000)) == taken(queue)

    run(main())


def test_what_passes_does_not_wait_for_room():
    """Held messages count as waiting: their senders wait, those of jobs do not."""

    async def main():
        queue = LaneQueue(2, passing_jobs())
        queue.gate.hold()
        await queue.put(page(1), type(page(1)))
        await queue.put(page(2), type(page(2)))
        late = asyncio.create_task(queue.put(page(3), type(page(3))))
        first = asyncio.create_task(
            queue.put(job(4), type(job(4)))
        )  # there is room when the two are held back
        await asyncio.sleep(0)
        assert (False, False) == (late.done(), first.done())
        assert [] == taken(queue)
        async with asyncio.timeout(5):
            await first
        assert ([4], False, False) == (taken(queue), queue.takes(LanePage), late.done())
        assert queue.takes(BusJobMessage)
        queue.gate.release()
        assert [1, 2] == taken(queue)
        async with asyncio.timeout(5):
            await late
        assert [3] == taken(queue)

    run(main())


@pytest.mark.parametrize("size", [100, 1_000])
def test_held_bytes_are_bounded(monkeypatch, size):
    """Senders may send on while little is held back, and wait when it is much."""
    monkeypatch.setattr(lane, "HELD_BYTES", 1_500)
    queue = LaneQueue(100, passing_jobs())
    queue.gate.hold()
    receipts = [Told() for _ in range(3)]
    for number, receipt in enumerate(receipts):
        queue.put_nowait((encode_message(page(number, "x" * size)), receipt))
    assert [] == taken(queue)
    expected = [True] * 3 if size == 100 else [True, False, False]
    assert expected == [receipt.is_done for receipt in receipts]
    assert (3, 0) == (len(queue.drain()), len(queue))


def test_held_broadcasts_are_bounded(monkeypatch):
    """Broadcasts, which are decoded on arrival, count as many bytes as their payloads had."""
    monkeypatch.setattr(lane, "HELD_BYTES", 1_500)
    queue, consumed = LaneQueue(100, passing_jobs()), []
    receiver = SimpleNamespace(consumed=lambda stream, size: consumed.append((stream, size)))
    for turn in range(2):  # once read they count no longer
        queue.gate.hold()
        for number in range(3):
            receipt = BatchCompletion(receiver, turn, 1_000)
            receipt.left = 1
            queue.put_nowait((page(number), receipt))
        assert [] == taken(queue)
        assert [(turn, 1_000)] == consumed[turn:]
        queue.gate.release()
        assert [0, 1, 2] == taken(queue)


def test_urgent_is_next(monkeypatch):
    """A hundred small messages went before an urgent one that was already there."""
    monkeypatch.setattr("pbus.bus.local.mailbox.TURN_S", 60)

    async def main():
        async with AsyncQueueBus() as bus:
            listener = Listener("w")
            await bus.subscribe(listener)
            await asyncio.sleep(0)
            for number in range(100):
                await bus.send(page(number))
            await bus.send(LaneAlarm(source="test", target="w"))
            await bus.send(LaneAlarm(source="test", target="w"))
            await listener.heard(102)
        assert [LaneAlarm] * 2 == [type(message) for message in listener.messages[:2]]

    run(main())


def test_urgent_comes_between_two(monkeypatch):
    """An urgent message that comes while a message is handled is handled before the next."""
    monkeypatch.setattr("pbus.bus.local.mailbox.TURN_S", 60)

    async def main():
        async with AsyncQueueBus() as bus:

            async def handle(message):
                if isinstance(message, LanePage) and message.number % 10 == 0:
                    await bus.send(LaneAlarm(source="w", target="w", number=message.number))

            listener = Listener("w", handle)
            await bus.subscribe(listener)
            for number in range(100):
                await bus.send(page(number))
            await listener.heard(110)
        kinds = [(type(message), message.number) for message in listener.messages]
        for number in range(0, 100, 10):
            at = kinds.index((LanePage, number))
            assert (LaneAlarm, number) == kinds[at + 1]

    run(main())


def test_waiting_urgent_handler_stops_nothing():
    """Data goes on while an urgent handler waits, though another urgent message waits for that."""

    async def main():
        gate, waits = asyncio.Event(), asyncio.Event()

        async def handle(message):
            if isinstance(message, LaneAlarm) and message.number == 0:
                waits.set()
                await gate.wait()

        async with AsyncQueueBus() as bus:
            listener = Listener("w", handle)
            await bus.subscribe(listener)
            for number in range(2):
                await bus.send(LaneAlarm(source="test", target="w", number=number))
            await happens(waits)
            for number in range(5):
                await bus.send(page(number))
            await listener.heard(5)
            gate.set()
            await until(lambda: len(listener.messages) == 7)

    run(main())
