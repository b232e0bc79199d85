"""Messages to bytes and back, and everything the wire must refuse."""

import contextlib
import datetime
import decimal
import enum
import subprocess
import sys
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus import codec
from pbus.codec import wire_spec
from pbus.errors import (
    DuplicateTypeError,
    MessageDecodeError,
    MessageEncodeError,
    MessageTooLargeError,
)
from pbus.frames import AudioRawFrame, Frame, FrameDirection, TextFrame
from pbus.messages import (
    BusAddWorkerMessage,
    BusDataMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    message_types,
)


class Reading(BusDataMessage):
    """A message of the test's own, with typed fields."""

    celsius: float
    at: datetime.datetime | None = None
    tags: set[str] = msgspec.field(default_factory=set)


class PictureFrame(Frame):
    """A frame of the test's own."""

    pixels: bytes
    extra: dict[str, object] | None = None


def roundtrip(message: BusMessage) -> BusMessage:
    """Encode and decode."""
    return codec.decode_message(codec.encode_message(message))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_any_json_payload_survives(payload):
    """Whatever JSON can say arrives as it was."""
    message = BusJobRequestMessage(source="a", job_id="j", payload=payload)

    assert message == roundtrip(message)


@given(st.binary())
def test_no_bytes_crash_decoder(line):
    """Any bytes are decoded or refused, nothing else is raised."""
    for decode in (codec.decode_message, codec.decode_header, codec.decode_payload):
        with contextlib.suppress(MessageDecodeError):
            decode(line)


def test_typed_fields_survive():
    """Typed fields of a user's class come back as their types."""
    message = Reading(
        source="a",
        celsius=1.5,
        at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        tags={"x", "y"},
    )

    assert message == roundtrip(message)


def test_frames_decode_by_own_type():
    """A frame comes back as its own class, direction and all."""
    message = BusFrameMessage(
        source="a",
        frame=PictureFrame(pixels=b"\x00\xff", extra={"a": [1, None]}),
        direction=FrameDirection.UPSTREAM,
    )
    back = roundtrip(message)

    assert message == back
    assert PictureFrame is type(back.frame)


def test_status_decodes_to_enum():
    """A job's status is a JobStatus again, not a string."""
    back = roundtrip(BusJobResponseMessage(source="w", job_id="j", status=JobStatus.ERROR))

    assert JobStatus.ERROR is back.status


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        uuid.UUID(int=1),
        decimal.Decimal("1.5"),
        b"bytes",
        bytearray(b"x"),
        object(),
        len,
        float("nan"),
        float("inf"),
        {1: "int key"},
        {None: 1},
        "\ud800",
        TextFrame(text="a struct"),
        enum.Enum("Plain", "A").A,
    ],
    ids=lambda value: repr(value).partition(" object at ")[0],
)
def test_w20_unfaithful_value_is_refused(value):
    """What would arrive changed, or not at all, is an error at the sender that names the field."""
    message = BusJobRequestMessage(source="a", job_id="j", payload={"deep": [{"key": value}]})
    with pytest.raises(MessageEncodeError, match="payload"):
        codec.encode_message(message)


def test_w20_depth_is_refused():
    """Nesting deeper than the wire carries is an error, not a crash."""
    payload: dict[str, object] = {}
    for _ in range(900):
        payload = {"a": payload}
    with pytest.raises(MessageEncodeError, match="nested"):
        codec.encode_message(BusJobRequestMessage(source="a", job_id="j", payload=payload))


def test_w20_type_keys_are_plain_data():
    """A user's dict that looks like a tagged value stays a dict."""
    payload = {"type": "TextFrame", "__type__": "os.system", "__data__": {"x": 1}}
    message = BusJobRequestMessage(source="a", job_id="j", payload=payload)

    assert message == roundtrip(message)


def test_non_finite_typed_float_is_refused():
    """NaN in a typed field is an error naming it, never a null; a real null passes."""
    with pytest.raises(MessageEncodeError, match="celsius"):
        codec.encode_message(Reading(source="a", celsius=float("nan")))
    message = BusJobRequestMessage(source="a", job_id="j", payload={"nothing": None})

    assert message == roundtrip(message)


def test_wrong_field_value_is_named():
    """A typed field that holds something unencodable is named."""
    with pytest.raises(MessageEncodeError, match="tags"):
        codec.encode_message(Reading(source="a", celsius=1.0, tags={object()}))


def test_large_message_is_refused():
    """A message over the limit names both sizes."""
    with pytest.raises(MessageTooLargeError, match="1,000"):
        codec.encode_message(
            BusJobRequestMessage(source="a", job_id="j", payload={"x": "y" * 2000}), limit=1000
        )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"type":"Nothing","source":"a"}',
        b'{"type":"BusJobRequestMessage","source":"a"}',
        b'{"type":"Reading","source":"a","celsius":"warm"}',
        b'{"type":"BusFrameMessage","source":"a","frame":{"type":"Reading"}}',
        b'{"type":"BusFrameMessage","source":"a","frame":3}',
        b'{"type":"BusAddWorkerMessage","source":"a","worker":1}',
        b'{"type":"BusWorkerLocalErrorMessage","source":"a","error":"x"}',
        b'{"type":5,"source":"a"}',
        b'{"type":"BusDataMessage"}',
        b"[" * 100_000,
    ],
)
def test_w32_bad_lines_are_refused(line):
    """Unknown types, missing fields, wrong types and local types are refused."""
    with pytest.raises(MessageDecodeError):
        codec.decode_message(line)


def test_w17_names_are_never_imported(tmp_path):
    """A message that names a module imports nothing and builds nothing."""
    (tmp_path / "marker_mod.py").write_text("raise SystemExit(1)\n")
    program = (
        "from pbus import codec\n"
        "from pbus.errors import MessageDecodeError\n"
        "for name in ('marker_mod.Thing', 'unittest.__main__.X', 'os.system'):\n"
        '    for text in (\'{"type":"%s","source":"a"}\',\n'
        '                 \'{"__type__":"%s","__data__":{}}\'):\n'
        "        try:\n"
        "            codec.decode_message((text % name).encode())\n"
        "        except MessageDecodeError:\n"
        "            pass\n"
        "import sys; print('marker_mod' in sys.modules, 'unittest' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )

    assert ("False False\n", 0) == (done.stdout, done.returncode)


def test_w17_junk_names_cost_no_memory():
    """Twenty thousand unknown type names leave nothing behind."""
    before = len(wire_spec.SPECS), len(message_types())
    for number in range(20_000):
        with pytest.raises(MessageDecodeError):
            codec.decode_message(b'{"type":"Junk%d","source":"a"}' % number)

    assert before == (len(wire_spec.SPECS), len(message_types()))


def test_second_class_of_a_name_is_refused():
    """Two message classes of one name are an error where the second is defined."""
    with pytest.raises(DuplicateTypeError, match="Reading"):

        class Reading(BusDataMessage):
            """Clashes with the one above."""


def test_payload_roundtrip():
    """An envelope and its lines come back; a missing line is noticed."""
    envelope = codec.Envelope(codec.FORMAT_VERSION, "me", 1, "d", "w", 7, 2, 99)
    payload = codec.encode_payload(envelope, [b"{}", b"[]"])

    assert (envelope, [b"{}", b"[]"]) == codec.decode_payload(payload)
    with pytest.raises(MessageDecodeError, match="announced"):
        codec.decode_payload(payload.rpartition(b"\n")[0])


def test_raw_message_roundtrip():
    """A message of a type unknown here is encoded from its fields."""
    header = codec.Header(type="Reading", source="cli", target="w", id="1", time=2.0)
    line = codec.encode_raw(header, {"celsius": 3.5}, limit=1000)

    assert Reading(source="cli", target="w", id="1", time=2.0, celsius=3.5) == codec.decode_message(
        line
    )


def test_messages_have_categories_and_lanes():
    """Categories and lanes of the catalogue are as documented."""
    expected = {
        "BusActivateWorkerMessage": ("system", "d"),
        "BusAddWorkerMessage": ("local", "s"),
        "BusCancelMessage": ("system", "s"),
        "BusDataMessage": ("data", "d"),
        "BusEndMessage": ("system", "d"),
        "BusFrameMessage": ("data", "d"),
        "BusJobCancelMessage": ("job", "s"),
        "BusJobRequestMessage": ("job", "d"),
        "BusJobResponseMessage": ("job", "d"),
        "BusJobResponseUrgentMessage": ("job", "s"),
        "BusJobUpdateUrgentMessage": ("job", "s"),
        "BusWorkerErrorMessage": ("system", "s"),
        "BusWorkerReadyMessage": ("system", "d"),
        "BusWorkerRegistryMessage": ("system", "s"),
    }
    found = {
        name: (BusMessage.catalogue.get(name).category, BusMessage.catalogue.get(name).lane.value)
        for name in expected
    }

    assert expected == found
    assert BusAddWorkerMessage.is_local


def test_ids_are_unique_after_fork():
    """A forked child makes other ids than its parent."""
    program = (
        "import os; from pbus.ids import new_id\n"
        "new_id(); r, w = os.pipe(); pid = os.fork()\n"
        "mine = new_id()\n"
        "if pid == 0: os.write(w, mine.encode()); os._exit(0)\n"
        "os.waitpid(pid, 0); print(os.read(r, 99).decode() != mine)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert "True\n" == done.stdout


def test_audio_counts_frames():
    """An audio frame knows its length in samples per channel."""
    assert 4 == AudioRawFrame(audio=bytes(16), sample_rate=8000, num_channels=2).num_frames


def test_decoder_follows_new_definition():
    """A class defined again (a reload) is what its type's messages are decoded to from then on."""

    def define(**fields):
        return type(BusDataMessage)(
            "ReloadedNote",
            (BusDataMessage,),
            {"__module__": __name__, "__annotations__": fields},
        )

    first = define(number=int)
    line = codec.encode_message(first(source="a", number=1))
    assert type(codec.decode_message(line)) is type(codec.decode_message(line)) is first

    second = define(number=int)
    assert type(codec.decode_message(line)) is second


def test_known_type_is_still_checked():
    """A type that was decoded before is refused for the same reasons as at first."""
    line = codec.encode_message(Reading(source="a", celsius=1.5))
    codec.decode_message(line)

    with pytest.raises(MessageDecodeError, match="celsius") as refusal:
        codec.decode_message(line.replace(b'"celsius":1.5', b'"celsius":"warm"'))
    assert "Reading" in str(refusal.value)


class NumberedThing(msgspec.Struct, frozen=True):
    """Holds a number deep within a message."""

    value: float


class Ratings(BusDataMessage):
    """A message with numbers in several places."""

    things: tuple[NumberedThing, ...] = ()
    by_name: dict[str, float | None] | None = None


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"time": float("inf")}, "time"),
        ({"things": (NumberedThing(float("nan")),)}, "things"),
        ({"by_name": {"a": None, "b": float("inf")}}, "by_name"),
    ],
)
def test_numbers_are_found_everywhere(fields, path):
    """What is no JSON number is named wherever a type allows it."""
    with pytest.raises(MessageEncodeError, match=path):
        codec.encode_message(Ratings(source="a", **fields))
