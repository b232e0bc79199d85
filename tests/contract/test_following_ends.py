"""The end of following: what was sent before belongs to it, on every bus."""

import asyncio
import threading

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.client import Client
from pbus.client.recordings.recorder import Recorder
from pbus.client.recordings.recording_file import read_recording
from pbus.client.traffic.message_filter import Filter
from pbus.messages import BusDataMessage
from support.waiting import PATIENCE_S, run, until

COUNT = 200


class LastNote(BusDataMessage):
    """A message shortly before the end."""

    number: int


async def told(bus):
    for number in range(COUNT):
        await bus.send(LastNote(source="me", target="taker", number=number))


async def told_meanwhile(make_bus, bus):
    """Send messages from another thread, while this loop reads nothing; in memory from here."""

    async def main():
        async with asyncio.timeout(PATIENCE_S):
            other = make_bus()
            await other.start()
            await told(other)
            await other.stop()

    if isinstance(bus, AsyncQueueBus):
        await told(bus)
        return
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_all_that_was_sent_before_is_read(make_bus):
    """However far a follower is behind; it ends by itself, and finishing twice is once."""

    async def main():
        bus = make_bus()
        await bus.start()
        async with asyncio.timeout(PATIENCE_S), Client(bus) as client:
            async with client.follow(Filter(types=("LastNote",))) as tail:
                await told_meanwhile(make_bus, bus)
                await tail.finish()
                await tail.finish()
                numbers = [message.data["number"] async for message in tail]
            assert ([*range(COUNT)], 0) == (numbers, tail.missed)
        await bus.stop()

    run(main())


@pytest.mark.parametrize("ends", ["cancelled", "timed"])
def test_recording_has_the_last_message(make_bus, tmp_path, ends):
    """Whether it is ended from outside, or by its time."""
    path = tmp_path / "a.jsonl"

    async def main():
        bus = make_bus()
        await bus.start()
        recorder = Recorder(path, "p")
        async with asyncio.timeout(PATIENCE_S), Client(bus) as client:
            duration = 0.2 if ends == "timed" else None
            recording = asyncio.create_task(recorder.run(client, duration))
            await until(lambda: recorder.is_following)
            await told_meanwhile(make_bus, bus)
            if ends == "cancelled":
                recording.cancel()
            await asyncio.wait([recording])
        assert 0 == recorder.finish().missed
        await bus.stop()

    run(main())
    names = [one.header.type for one in read_recording(path).messages]
    assert COUNT == names.count("LastNote")
