"""Messages and frames of classes that the receiving process does not have."""

import contextlib
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbus import codec
from pbus.codec import Encoding
from pbus.errors import MessageDecodeError, MessageEncodeError, MessageTooLargeError
from pbus.frames import Frame, OpaqueFrame, TextFrame
from pbus.messages import (
    BusDataMessage,
    BusFrameMessage,
    BusOpaqueMessage,
    BusOpaqueSystemMessage,
    Lane,
    message_types,
)

JSON, PACKED = Encoding.JSON, Encoding.MSGPACK
HEAD = {"source": "a", "target": "b", "id": "i-1", "time": 1.5}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = TEXT.filter(lambda name: name not in {"type", "source", "target", "id", "time", "metadata"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT | st.floats(-9.0, 9.0),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=4,
)


class OpaqueBook(BusDataMessage):
    """A type that this process has."""

    page: bytes
    number: int = 0


class OpaquePicture(Frame):
    """A frame that this process has."""

    pixels: bytes


def opaque(data=b"{}", type_name="NoSuchType", kind=BusOpaqueMessage):
    return kind(**HEAD, type_name=type_name, data=data)


def frame_message(data, type_name="NoSuchFrame", **rest):
    return BusFrameMessage(**HEAD, frame=OpaqueFrame(type_name=type_name, data=data, **rest))


def read(message, encoding=JSON, lane=Lane.DATA):
    return codec.decode_opaque(codec.encode_message(message, encoding=encoding), lane)


@pytest.mark.parametrize("encoding", [JSON, PACKED])
@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"x":1.0}', b'{ "x" : [1, 2.50] ,"y": null}', rb'{"a\u0062":"\u00e9"}'],
)
def test_data_in_json_arrives_byte_by_byte(data, encoding):
    """What is not decoded is not touched, whichever encoding the bus has: not even spaces."""
    assert opaque(data) == read(opaque(data), encoding)
    assert frame_message(data) == read(frame_message(data), encoding)


@settings(max_examples=40)
@given(st.dictionaries(NAMES, VALUES | st.binary(), max_size=5))
def test_packed_data_arrives_byte_by_byte(fields):
    """MessagePack keeps bytes and numbers as they are."""
    data = codec.opaque_data(fields, "NoSuchType", PACKED)
    back = read(opaque(data), PACKED)

    assert opaque(data) == back
    assert fields == back.fields()
    assert frame_message(data, metadata={"a": [1]}) == read(
        frame_message(data, metadata={"a": [1]}), PACKED
    )


@settings(max_examples=40)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from([JSON, PACKED]))
def test_line_is_encoded_as_it_came(fields, encoding):
    """A bridge that received a message writes the same bytes again."""
    header = codec.Header(type="NoSuchType", **HEAD)
    line = codec.encode_raw(header, fields, limit=sys.maxsize, encoding=encoding)

    assert line == codec.encode_message(codec.decode_opaque(line, Lane.DATA), encoding=encoding)


def test_receiver_with_the_class_gets_its_own_type():
    """A class is found by its name, whatever the sender had; also bytes from another encoding."""
    book = OpaqueBook(**HEAD, page=b"\x00\xff", number=3)
    for data_in, sent_in in ((JSON, JSON), (JSON, PACKED), (PACKED, JSON), (PACKED, PACKED)):
        data = codec.opaque_data({"page": b"\x00\xff", "number": 3}, "OpaqueBook", data_in)
        line = codec.encode_message(opaque(data, "OpaqueBook"), encoding=sent_in)

        assert book == codec.decode_message(line) == codec.decode_opaque(line, Lane.DATA)

        picture = codec.opaque_data({"pixels": b"\x00\xff"}, "OpaquePicture", data_in)
        framed = codec.encode_message(frame_message(picture, "OpaquePicture"), encoding=sent_in)
        assert OpaquePicture(pixels=b"\x00\xff") == codec.decode_message(framed).frame


def test_sender_that_knows_the_type_sends_its_own():
    """So it goes in the lane of its type, and a wrong field is an error here."""
    data = codec.opaque_data({"page": b"x"}, "OpaqueBook")

    assert OpaqueBook(**HEAD, page=b"x") == codec.known_form(opaque(data, "OpaqueBook"))
    assert (unknown := opaque(b'{"x":1}')) is codec.known_form(unknown)
    with pytest.raises(MessageDecodeError, match="page"):
        codec.known_form(opaque(b'{"page":7}', "OpaqueBook"))
    with pytest.raises(MessageDecodeError, match="never leaves a process"):
        codec.known_form(opaque(b"{}", "BusAddWorkerMessage"))


def test_lane_of_arrival_is_kept():
    """An unknown message that overtook others overtakes them again when it is sent on."""
    urgent = read(opaque(b'{"x":1}'), lane=Lane.SYSTEM)

    assert opaque(b'{"x":1}', kind=BusOpaqueSystemMessage) == urgent
    assert ("s", "system", False) == (urgent.lane, urgent.category, urgent.is_stored)
    assert ("d", "data", True) == (opaque().lane, opaque().category, opaque().is_stored)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no object"),
        (b"[1]", "no object"),
        (b'"text"', "no object"),
        (b'{"x":1', "no object"),
        (b'{"x":1} {"y":2}', "no object"),
        (b'{"\xff":1}', "no object"),
        (b"\x81\xa1x", "no object"),
        (b"\x93\x01\x02\x03", "no object"),
        (b'{"source":"boss"}', "'source' is a field of the header"),
        (msgspec.msgpack.encode({"type": "X"}), "'type' is a field of the header"),
    ],
)
@pytest.mark.parametrize("encoding", [JSON, PACKED])
def test_wrong_data_is_an_error_at_the_sender(data, problem, encoding):
    """It could not be read by anyone, or would forge the header."""
    with pytest.raises(MessageEncodeError, match=problem):
        codec.encode_message(opaque(data), encoding=encoding)


def test_frame_has_a_header_of_its_own():
    """A frame may have a field named source; its type is not to be forged."""
    data = b'{"source":"mic","id":7}'
    assert frame_message(data) == read(frame_message(data))
    for forged in (b'{"type":"TextFrame"}', b'{"metadata":{}}'):
        with pytest.raises(MessageEncodeError, match="is a field of the header"):
            codec.encode_message(frame_message(forged))


@pytest.mark.parametrize("name", ["", "A\nB", "\x1b[2J", "a\x00"])
def test_type_is_one_printable_word(name):
    """A name that would break a terminal or a line is none."""
    for message in (opaque(type_name=name), frame_message(b"{}", name)):
        with pytest.raises(MessageEncodeError, match="is no name of a class"):
            codec.encode_message(message)


@pytest.mark.parametrize("name", ["pkg.Thing", "Dinge-ä", 'say "x"', "BusOpaqueMessage"])
def test_other_names_are_carried(name):
    """Another system's names, and pbus' own of what is opaque: no type of the wire."""
    assert opaque(type_name=name) == read(opaque(type_name=name))
    assert name not in message_types()
    assert Frame.catalogue.get("OpaqueFrame") is None


def test_one_message_is_one_line():
    """Data printed over several lines would break a payload."""
    pretty = b'\n{\n  "x": "a\\nb",\r\n  "y": [\n 1\n]}\n'
    line = codec.encode_message(opaque(pretty))

    assert b"\n" not in line
    assert b"\r" not in line
    assert {"x": "a\nb", "y": [1]} == codec.decode_opaque(line, Lane.DATA).fields()


def test_known_parts_are_checked():
    """Only what is unknown is opaque: other fields, and frames of known classes, are not."""
    for body in (b'"direction":"sideways","frame":{"type":"X"}', b'"frame":{"type":"TextFrame"}'):
        with pytest.raises(MessageDecodeError, match=r"BusFrameMessage.*was refused"):
            codec.decode_opaque(b'{"type":"BusFrameMessage","source":"a",' + body + b"}", Lane.DATA)
    for line in (b"", b"null", b"[]", b'{"type":"X"}', b'{"type":"X","source":1}', b"\x90"):
        with pytest.raises(MessageDecodeError):
            codec.decode_opaque(line, Lane.DATA)
    odd = b'{"type":"BusFrameMessage","source":"a","frame":{"type":"X","metadata":[1]}}'
    with pytest.raises(MessageDecodeError, match="metadata is no object"):
        codec.decode_opaque(odd, Lane.DATA)


@given(st.binary())
def test_no_bytes_crash_it(line):
    """Any bytes are decoded or refused, also behind a header."""
    for data in (line, b'{"type":"X","source":"a",' + line, b"\x82\xa4type\xa1X" + line):
        with contextlib.suppress(MessageDecodeError):
            codec.decode_opaque(data, Lane.DATA)


def test_forged_headers_stay_out():
    """A header that comes twice is read as elsewhere, and its copy is not sent on."""
    line = b'{"type":"X","source":"a","id":"i","time":1.0,"source":"a","x":1}'
    message = codec.decode_opaque(line, Lane.DATA)
    with contextlib.suppress(MessageEncodeError):
        assert "a" == codec.decode_header(codec.encode_message(message)).source
    twice = codec.decode_opaque(b'{"type":"X","source":"a","x":1,"source":"b"}', Lane.DATA)
    assert ("b", {"x": 1}) == (twice.source, twice.fields())


def test_fields_are_checked():
    """What would arrive as something else is an error that names it; bytes may come along."""
    assert {"x": [b"\x00"]} == opaque(codec.opaque_data({"x": [b"\x00"]}, "X", PACKED)).fields()
    assert {"x": "AA=="} == opaque(codec.opaque_data({"x": b"\x00"}, "X")).fields()
    for fields, path in (
        ({"x": float("nan")}, r"data\.x"),
        ({"x": [{1}]}, r"data\.x\[0\]"),
        ({"x": {2: 1}}, r"data\.x"),
        ({"x": object()}, r"data\.x"),
    ):
        with pytest.raises(MessageEncodeError, match=path):
            codec.opaque_data(fields, "X")
    with pytest.raises(MessageDecodeError, match="NoSuchType"):
        opaque(b"no").fields()
    for value in (float("inf"), {7: 1}, msgspec.msgpack.Ext(3, b"x")):  # that only JSON lacks
        packed = opaque(msgspec.msgpack.encode({"x": value}))
        assert packed == read(packed, PACKED)
        with pytest.raises(MessageEncodeError, match=r"data\.x"):
            codec.encode_message(packed)


def test_limit_names_the_type():
    """A message that is too large is named by its own type."""
    with pytest.raises(MessageTooLargeError, match="NoSuchType is"):
        codec.encode_message(opaque(b'{"x":"' + b"a" * 100 + b'"}'), limit=100)


def test_text_names_the_type():
    """Logs show the type that it has for others."""
    assert "NoSuchType i-1 (a -> b)" == str(opaque())


def test_packed_payload_carries_json_lines():
    """A payload has one encoding; a line of the other one is an item of it."""
    envelope = codec.Envelope(codec.FORMAT_VERSION, "s", 1, Lane.DATA, "b", 1, 2, 0)
    for size in (1, 300, 70_000):  # three lengths of bytes
        line = codec.encode_message(opaque(b'{"x":"' + b"a" * size + b'"}'), encoding=PACKED)
        packed = codec.encode_message(
            BusFrameMessage(**HEAD, frame=TextFrame(text="t")), encoding=PACKED
        )
        items = [codec.within_packed(packed), codec.within_packed(line)]

        assert items[0] is packed
        assert (envelope, [packed, line]) == codec.decode_payload(
            codec.encode_payload(envelope, items)
        )
