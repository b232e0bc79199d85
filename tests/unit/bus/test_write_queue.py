"""Writing at once: of what is sent singly, not of what follows soon, nor without a turn of the loop."""

import asyncio

import pytest

from pbus.bus.stream import write_queue
from pbus.bus.stream.send_stream import SendStream
from pbus.bus.stream.write_queue import YIELD_BYTES, WriteQueue
from support.waiting import PATIENCE_S

LINE = b"x" * 999  # a thousand bytes with its newline


class Writer:
    """Writes what comes: here and now, and perhaps to the end; the rest as the loop comes to it."""

    def __init__(self, *, ends_at_once: bool = True) -> None:
        self.queue = WriteQueue(gathers=False)
        self.queue.on_ready = self.write
        self.stream = SendStream("far", 1)
        self.ends_at_once = ends_at_once
        self.at_once: list[int] = []  # messages of each write
        self.later: list[int] = []

    def write(self, batches):
        self.at_once.append(sum(len(batch.lines) for batch in batches))
        if self.ends_at_once:
            self.end(batches)
        return True

    def end(self, batches):
        for batch in batches:
            self.queue.written(batch)
        self.queue.write_done([])

    async def take(self):
        """What a writing task does; waits for the next payload."""
        batches = await self.queue.next_batches()
        self.later.append(sum(len(batch.lines) for batch in batches))
        self.end(batches)

    def send(self, line=LINE):
        self.queue.append(self.stream, line)


async def waiting(writer):
    """The writing task, which waits for something to write."""
    task = asyncio.create_task(writer.take())
    await asyncio.sleep(0)
    return task


async def end(task):
    """Wait for the writing task; bounded."""
    await asyncio.wait_for(task, PATIENCE_S)


@pytest.fixture
def burst(monkeypatch):
    """Sets the time within which messages belong together, in seconds."""
    return lambda seconds: monkeypatch.setattr(write_queue, "BURST_S", seconds)


def test_single_messages_are_written_at_once(burst):
    """Messages that follow a finished write later are written here and now, one by one, without a task."""
    burst(-1.0)

    async def main():
        writer = Writer()
        task = await waiting(writer)
        for _ in range(5):
            writer.send()
        assert [1] * 5 == writer.at_once
        assert writer.queue.emptied.is_set()
        assert 0 == writer.queue.bytes
        task.cancel()

    asyncio.run(main())


def test_burst_goes_together(burst):
    """What follows a finished write soon waits for the writing task, which takes all of it."""
    burst(1e6)

    async def main():
        writer = Writer()
        task = await waiting(writer)
        for _ in range(5):
            writer.send()
        await end(task)
        assert [1] == writer.at_once
        assert [4] == writer.later

    asyncio.run(main())


def test_sender_that_never_waits_is_made_to(burst):
    """Writes that end at once do not let a sender hold the loop for ever: bytes count until a turn."""
    burst(-1.0)
    written_at_once = YIELD_BYTES // 1000 + 1

    async def main():
        writer = Writer()
        task = await waiting(writer)
        for _ in range(written_at_once + 3):
            writer.send()
        assert [1] * written_at_once == writer.at_once
        assert 3 * 1000 == writer.queue.bytes
        await end(task)
        assert [3] == writer.later
        for _ in range(2):  # the loop had its turn; after several together one goes by the task
            task = await waiting(writer)
            writer.send()
            await asyncio.sleep(0)
        assert [3, 1] == writer.later
        assert [1] * (written_at_once + 1) == writer.at_once
        task.cancel()

    asyncio.run(main())


def test_what_comes_within_a_write_waits_for_it(burst):
    """A message that the end of a write lets in, such as one that waited for room, goes behind it."""
    burst(-1.0)

    async def main():
        writer = Writer()
        task = await waiting(writer)
        write = writer.write

        def write_and_send(batches):
            writer.queue.on_ready = write
            writer.send(b"waited")
            return write(batches)

        writer.queue.on_ready = write_and_send
        writer.send()
        await end(task)
        assert ([1], [1]) == (writer.at_once, writer.later)

    asyncio.run(main())


def test_write_that_lasts_gathers_what_comes(burst):
    """While a write that was begun has not ended, messages gather, and its end has them taken."""
    burst(-1.0)

    async def main():
        writer = Writer(ends_at_once=False)
        begun = []
        write = writer.write
        writer.queue.on_ready = lambda batches: begun.extend(batches) or write(batches)
        task = await waiting(writer)
        for _ in range(3):
            writer.send()
        assert [1] == writer.at_once
        writer.end(begun)
        await end(task)
        assert [2] == writer.later

    asyncio.run(main())


def test_write_that_raises_blocks_nothing(burst):
    """A write that cannot be begun raises at its sender; the next message is written."""
    burst(-1.0)

    async def main():
        writer = Writer()
        task = await waiting(writer)
        write = writer.write

        def fail(_batches):
            writer.queue.on_ready = write
            raise MemoryError("no room for it")

        writer.queue.on_ready = fail
        with pytest.raises(MemoryError):
            writer.send()
        writer.send()
        assert [1] == writer.at_once
        task.cancel()

    asyncio.run(main())
