"""The lines between a worker and its program."""

import contextlib
import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.errors import ProgramLineError
from pbus.frames import TextFrame
from pbus.messages import BusDataMessage, BusFrameMessage, BusOpaqueMessage
from pbus.process.stdio.program_lines import (
    ByteLines,
    event_line,
    message_line,
    parse_line,
    shown,
)
from pbus.trace_context import traceparent_after

HEAD = {"source": "a", "target": "b", "id": "i-1", "time": 1.5}


class StdioNote(BusDataMessage):
    """A message of the test's own."""

    text: str
    data: bytes = b""


@pytest.mark.parametrize(
    ("message", "type_name", "data"),
    [
        (StdioNote(**HEAD, text="x", data=b"\x00"), "StdioNote", {"text": "x", "data": "AA=="}),
        (
            BusFrameMessage(**HEAD, frame=TextFrame(text="t")),
            "BusFrameMessage",
            {"frame": {"type": "TextFrame", "text": "t"}},
        ),
        (BusOpaqueMessage(**HEAD, type_name="Far", data=b'{"n": 1.0}'), "Far", {"n": 1.0}),
        (
            BusOpaqueMessage(**HEAD, type_name="Far", data=msgspec.msgpack.encode({"b": b"\x00"})),
            "Far",
            {"b": "AA=="},
        ),
    ],
)
def test_message_is_header_and_data(message, type_name, data):
    """One line of JSON; fields of its own stay apart from the header's, whatever their names."""
    line = message_line(message)

    assert 1 == line.count(b"\n") == line.endswith(b"\n")
    found = json.loads(line)
    assert traceparent_after(message) == found.pop("traceparent")
    assert {"kind": "message", "type": type_name, **HEAD, "data": data} == found


def test_program_continues_a_trace():
    """With the traceparent that a message came with, on a line of its own; a wrong one is said."""
    heard = StdioNote(**HEAD, text="x", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    given_on = json.loads(message_line(heard))["traceparent"]
    line = json.dumps({"type": "Note", "traceparent": given_on}).encode()
    assert (heard.trace_id, given_on) == (given_on[3:35], parse_line(line).traceparent)
    for wrong in ("x", f"00-{'0' * 32}-{'b' * 16}-01", given_on.upper(), given_on + "\n"):
        with pytest.raises(ProgramLineError, match="W3C"):
            parse_line(json.dumps({"type": "Note", "traceparent": wrong}).encode())


def test_key_is_told_where_there_is_one():
    """It stands beside the header's fields, not among the data."""
    keyed = json.loads(message_line(StdioNote(**HEAD, text="x", key="call-1")))
    assert ("call-1", {"text": "x"}) == (keyed["key"], keyed["data"])
    assert "call-2" == parse_line(b'{"type":"N","target":"stt","key":"call-2"}').key


def test_broadcast_has_no_target():
    """A program can tell it from what is for it alone."""
    assert json.loads(message_line(StdioNote(source="a", text="x")))["target"] is None


def test_line_of_a_program_is_read():
    """What need not be said may be left out."""
    message = parse_line(b'{"type":"Note","target":"b","data":{"x":1}}')
    assert ("message", "Note", "b", {"x": 1}) == (
        message.kind, message.type, message.target, message.fields()
    )  # fmt: skip
    assert ("ready", True) == (
        (ready := parse_line(b'{"ready":true,"done":true}')).kind,
        ready.done,
    )
    asked = parse_line(b' {"kind":"job","id":7,"target":"db","timeout":null}\r')
    assert (7, "db", None, {}) == (asked.id, asked.target, asked.timeout, asked.fields())
    assert 60.0 == parse_line(b'{"kind":"job","id":"x","target":"db"}').timeout


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"hello", "JSON is malformed"),
        (b"[]", "object"),
        (b"{}", "a line without a kind needs type"),
        (b'{"kind":"dance"}', "expected a kind of ready, done"),
        (b'{"kind":"response"}', "a response needs id"),
        (b'{"kind":"job","id":"x"}', "a job needs target"),
        (b'{"kind":"job","id":"x","target":"w","timeout":"soon"}', "timeout"),
        (b'{"type":"Note","dta":{}}', "dta"),
        (b'{"type":"Note","data":[1]}', "object"),
        (b'{"type":"Note","data":"text"}', "object"),
        (b'{"type":1}', "type"),
        (b"\xff\xfe", "refused"),
        (b'{"type":"Note","data":{"a":' + b"[" * 2000 + b"}", "refused"),
    ],
)
def test_other_lines_are_errors_that_show_them(line, problem):
    """The error says what is wrong and shows the line."""
    with pytest.raises(ProgramLineError, match=problem) as caught:
        parse_line(line)
    assert shown(line) in caught.value.message


@given(st.binary())
def test_no_line_crashes_it(line):
    """Any bytes are a line or an error."""
    for text in (line, b'{"kind":"update","id":"' + line, b'{"type":"X","data":' + line + b"}"):
        with contextlib.suppress(ProgramLineError):
            assert isinstance(parse_line(text).fields(), dict)


def test_shown_line_is_bounded():
    """A log keeps one line of bounded length, without what a terminal acts on."""
    assert "'a\\x1b[2J\\n'" == shown(b"a\x1b[2J\n")
    long = shown(b"x" * 5_000)
    assert len(long) < 300
    assert long.endswith("… (5,000 bytes)")


def test_event_is_one_line():
    """Text with line ends stays in its line."""
    assert b'{"kind":"cancel","id":"j","reason":"a\\nb"}\n' == event_line(
        "cancel", id="j", reason="a\nb"
    )


@given(st.lists(st.binary(max_size=30)), st.integers(1, 40))
def test_lines_are_found_however_they_are_cut(parts, limit):
    """Chunks change nothing; what is too long is told by its length and does not hold memory."""
    text = b"\n".join(parts)
    whole = ByteLines(limit)
    expected = [*whole.feed(text), *whole.flush()]
    pieces, found = ByteLines(limit), []
    for at in range(0, len(text), 7):
        found += pieces.feed(text[at : at + 7])
        assert sys.getsizeof(pieces._rest) <= 200 + 2 * limit
    found += pieces.flush()

    assert expected == found
    lines = [part for part in text.split(b"\n") if part.strip() or len(part) > limit]
    assert [part if len(part) <= limit else len(part) for part in lines] == found
