"""The union decoder: the same messages, and the same refusals, as decoding by the header."""

import logging

import msgspec
import pytest

from pbus.bus.local.counters import Counters
from pbus.bus.local.decoder import MessageDecoder
from pbus.codec import Encoding, decode_message, encode_message, union_decoder
from pbus.codec.union_decoder import UnionDecoder
from pbus.errors import MessageDecodeError, UnknownTypeError
from pbus.frames import TextFrame
from pbus.messages import (
    BusDataMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusLocalMessage,
    BusMessage,
    Lane,
)


class UnionPoint(msgspec.Struct):
    """A value in a message."""

    x: int
    y: float = 0.5


class UnionPlain(BusDataMessage):
    """Fields of several types."""

    number: int
    point: UnionPoint | None = None
    names: tuple[str, ...] = ()
    free: object = None


class UnionOther(BusDataMessage):
    """The same fields under another name."""

    number: int


class UnionArray(BusDataMessage, array_like=True):
    """Fields without names."""

    number: int


class UnionTagged(BusDataMessage, tag="union-tagged"):
    """Known under another name to its encoder."""

    number: int


class UnionLocal(BusLocalMessage, BusDataMessage):
    """Never leaves its process."""


class UnionRaising(BusDataMessage):
    """Refuses some numbers, by any error."""

    number: int

    def __post_init__(self):
        if self.number < len(RAISED):
            raise RAISED[self.number]("no such number")


RAISED = (ValueError, KeyError, SystemExit, KeyboardInterrupt, GeneratorExit)


def line_of(text):
    return text.encode()


def taught(*classes):
    decoder = UnionDecoder()
    for cls in classes:
        decoder.add(cls)
    return decoder


@pytest.mark.parametrize(
    "message",
    [
        UnionPlain(source="s", number=1),
        UnionPlain(source="s", target="t", number=-1, point=UnionPoint(1), names=("é", '"')),
        UnionPlain(source="s", number=2, free={"type": "UnionOther", "deep": [None, 1.5]}),
        UnionOther(source="s", number=3, key="k", traceparent="00-x"),
        BusJobRequestMessage(source="s", target="t", job_id="j", job_name="n", payload={"a": 1}),
    ],
)
def test_message_is_the_same(message):
    """A message is decoded as by its own decoder, however many classes were met."""
    line = encode_message(message)
    decoder = taught(UnionPlain, UnionOther, BusJobRequestMessage)

    assert message == decode_message(line) == decoder.decode(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"source":"s","number":1}',
        b'{"source":"s","number":1,"type":"UnionMissing"}',
        b'{"type":"UnionPlain","source":"s"}',
        b'{"type":"UnionPlain","source":"s","number":"1"}',
        b'{"type":"UnionPlain","source":"s","number":1,"type":"UnionOther"}',
        b'["UnionPlain"]',
        b'{"type":"UnionPlain","source":"\xff","number":1}',
        b'{"type":1}',
        b"[" * 2000,
        b"",
    ],
)
@pytest.mark.parametrize("classes", [(), (UnionPlain,), (UnionPlain, UnionOther)])
def test_refusals_are_the_same(classes, line):
    """A message without a type, of a wrong one or with a wrong field is refused, also as the only class."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - any: it is decoded by its header then
        taught(*classes).decode(line)
    with pytest.raises(MessageDecodeError):
        decode_message(line)


def test_type_may_stand_anywhere():
    """Another program may write the fields in another order, and with escapes."""
    line = b'{"source":"s","number":7,"id":"i","time":1.0,"type":"Union\\u0050lain"}'

    assert UnionPlain(source="s", number=7, id="i", time=1.0) == taught(UnionPlain).decode(line)


@pytest.mark.parametrize("cls", [UnionArray, UnionTagged, BusFrameMessage])
def test_class_that_does_not_fit_is_left_out(cls):
    """A class that is no object, has another tag or carries frames does not spoil the others."""
    decoder = taught(UnionPlain, cls, UnionOther)
    message = UnionOther(source="s", number=1)

    assert message == decoder.decode(encode_message(message))
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(b'{"type":"%s","source":"s","number":1}' % cls.__name__.encode())


def test_local_messages_never_arrive():
    """The type of a local message is refused, also once others were met."""
    decode_message(encode_message(UnionPlain(source="s", number=1)))
    decoder = MessageDecoder(Counters())

    assert decoder.decode(b'{"type":"UnionLocal","source":"s"}') is None


def test_new_definition_is_used():
    """After a class was defined again, its messages are of the new class."""

    def define(default):
        class UnionReloaded(BusDataMessage):
            extra: int = default

        return UnionReloaded

    decoder = MessageDecoder(Counters())
    line = b'{"type":"UnionReloaded","source":"s"}'
    define(1)
    before = [decoder.decode(line).extra for _ in range(40)]
    define(2)

    assert [1] * 40 == before
    assert [2] * 40 == [decoder.decode(line).extra for _ in range(40)]


def test_classes_are_bounded():
    """Thousands of types do not make thousands of ever larger decoders."""
    decoder = UnionDecoder()
    classes = [type(f"UnionMany{at}", (BusDataMessage,), {}) for at in range(300)]
    for cls in classes:
        decoder.add(cls)

    first, last = (cls(source="s") for cls in (classes[0], classes[-1]))
    assert first == decoder.decode(encode_message(first))
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(encode_message(last))


@pytest.mark.parametrize("number", range(len(RAISED)))
def test_error_of_a_class_refuses_its_message(number, caplog):
    """What a class of the user raises refuses that message, whatever it is; the next one arrives."""
    decoder = MessageDecoder(counters := Counters())
    template = b'{"type":"UnionRaising","source":"s","number":%d}'
    for _ in range(40):  # by the union, too
        assert decoder.decode(template % 99).number == 99
    with caplog.at_level(logging.CRITICAL):
        refused = [decoder.decode(template % number), decoder.decode_broadcast(template % number)]
    assert [None, None] == refused
    assert 2 == counters.refused
    assert decoder.decode(template % 99).number == 99


def test_any_mixture_arrives():
    """Messages with frames, in MessagePack and of unknown types are decoded beside the others."""
    decoder = MessageDecoder(counters := Counters())
    frame = BusFrameMessage(source="s", target="t", frame=TextFrame(text="hello"))
    plain = UnionPlain(source="s", target="t", number=1)
    lines = {
        encode_message(frame): frame,
        encode_message(plain): plain,
        encode_message(plain, encoding=Encoding.MSGPACK): plain,
        b'{"type":"UnionForeign","source":"s"}': None,
    }
    order = [line for line in lines for _ in range(20)] + [
        line for _ in range(20) for line in lines
    ]

    assert [lines[line] for line in order] == [decoder.decode(line) for line in order]
    assert 40 == counters.refused


def test_unknown_types_stay_opaque():
    """Where unknown types are taken, the union refuses none of them."""
    decoder = MessageDecoder(Counters())
    line = b'{"type":"UnionForeign","source":"s","value":1}'
    kinds = {type(decoder.decode(line, Lane.DATA)).__name__ for _ in range(40)}

    assert {"BusOpaqueMessage"} == kinds
    with pytest.raises(UnknownTypeError):
        decode_message(line)


def test_met_types_are_added_once():
    """A type joins the union of the process when its first message was decoded."""
    message = UnionOther(source="s", number=5)
    BusMessage.catalogue.add(UnionOther)  # as by a reload: all are forgotten
    line = encode_message(message)
    with pytest.raises(msgspec.ValidationError):
        union_decoder.decode(line)
    decode_message(line)
    decode = union_decoder.decode
    decode_message(line)

    assert (message, decode) == (decode(line), union_decoder.decode)
