"""Flush probes between processes: their event is set where it is waited for."""

import asyncio

from pipecat.bus import BusFrameMessage
from pipecat.frames.frames import PipelineFlushFrame, TextFrame
from pipecat.processors.frame_processor import FrameDirection

from pbus.compat.pipecat.conversion import WireMessage
from pbus.compat.pipecat.flushes import DONE, Flushes


def message(frame):
    return BusFrameMessage(source="a", frame=frame, direction=FrameDirection.DOWNSTREAM)


def probe(**fields):
    return message(PipelineFlushFrame(origin="a", **fields))


def done(flush_id):
    return WireMessage(type_name=DONE, source="r", target="a", values={"flush_id": flush_id})


def test_a_probe_is_settled_in_another_process():
    """There its event tells, once; here that sets the one that is waited for."""
    told = []
    near, far = Flushes(lambda *_: None), Flushes(lambda *args: told.append(args))
    event = asyncio.Event()
    near.leaving(probe(event=event, flush_id=7))
    arrived = probe(flush_id=7)
    far.coming(arrived)
    far.leaving(arrived)  # on its next leg
    for _ in range(2):
        arrived.frame.event.set()
    assert [("a", 7)] == told
    assert not event.is_set()
    assert near.is_done(done(7))
    assert event.is_set()
    assert near.is_done(done(7))  # told again: no harm


def test_a_probe_that_comes_back_has_its_own_event():
    """It may be settled at home as well."""
    near, event = Flushes(lambda *_: None), asyncio.Event()
    near.leaving(probe(event=event, flush_id=7))
    back = probe(flush_id=7, returning=True)
    near.coming(back)
    assert event is back.frame.event


def test_other_messages_are_left_alone():
    """Frames without an event, probes without an origin, messages of other types."""
    flushes = Flushes(lambda *_: None)
    plain, nameless = message(TextFrame("x")), message(PipelineFlushFrame())
    for one in (plain, nameless):
        flushes.coming(one)
        flushes.leaving(one)
    assert not hasattr(plain.frame, "event")
    assert nameless.frame.event is None
    assert not flushes.is_done(WireMessage(type_name="Other", source="r", values={}))


def test_probes_that_never_come_back_are_forgotten():
    """The oldest first; what is kept is bounded."""
    flushes, events = Flushes(lambda *_: None), [asyncio.Event() for _ in range(1_002)]
    for number, event in enumerate(events):
        flushes.leaving(probe(event=event, flush_id=number))
    for number in range(len(events)):
        flushes.is_done(done(number))
    assert [False, False, *[True] * 1_000] == [event.is_set() for event in events]
