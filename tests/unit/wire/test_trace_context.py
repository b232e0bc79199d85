"""Trace ids as they are written and read; what comes from the broker may be anything."""

import asyncio
import contextvars
import os
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus import codec, in_trace
from pbus.bus.base import new_header
from pbus.client.traffic.message_input import MessageInput
from pbus.codec import Encoding, decode_header
from pbus.errors import MessageDecodeError, MessageDefinitionError, MessageInputError
from pbus.messages import BusDataMessage, BusOpaqueMessage, Lane
from pbus.trace_context import (
    MAX_LENGTH,
    given_cause,
    is_trace_id,
    is_traceparent,
    parent_span_id,
    root_traceparent,
    span_id_of,
    trace_id_of,
    traceparent_after,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
WRONG = [
    "",
    "00",
    GOOD[:-1],
    GOOD + "0",
    GOOD + "-more",
    GOOD.upper(),
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00_{TRACE}_{SPAN}_01",
    f"00-{TRACE}-{SPAN}-0\n",
    f"00-{TRACE}-{SPAN}-01\n",
    f"00-{'٣' * 32}-{SPAN}-01",  # digits, but none of hex
    "\x1b[2J" * 10,
]


class TracedNote(BusDataMessage):
    """A message of the test's own."""

    text: str = ""


def note(traceparent=None):
    return TracedNote(source="a", target="b", id="i-1", time=1.5, traceparent=traceparent)


@pytest.mark.parametrize("traceparent", [GOOD, f"01-{TRACE}-{SPAN}-00-a later version"])
def test_given_trace_is_continued(traceparent):
    """Of later versions, too: they begin alike."""
    message = note(traceparent)
    assert (TRACE, SPAN) == (message.trace_id, parent_span_id(message))
    after = traceparent_after(message)
    assert after == f"00-{TRACE}-{span_id_of(message)}-01"
    assert is_traceparent(after)


@pytest.mark.parametrize("traceparent", WRONG)
def test_wrong_traceparent_counts_as_none(traceparent):
    """It reaches no log and no screen by way of a trace id; the message itself is read."""
    line = codec.encode_message(note(traceparent))
    message = codec.decode_message(line)
    assert note().trace_id == message.trace_id == decode_header(line).trace_id
    assert parent_span_id(message) is None
    assert is_traceparent(traceparent_after(message))
    with in_trace(traceparent) as trace_id:
        assert is_trace_id(trace_id)
        assert trace_id != message.trace_id


@pytest.mark.parametrize("traceparent", [b"7", b"{}", b'"%s"' % (b"0" * (MAX_LENGTH + 1))])
def test_no_text_of_bounded_length_is_refused(traceparent):
    """As any field of a wrong type."""
    line = codec.encode_message(note())[:-1] + b',"traceparent":' + traceparent + b"}"
    for read in (codec.decode_message, decode_header):
        with pytest.raises(MessageDecodeError, match="traceparent"):
            read(line)


@given(st.text(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=99))
def test_anything_has_a_trace_id(traceparent, identity):
    """Whatever the broker holds; the same at each reader."""
    message = BusDataMessage(source="a", id=identity, traceparent=traceparent)
    assert is_trace_id(message.trace_id)
    assert message.trace_id == trace_id_of(msgspec.structs.replace(message))
    assert is_traceparent(traceparent_after(message))


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("traceparent", [GOOD, None])
def test_trace_travels(traceparent, encoding):
    """In both encodings, and in messages of unknown types; one that begins a trace carries nothing."""
    message = note(traceparent)
    line = codec.encode_message(message, encoding=encoding)
    assert message == codec.decode_message(line)
    assert (traceparent is not None) == (b"traceparent" in line)

    opaque = BusOpaqueMessage(
        source="a", id="i-1", time=1.5, type_name="NeverSeen", traceparent=traceparent
    )
    line = codec.encode_message(opaque, encoding=encoding)
    again = codec.decode_opaque(line, Lane.DATA)
    assert (traceparent, {}) == (again.traceparent, again.fields())
    assert (traceparent is not None) == (b"traceparent" in line)


def test_each_message_begins_a_trace():
    """Two messages never share one by accident; a header of an unknown type is of the trace here."""
    assert 1_000 == len({BusDataMessage(source="a").trace_id for _ in range(1_000)})
    assert new_header("X", "a", None).traceparent is None
    with in_trace(GOOD) as trace_id:
        assert (GOOD, TRACE) == (new_header("X", "a", None).traceparent, trace_id)
    assert given_cause() is None


def test_block_ends_with_its_context():
    """A task that was begun within keeps the trace; blocks nest; an error ends one."""

    async def main():
        async def later():
            await asyncio.sleep(0)
            return new_header("X", "a", None).trace_id

        with in_trace() as outer:
            task = asyncio.create_task(later())
            with in_trace() as inner:
                assert inner == contextvars.copy_context().run(new_header, "X", "a", None).trace_id
            assert outer == new_header("X", "a", None).trace_id != inner
        assert outer == await task
        with pytest.raises(LookupError), in_trace():
            raise LookupError
        assert given_cause() is None

    asyncio.run(main())


def test_field_of_that_name_is_refused():
    """In a class of messages, and among the fields that a client sends."""
    with pytest.raises(MessageDefinitionError, match=r"tells the trace .* rename"):

        class TracedTwice(BusDataMessage):
            traceparent: int

    with pytest.raises(MessageInputError, match="traceparent"):
        MessageInput("TracedNote", {"traceparent": GOOD}).check()


def test_new_traces_differ_whatever_is_seeded():
    """Also in a child that was forked, and where a program seeds the random numbers."""
    found = set()
    for _ in range(3):
        random.seed(1)
        found.update(root_traceparent() for _ in range(100))
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, root_traceparent().encode())
        os._exit(0)
    os.waitpid(child, 0)
    found |= {os.read(read, 100).decode(), root_traceparent()}
    os.close(read)
    os.close(write)

    assert 302 == len(found)
    assert {True} == set(map(is_traceparent, found))
    assert (
        302
        == len({one.split("-")[1] for one in found})
        == len({one.split("-")[2] for one in found})
    )
