"""Backpressure of one job's events, without a bus: windows, positions, and what may be lost."""

import asyncio
from types import SimpleNamespace

import pytest

from pbus.errors import BusFullError
from pbus.jobs import backpressure
from pbus.jobs.backpressure import Reading, size_of, window_for
from pbus.jobs.executor import send_window
from pbus.jobs.executor.responder import JobResponder
from pbus.jobs.executor.running import Execution, RunningJob
from pbus.jobs.executor.send_window import PROBES, SendWindow
from pbus.jobs.requester.events import JobEvents
from pbus.messages import (
    BusJobCreditMessage,
    BusJobCreditRequestMessage,
    BusJobRequestMessage,
    BusJobStreamDataMessage,
)
from support.waiting import finishes, run, until

WINDOW = 1000


class Wire:
    """What a worker's context is, as far as one job's events need them; keeps what is sent."""

    name = address = "worker"

    def __init__(self, *, stores_jobs=False, knows_requester=True):
        self.stores_jobs = stores_jobs
        self.sent = []
        self.bus = SimpleNamespace(
            is_connected=True, stats=lambda _: SimpleNamespace(queued=0, held=0)
        )
        self.registry = SimpleNamespace(is_there=lambda _: knows_requester)

    async def send(self, message):
        self.sent.append(message)

    def spawn(self, work, name=None):
        return asyncio.create_task(work)

    def send_window(self):
        return SendWindow(
            BusJobRequestMessage(source="asker", target="worker", job_id="j", window=WINDOW), self
        )


def credit(position, *, is_idle=False):
    return BusJobCreditMessage(source="asker", job_id="j", position=position, is_idle=is_idle)


async def held_up(flowing):
    """A sender that has filled the window and waits with the next event."""
    assert 600 == flowing.claim(600)
    assert flowing.has_room
    assert 1200 == flowing.claim(600)  # one may exceed it
    assert not flowing.has_room
    waiting = asyncio.create_task(flowing.wait_for_room())
    await until(lambda: flowing._changed is not None)
    return waiting


def test_small_events_count_more_than_their_data():
    """Whatever an event holds it has a size; what cannot be encoded is not refused here."""
    sizes = [size_of(None), size_of({"n": 1}), size_of({"n": {1, 2}}), size_of({"n": object()})]
    assert [sizes[0]] * 4 == sizes
    assert 10_000 == size_of({"text": "x" * 10_000}) < size_of({"list": ["x" * 10_000]})


def test_group_shares_one_window():
    """Many workers have smaller windows, but none that one event fills."""
    assert (
        backpressure.WINDOW_BYTES
        == window_for(1, has_hooks=False)
        == 4 * window_for(4, has_hooks=False)
    )
    assert size_of(None) < window_for(10_000, has_hooks=True) < window_for(1, has_hooks=False)


def test_sender_waits_for_credit():
    """It goes on when the reader has read enough, and when the job is over."""

    async def main():
        flowing = Wire().send_window()
        waiting = await held_up(flowing)
        flowing.on_credit(credit(600))
        await finishes(waiting)
        assert 1800 == flowing.claim(600)
        waiting = asyncio.create_task(flowing.wait_for_room())
        await until(lambda: flowing._changed is not None)
        flowing.open()
        await finishes(waiting)
        assert not flowing.has_no_reader

    run(main())


@pytest.mark.parametrize("failure", [BusFullError("asker", 1.0, "full"), asyncio.CancelledError()])
def test_unsent_events_take_no_room(failure):
    """Events that cannot be sent leave the window, and the number of events, as they were."""

    async def refuse(message):
        raise failure

    async def main():
        wire = Wire(stores_jobs=True)
        flowing = wire.send_window()
        responder = JobResponder(wire, lambda _: None)
        job = RunningJob(flowing._request, Execution(refuse), since=0.0)
        job.send_window = flowing
        responder.add(job)
        piece = {"text": "x" * WINDOW}
        send, wire.send = wire.send, refuse
        for _ in range(2):
            with pytest.raises(type(failure)):
                await responder.report("j", BusJobStreamDataMessage, data=piece)
            assert (0, True) == (job.events, flowing.has_room)
        wire.send = send
        await responder.report("j", BusJobStreamDataMessage, data=piece)
        assert (1, False) == (job.events, flowing.has_room)
        flowing.on_credit(credit(wire.sent[0].position))
        assert flowing.has_room

    run(main())


def test_unknown_job_is_not_read():
    """A requester that does not know the job never reads its events."""

    async def main():
        flowing = Wire().send_window()
        waiting = await held_up(flowing)
        flowing.on_credit(credit(-1))
        await finishes(waiting)
        assert flowing.has_no_reader

    run(main())


@pytest.mark.parametrize("stores_jobs", [False, True])
def test_lost_events_hold_up_none(stores_jobs):
    """A reader that twice has nothing left lost the rest, unless the broker keeps it."""

    async def main():
        flowing = Wire(stores_jobs=stores_jobs).send_window()
        waiting = await held_up(flowing)
        flowing.on_credit(credit(0, is_idle=True))
        await asyncio.sleep(0)
        assert not waiting.done()
        flowing.on_credit(credit(0, is_idle=True))
        if stores_jobs:
            await asyncio.sleep(0)
            assert not waiting.done()
            flowing.open()
        await finishes(waiting)

    run(main())


@pytest.mark.parametrize("knows_requester", [False, True])
def test_silent_stranger_is_given_up(monkeypatch, knows_requester):
    """Who is in no registry and answers no probe is gone; who is there is waited for."""
    monkeypatch.setattr(send_window, "PROBE_S", 0.001)

    async def main():
        wire = Wire(knows_requester=knows_requester)
        flowing = wire.send_window()
        waiting = await held_up(flowing)
        await until(lambda: len(wire.sent) >= PROBES)
        if knows_requester:
            await until(lambda: len(wire.sent) >= 2 * PROBES)
            assert not waiting.done()
            flowing.on_credit(credit(1200))
        await finishes(waiting)
        assert {BusJobCreditRequestMessage} == {type(message) for message in wire.sent}

    run(main())


def test_reader_tells_now_and_then():
    """A quarter of the window at a time."""
    reading = Reading("worker", "j", WINDOW, has_queue=False)
    told = [reading.read for _ in range(20) if reading.hear(50, 1.0)]
    assert [250, 500, 750, 1000] == told
    assert 1000 == reading.granted


def test_read_by_hook_and_loop():
    """An event has two readers where there is `async for`, in whatever order they come to it."""
    reading = Reading("worker", "j", WINDOW, has_queue=True)
    assert [False, True] == [reading.hear(300, 1.0), reading.take(300)]
    assert [False, True] == [reading.take(900), reading.hear(600, 1.0)]
    assert (900, 900) == (reading.read, reading.granted)


def test_quick_hooks_are_sent_more():
    """What hooks hear in 20 ms may be on its way, at least the window that was asked for."""
    window = window_for(1, has_hooks=True)
    reading = Reading("worker", "j", window, has_queue=False)
    assert reading.hear(256, 0.0)
    assert 256 + 15 * window == reading.granted
    assert not reading.hear(256, 1.0)  # what was told is told
    assert 512 == reading.read == reading.granted
    reading = Reading("worker", "j", window, has_queue=False)
    reading.hear(1024, 0.01)
    assert 2 * 1024 == reading.granted


def test_next_incarnation_counts_from_zero():
    """What an earlier incarnation of the worker sent, and is read late, is no credit for the next."""

    async def main():
        wire = Wire()
        member = SimpleNamespace(reading=None, wire_id="j", window=WINDOW)
        found = {("j", "worker"): (SimpleNamespace(traceparent=None), member)}
        events = JobEvents(wire, SimpleNamespace(find=lambda *key: found.get(key)), None)
        before = events.reading(member, "worker", 900, has_queue=False)
        before.arrived = 900
        reading = events.reading(member, "worker", 300, has_queue=False)
        reading.arrived = 300
        assert before.hear(900, 1.0)
        assert (0, reading) == (reading.read, member.reading)
        assert reading.hear(300, 1.0)
        events.send_credit(reading)
        for source in ("worker", "stranger"):
            request = BusJobCreditRequestMessage(source=source, job_id="j")
            await events.on_credit_request(request)
        await until(lambda: len(wire.sent) == 3)
        answers = [(one.position, one.is_idle) for one in wire.sent if one.target == "stranger"]
        assert [(-1, False)] == answers
        assert (300, True) in [(one.position, one.is_idle) for one in wire.sent]

    run(main())
