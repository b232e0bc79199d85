"""Messages of Pipecat on pbus' wire and back, in both encodings; and what pbus makes of them."""

import asyncio
import dataclasses
import inspect

import pytest
from pipecat.bus import (
    BusDataMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSystemMessage,
)
from pipecat.bus import messages as bus_messages
from pipecat.bus.ui import messages as ui_messages
from pipecat.frames import frames
from pipecat.processors.frame_processor import FrameDirection

import pbus
from pbus.codec import Encoding, Header, decode_message, encode_checked, encode_message
from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.conversion import decode_wire, find, from_wire, to_wire
from pbus.errors import MessageDecodeError, MessageEncodeError
from pbus.messages import message_type
from support.pipecat_bots import Bot

VALUES = {
    "job_id": "j", "frame": frames.TextFrame("x"), "direction": FrameDirection.UPSTREAM, "status": "completed",
    "args": {"k": (1, 2)}, "payload": {"a": b"x"}, "response": {"n": None}, "update": {}, "data": {"x": {1}},
    "flush_id": 7, "runner": "r", "workers": None, "error": "boom", "text": "t", "worker": None, "reason": "why",
    "job_name": "n", "bridge": "voice", "started_at": 1.5, "parent": "p", "at": 5,
}  # fmt: skip


def kinds(*modules):
    """The message classes that Pipecat sends between processes."""
    return [
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__
        and issubclass(cls, BusMessage)
        and not issubclass(cls, bus_messages.BusLocalMessage)
        and cls is not bus_messages.BusWorkerRegistryMessage
    ]


def filled(cls):
    """A message with a value in each field."""
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    return cls(source="a", target="b", **{key: VALUES[key] for key in fields & VALUES.keys()})


def passed(message, encoding=Encoding.JSON):
    """The message behind the wire."""
    return from_wire(decode_wire(line_of(message, encoding)))


def line_of(message, encoding=Encoding.JSON):
    wire = to_wire(message, message.source, message.target, packed=encoding is Encoding.MSGPACK)
    return encode_checked(wire.header, wire.values, limit=1 << 22, encoding=encoding)


@dataclasses.dataclass(kw_only=True)
class Odd(BusDataMessage):
    """Fields that are named like those of the header, and of a frame's tag."""

    type: str
    time: float
    module_of: str = "m"


@dataclasses.dataclass
class OddFrame(frames.DataFrame):
    type: str
    module: str
    image: bytes | None = None
    size: tuple[int, int] = (1, 2)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("cls", kinds(bus_messages, ui_messages), ids=lambda cls: cls.__name__)
def test_each_message_of_pipecat_arrives_as_it_was(cls, encoding):
    """All fields, its id and its name; as a new object."""
    for message in (filled(cls), filled(cls)):
        arrived = passed(message, encoding)
        assert message == arrived
        assert (cls, message.id, message.name) == (type(arrived), arrived.id, arrived.name)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(
    "frame",
    [
        frames.TextFrame("héllo"),
        frames.TranscriptionFrame(text="t", user_id="u", timestamp="now"),
        frames.TTSSpeakFrame("speak"),
        frames.OutputAudioRawFrame(audio=bytes(range(256)), sample_rate=24000, num_channels=2),
        frames.InputImageRawFrame(image=b"\xff\0", size=(1, 2), format="RGB"),
        frames.UserImageRawFrame(image=b"\xff", size=(1, 1), format=None, text="q"),
        frames.EndFrame(reason="over"),
        frames.FunctionCallResultFrame(
            function_name="f", tool_call_id="1", arguments={"a": 1}, result=(1, 2),
            properties=frames.FunctionCallResultProperties(run_llm=True),
        ),
        OddFrame("t", "m"),
        OddFrame("t", "m", b"x", (3, 4)),
    ],
    ids=lambda frame: frame.name,
)  # fmt: skip
def test_each_frame_arrives_byte_for_byte(frame, encoding):
    """With its id, name, times and metadata; bytes travel as they are where they can."""
    frame.metadata["mine"] = {"deep": [1]}
    frame.pts = 123
    arrived = passed(
        BusFrameMessage(source="a", frame=frame, direction=FrameDirection.DOWNSTREAM), encoding
    )
    assert frame == arrived.frame
    assert (frame.id, frame.name, 123, {"mine": {"deep": [1]}}) == (
        arrived.frame.id, arrived.frame.name, arrived.frame.pts, arrived.frame.metadata,
    )  # fmt: skip
    assert frame.interruptible == arrived.frame.interruptible
    assert type(frame) is type(arrived.frame)


def all_frames():
    """Pipecat's frame classes that take plain values for all that they need."""
    known = {
        "str": "x",
        "int": 1,
        "float": 1.5,
        "bool": True,
        "bytes": b"\xff\0",
        "Any": {"k": (1,)},
    }
    found = []
    for cls in sorted(set(theirs.subclasses_of(frames.Frame)), key=lambda cls: cls.__name__):
        missing = dataclasses.MISSING
        needed = [
            field
            for field in dataclasses.fields(cls)
            if field.init and field.default is field.default_factory is missing
        ]
        names = {field.name: getattr(field.type, "__name__", str(field.type)) for field in needed}
        is_known = set(names.values()) <= known.keys() and "DTMF" not in cls.__name__  # need more
        if cls.__module__ == frames.__name__ and is_known:
            found.append((cls, {name: known[kind] for name, kind in names.items()}))
    return found


@pytest.mark.parametrize(
    ("cls", "values"), all_frames(), ids=lambda one: getattr(one, "__name__", "")
)
def test_frames_of_all_classes_arrive(cls, values):
    """Events that tasks of the sender wait for are left out, as by Pipecat's own serializer."""
    frame = cls(**values)
    if "event" in {field.name for field in dataclasses.fields(cls)}:
        frame.event = asyncio.Event()
    for _ in range(3):  # the first one of a class is made, others are remade
        message = BusFrameMessage(source="a", frame=frame, direction=FrameDirection.DOWNSTREAM)
        arrived = passed(message).frame
        assert frame == arrived
        assert cls is type(arrived)
        assert vars(arrived).keys() >= vars(frame).keys()
        arrived.metadata["only"] = "here"


@pytest.mark.parametrize("encoding", Encoding)
def test_frames_are_remade_with_what_did_not_arrive(encoding):
    """None and defaults do not travel, or not from an older Pipecat; what is made of others is made."""
    frame = frames.InputAudioRawFrame(audio=b"\0\1\2\3", sample_rate=8000, num_channels=1)
    message = BusFrameMessage(source="a", frame=frame, direction=FrameDirection.UPSTREAM)
    for dropped in ([], ["num_frames"], ["interruptible"], ["metadata"], ["name", "id"], []):
        wire = decode_wire(line_of(message, encoding))
        for name in dropped:
            del wire.values["frame"][name]
        arrived = from_wire(wire).frame
        assert (2, True, {}, None) == (
            arrived.num_frames,
            arrived.interruptible,
            arrived.metadata,
            arrived.pts,
        )
        assert isinstance(arrived.id, int)
        assert arrived.name.startswith("InputAudioRawFrame#")
        assert ("id" in dropped) == (arrived.name != frame.name)
        arrived.metadata["only"] = "here"
    wire = decode_wire(line_of(message, encoding))
    wire.values["frame"]["of_a_later_version"] = 1
    assert 1 == from_wire(wire).frame.of_a_later_version


def test_a_class_of_ones_own_is_always_made():
    """Its initializer may do more than set fields."""
    made = []

    @dataclasses.dataclass
    class Counted(frames.DataFrame):
        text: str = ""

        def __post_init__(self):
            super().__post_init__()
            made.append(self.text)

    frame = Counted("x")
    for count in (2, 3, 4):
        message = BusFrameMessage(source="a", frame=frame, direction=FrameDirection.UPSTREAM)
        assert frame == passed(message).frame
        assert ["x"] * count == made


def test_a_message_class_of_ones_own_arrives():
    """Also with fields named like those of the header."""
    message = Odd(source="a", type="t", time=1.5)
    assert message == passed(message)


def test_the_latest_of_several_classes_is_taken_and_its_module_decides():
    """A program that is loaded as __main__ and by name has two."""
    other = dataclasses.make_dataclass(
        "Odd", [("type", str), ("time", float)], bases=(BusDataMessage,), kw_only=True
    )
    other.__module__ = "elsewhere"
    assert other is find(BusMessage, "Odd", "elsewhere")
    assert Odd is find(BusMessage, "Odd", __name__)
    assert find(BusMessage, "NoneSuch") is None


def test_pbus_reads_what_pipecat_sends():
    """By its own classes of these names; what it has no field for is left."""
    job = BusJobRequestMessage(source="a", target="b", job_id="1", job_name="n", payload={"x": [1]})
    ours = decode_message(line_of(job))
    assert isinstance(ours, pbus.BusJobRequestMessage)
    assert ("a", "b", "1", "n", {"x": [1]}) == (
        ours.source, ours.target, ours.job_id, ours.job_name, ours.payload,
    )  # fmt: skip
    text = BusFrameMessage(
        source="a", frame=frames.TextFrame("x"), direction=FrameDirection.UPSTREAM
    )
    for encoding in Encoding:
        ours = decode_message(line_of(text, encoding))
        assert (pbus.TextFrame, "x", "upstream") == (
            type(ours.frame),
            ours.frame.text,
            ours.direction,
        )


@pytest.mark.parametrize("encoding", Encoding)
def test_pipecat_reads_what_pbus_sends(encoding):
    """With the defaults that pbus leaves out."""
    audio = pbus.BusFrameMessage(
        source="p", target="a", frame=pbus.AudioRawFrame(audio=b"\0\1\2\3", sample_rate=8000)
    )
    urgent = pbus.messages.BusJobRequestUrgentMessage(source="p", target="a", job_id="1", window=5)
    answer = pbus.BusJobResponseMessage(
        source="p", target="a", job_id="1", status=pbus.JobStatus.FAILED
    )
    got = [
        from_wire(decode_wire(encode_message(one, encoding=encoding)))
        for one in (audio, urgent, answer)
    ]
    assert (b"\0\1\2\3", 1, 2, FrameDirection.DOWNSTREAM) == (
        got[0].frame.audio, got[0].frame.num_channels, got[0].frame.num_frames, got[0].direction,
    )  # fmt: skip
    assert (BusJobRequestMessage, "1") == (type(got[1]), got[1].job_id)
    assert "failed" == got[2].status


@pytest.mark.parametrize(
    "ours",
    [
        pbus.messages.BusJobCreditRequestMessage(source="p", target="a", job_id="1"),
        pbus.messages.BusWorkerRegistryMessage(source="p", runner="p", workers=()),
    ],
    ids=lambda ours: type(ours).__name__,
)
def test_what_is_of_pbus_own_affairs_is_left_out(ours):
    """Pipecat has no message for it."""
    assert from_wire(decode_wire(encode_message(ours))) is None


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("BusNoSuchMessage", {}, "no class of that name"),
        ("BusFrameMessage", {"frame": {"type": "NoSuchFrame"}}, "no frame class of that name"),
        ("BusFrameMessage", {"frame": {"type": "TextFrame"}, "direction": "sideways"}, "KeyError"),
        (
            "BusFrameMessage",
            {"frame": {"type": "InputAudioRawFrame", "audio": "no base64!"}},
            "base64",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error(kind, fields, problem):
    """It says which type, and why."""
    line = encode_checked(Header(type=kind, source="x"), fields, limit=1 << 20)
    with pytest.raises(MessageDecodeError, match=problem):
        from_wire(decode_wire(line))


@pytest.mark.parametrize("line", [b"", b"{", b'{"type":5}', b"\x80", b"[1]", b"null"])
def test_bytes_that_are_no_message_are_refused(line):
    """Never raised: the bus goes on."""
    assert decode_wire(line) is None


def test_a_field_that_cannot_travel_is_named():
    """Of a message, and of a frame in it."""
    frame = frames.TextFrame("x")
    frame.metadata["bot"] = Bot("b")
    message = BusFrameMessage(source="a", frame=frame, direction=FrameDirection.DOWNSTREAM)
    with pytest.raises(MessageEncodeError, match=r"BusFrameMessage.*frame\.metadata\.bot"):
        line_of(message)


@dataclasses.dataclass
class NearlyPlainFrame(frames.DataFrame):
    """Fields that are named like a frame's tag, and of types that are nearly plain."""

    type: str = "t"
    module: str = "m"
    text: str = ""
    number: int = 0
    sound: bytes = b""
    maybe: "bytes | None" = None
    anything: object = None


class Words(str):
    """A text that is of a class of its own."""

    __slots__ = ()


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(
    "values",
    [
        {"type": "other", "module": "os", "text": "type"},
        {"text": Words("words"), "number": True},
        {"number": -(1 << 80), "anything": [1 << 70, {"k": (1, 2)}]},
        {"sound": bytearray(b"\0\xff"), "maybe": b"\x80", "anything": b"tagged"},
        {"maybe": None, "anything": {"type": "x", "module": "y", 3: None}},
        {"text": "", "number": 0, "anything": float("inf")},
    ],
    ids=str,
)
def test_fields_of_a_frame_of_ones_own_arrive(values, encoding):
    """Whatever they hold, and however they are named."""
    frame = NearlyPlainFrame(**values)
    message = BusFrameMessage(source="a", frame=frame, direction=FrameDirection.UPSTREAM)
    arrived = from_wire(decode_wire(line_of(message, encoding)))

    assert FrameDirection.UPSTREAM is arrived.direction
    assert frame == arrived.frame


def test_a_field_that_is_nested_too_deeply_is_named():
    """The field of a frame, and that of a message."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    frame = BusFrameMessage(
        source="a", frame=NearlyPlainFrame(anything=deep), direction=FrameDirection.UPSTREAM
    )
    with pytest.raises(MessageEncodeError, match=r"BusFrameMessage\.frame\.anything.*too deeply"):
        line_of(frame)
    job = BusJobRequestMessage(source="a", job_id="1", payload={"deep": deep})
    with pytest.raises(MessageEncodeError, match=r"BusJobRequestMessage\.payload.*too deeply"):
        line_of(job)
    frame = NearlyPlainFrame(sound=memoryview(b"x"))
    with pytest.raises(MessageEncodeError, match=r"frame\.sound.*memoryview"):
        line_of(BusFrameMessage(source="a", frame=frame, direction=FrameDirection.UPSTREAM))


def test_text_that_is_none_is_an_error_at_its_sender():
    """Half of a character has no bytes."""
    job = BusJobRequestMessage(source="a", target="b", job_id="1", payload={"x": "half \ud83d"})
    for encoding in Encoding:
        with pytest.raises(MessageEncodeError, match=r"BusJobRequestMessage.*payload"):
            line_of(job, encoding)


def test_urgent_messages_of_pipecat_are_urgent_in_pbus():
    """The lanes agree, so cancels and urgent answers overtake on the whole way."""
    for cls in kinds(bus_messages):
        ours = message_type(cls.__name__)
        if ours is not None:
            assert issubclass(cls, BusSystemMessage) == (ours.lane == "s"), cls
