"""EventQueue: events for one reader, bounded without losing any that is read."""

import asyncio

from pbus.jobs.backpressure import Reading
from pbus.jobs.handles import EventQueue
from support.waiting import run


def heard_of(window):
    """What was read of a job whose hooks are done with all events."""
    reading = Reading("worker", "j", window, has_queue=True)
    reading.hear(10_000, 100.0)
    return reading


def test_events_in_order_until_closed():
    """A reader gets what was put, then the end."""

    async def main():
        queue = EventQueue()
        for number in range(3):
            queue.put(number)
        queue.close()
        queue.put(9)
        assert [0, 1, 2, None, None] == [await queue.get() for _ in range(5)]
        assert 0 == queue.missed

    run(main())


def test_reader_waits_for_event():
    """A reader that came first gets the event when it comes."""

    async def main():
        queue = EventQueue()
        reading = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.put("late")
        assert "late" == await reading

    run(main())


def test_close_wakes_the_reader():
    """A reader that waits learns of the end."""

    async def main():
        queue = EventQueue()
        reading = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.close()
        assert await reading is None

    run(main())


def test_bytes_are_bounded():
    """What no sender waits for finds only so many bytes of room; the rest is counted."""

    async def main():
        queue = EventQueue(capacity=100)
        for number in range(5):
            queue.put(number, 40)
        assert 3 == queue.missed
        assert 0 == await queue.get()
        queue.put(5, 40)
        assert [1, 5] == [await queue.get() for _ in range(2)]

    run(main())


def test_awaited_events_always_find_room():
    """What its sender waits for is told when it was read, and never missed."""

    async def main():
        told = []
        queue, reading = EventQueue(told.append, capacity=100), heard_of(320)
        for number in range(5):
            queue.put(number, 40, reading, 40 * number + 40)
        assert ([], 0, 0) == (told, reading.read, queue.missed)
        assert [0, 1] == [await queue.get() for _ in range(2)]
        assert ([reading], 80) == (told, reading.read)

    run(main())


def test_left_queue_holds_up_none():
    """Once its reader left all counts as read; what fits is kept in case it comes back."""

    async def main():
        told = []
        queue, reading = EventQueue(told.append, capacity=100), heard_of(320)
        for number in range(5):
            if number == 1:
                queue.leave()
                assert 40 == reading.read
            queue.put(number, 40, reading, 40 * number + 40)
        queue.close()
        assert (2, 200, 3) == (len(told), reading.read, queue.missed)
        assert [0, 1, None] == [await queue.get() for _ in range(3)]

    run(main())
