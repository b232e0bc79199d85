"""EventQueue: events for one reader, bounded without losing any that is read."""

import asyncio

from pbus.jobs.events import EventQueue
from support.waiting import run


def test_events_in_order_until_closed():
    """A reader gets what was put, then the end."""

    async def main():
        queue = EventQueue()
        for number in range(3):
            await queue.put(number)
        queue.close()
        await queue.put(9)
        assert [0, 1, 2, None, None] == [await queue.get() for _ in range(5)]

    run(main())


def test_reader_waits_for_event():
    """A reader that came first gets the event when it comes."""

    async def main():
        queue = EventQueue()
        reading = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        await queue.put("late")
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


def test_unread_queue_is_bounded():
    """Events that nobody reads fill the queue once; the rest is counted."""

    async def main():
        queue = EventQueue(capacity=2)
        for number in range(5):
            await queue.put(number)
        assert 3 == queue.missed
        assert [0, 1] == [await queue.get() for _ in range(2)]

    run(main())


def test_read_queue_makes_sender_wait():
    """A slow reader misses nothing: who puts waits for it."""

    async def main():
        queue, read = EventQueue(capacity=2), []

        async def read_slowly():
            while (event := await queue.get()) is not None:
                read.append(event)
                await asyncio.sleep(0)

        reading = asyncio.create_task(read_slowly())
        await asyncio.sleep(0)
        for number in range(50):
            await queue.put(number)
        queue.close()
        await reading
        assert (list(range(50)), 0) == (read, queue.missed)

    run(main())


def test_stuck_reader_is_waited_for_once():
    """A reader that does not come back keeps the sender waiting once, not each time."""

    async def main():
        queue = EventQueue(capacity=1)
        await queue.put(0)
        assert 0 == await queue.get()
        await queue.put(1)
        await queue.put(2, room_wait=0.01)
        async with asyncio.timeout(1.0):
            for number in range(3, 6):
                await queue.put(number, room_wait=60.0)
        assert 4 == queue.missed

    run(main())
