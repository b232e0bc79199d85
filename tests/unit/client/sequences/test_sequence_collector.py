"""Diagrams collected from messages as a follower sees them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.bus.tap import TapMessage
from pbus.client.sequences import sequence_collector
from pbus.client.sequences.sequence_collector import SequenceCollector
from pbus.client.sequences.sequence_diagram import EVERYONE, Arrow, Mark
from pbus.client.traffic.message_filter import filter_of
from pbus.client.traffic.message_tail import TailMessage
from pbus.codec import decode_header, encode_message
from pbus.frames import TextFrame
from pbus.messages import (
    BusDataMessage,
    BusFrameMessage,
    BusJobCancelMessage,
    BusJobCreditMessage,
    BusJobRequestMessage,
    BusJobRequestUrgentMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusWorkerStateMessage,
    JobStatus,
)
from pbus.trace_context import traceparent_after


class SeqNote(BusDataMessage):
    """A message of the test's own."""


def seen(message, *, is_reached=True):
    line = encode_message(message)
    item = TapMessage(header=decode_header(line), body=line, lane=message.lane)
    return TailMessage.of(item, is_reached=is_reached)


def note(at, source="a", target="b", after=None, **fields):
    traceparent = None if after is None else traceparent_after(after)
    return SeqNote(source=source, target=target, time=at, traceparent=traceparent, **fields)


def state(at, worker, state, detail=""):
    return BusWorkerStateMessage(
        source="supervisor", project="p", worker=worker, state=state, time=at, detail=detail
    )


def diagram_of(messages, since=0.0, **terms):
    collector = SequenceCollector(filter_of(terms), since=since)
    for message in messages:
        collector.add(seen(message))
    return collector.diagram()


def shown(diagram):
    return [
        (step.source, step.target, step.label)
        if isinstance(step, Arrow)
        else (step.worker, step.state)
        for step in diagram.steps
    ]


@pytest.mark.parametrize(
    ("message", "label", "is_reply"),
    [
        (note(1.0), "SeqNote", False),
        (note(1.0, key="call-1"), "SeqNote [call-1]", False),
        (BusFrameMessage(source="a", target="b", frame=TextFrame(text="x")), "TextFrame", False),
        (BusJobRequestMessage(source="a", target="b", job_id="j", job_name="f"), "f()", False),
        (BusJobRequestUrgentMessage(source="a", target="b", job_id="j"), "()", False),
        (
            BusJobResponseMessage(source="a", target="b", job_id="j", status=JobStatus.FAILED),
            "failed",
            True,
        ),
        (BusJobUpdateMessage(source="a", target="b", job_id="j"), "Update", True),
        (BusJobUpdateRequestMessage(source="a", target="b", job_id="j"), "UpdateRequest", False),
        (BusJobCancelMessage(source="a", target="b", job_id="j"), "Cancel", False),
    ],
)
def test_label_says_what_was_sent(message, label, is_reply):
    """The name of a job, how it ended, the type of a frame, else the type of the message."""
    (arrow,) = diagram_of([message]).steps
    assert (label, is_reply, "a", "b") == (
        arrow.label, arrow.is_reply, arrow.source, arrow.target
    )  # fmt: skip


def test_trace_is_chosen_with_ends_of_its_workers():
    """By the beginning of its id as well; of its workers only, from its first message on."""
    first = note(10.0)
    second = note(12.0, "b", "c", first)
    other = note(11.0, "x", "y")
    messages = [
        state(9.0, "b", "backoff"),
        first,
        other,
        state(10.5, "b", "backoff", "was killed"),
        state(10.6, "x", "backoff"),
        state(11.0, "b", "waiting"),
        state(11.5, "b", "ready"),
        second,
        state(80.0, "b", "ready"),
    ]
    for trace in (first.trace_id, f"{first.trace_id[:8]}*"):
        diagram = diagram_of(messages, trace=trace)
        assert ("a", "b", "c") == diagram.participants
        assert [
            ("a", "b", "SeqNote"),
            ("b", "backoff"),
            ("b", "ready"),
            ("b", "c", "SeqNote"),
        ] == shown(diagram)
        assert ("end", "was killed") == (diagram.steps[1].kind, diagram.steps[1].detail)
    assert () == diagram_of(messages, trace="f" * 32).steps
    assert 9 - 1 == len(diagram_of(messages).steps)  # all but the state that says nothing
    assert 4 == len(diagram_of(messages, since=11.5).steps) + 1


def test_job_is_chosen_with_its_repeats():
    """A request that was repeated at another worker has an id of its own."""
    messages = [
        BusJobRequestMessage(source="a", target="b", job_id="j", job_name="f", time=1.0),
        BusJobRequestMessage(source="a", target="c", job_id="j~2", job_name="f", time=2.0),
        BusJobRequestMessage(source="a", target="c", job_id="jj", job_name="g", time=3.0),
        note(4.0),
        BusJobResponseMessage(
            source="c", target="a", job_id="j~2", status=JobStatus.COMPLETED, time=5.0
        ),
    ]
    assert [("a", "b", "f()"), ("a", "c", "f()"), ("c", "a", "completed")] == shown(
        diagram_of(messages, job="j")
    )


def test_effect_never_precedes_its_cause():
    """Whatever the clocks of hosts say, and whatever arrives first; else times decide."""
    first = note(10.0)
    early = note(3.0, "b", "c", first)
    earlier = note(2.0, "c", "d", early)
    between = note(9.5, "x", "y")
    diagram = diagram_of([earlier, early, first, between])
    assert ["x", "a", "b", "c"] == [step.source for step in diagram.steps]


def test_messages_of_one_kind_fold():
    """Fifty frames of audio are one arrow; what comes between them parts it."""
    frames = [note(1.0 + number / 100) for number in range(50)]
    diagram = diagram_of([*frames, note(2.0, "b", "a"), note(3.0)])
    assert [50, 1, 1] == [step.count for step in diagram.steps]
    assert 52 == diagram.messages


def test_children_and_broadcasts():
    """A child is shown without its runner, everyone last; housekeeping is left out."""
    messages = [
        note(1.0, "a", None),
        note(2.0, "kid@runner", "a"),
        BusJobCreditMessage(source="a", target="b", job_id="j", position=1, time=3.0),
    ]
    diagram = diagram_of(messages)
    assert ("a", "kid", EVERYONE) == diagram.participants
    assert [("a", EVERYONE, "SeqNote"), ("kid", "a", "SeqNote")] == shown(diagram)


def test_undelivered_messages_are_told():
    collector = SequenceCollector()
    collector.add(seen(note(1.0), is_reached=False))
    assert not collector.diagram().steps[0].is_reached


def test_newest_steps_are_kept(monkeypatch):
    """The number of the others is told."""
    monkeypatch.setattr(sequence_collector, "MAX_STEPS", 3)
    diagram = diagram_of([note(float(number), key=str(number)) for number in range(5)])
    assert (2, 3) == (diagram.left_out, len(diagram.steps))
    assert [2.0, 3.0, 4.0] == [step.time for step in diagram.steps]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    st.lists,
    max_leaves=3,
)


@given(
    st.dictionaries(
        st.sampled_from(["job_id", "job_name", "status", "frame", "worker", "state"]), JSON
    ),
    st.sampled_from(["BusWorkerStateMessage", "BusJobRequestMessage", "Foreign"]),
)
def test_any_body_is_taken(fields, type_name):
    """What others write is a message of its type at least, or no change of state."""
    body = json.dumps({"type": type_name, "source": "a", "target": "b", **fields}).encode()
    item = TapMessage(header=decode_header(body), body=body, lane="d")
    collector = SequenceCollector()
    collector.add(TailMessage.of(item))
    steps = collector.diagram().steps
    assert [Arrow] == [type(step) for step in steps] or type_name == "BusWorkerStateMessage"
    assert all(isinstance(step, Mark) for step in steps) or type_name != "BusWorkerStateMessage"


def test_circle_of_causes_ends():
    """Traceparents are what others write: a message may claim to be sent because of itself."""
    one = note(2.0, id="i-1")
    circle = msgspec.structs.replace(one, traceparent=traceparent_after(one))
    assert [2.0] == [step.time for step in diagram_of([circle]).steps]
