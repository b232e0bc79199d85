"""Messages to bytes and back: an envelope, then messages, decoded by a closed set of types.

JSON puts one message a line; MessagePack (the sender's choice) makes one array of a payload. A
receiver takes both: the first byte tells them apart.
"""

import enum
import math
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from pbus.concurrency.user_code import as_handler_error
from pbus.errors import (
    HandlerExitError,
    MessageDecodeError,
    MessageDefinitionError,
    MessageEncodeError,
    MessageError,
    MessageTooLargeError,
    UnknownTypeError,
    text_of,
)
from pbus.frames import Frame
from pbus.messages import BusMessage, Lane
from pbus.settings import DEFAULT_MAX_MESSAGE_BYTES
from pbus.structs import DECODE_ERRORS, WireStruct

FORMAT_VERSION = 1
_MAX_DEPTH = 200  # deeper JSON is an accident; msgspec and the C stack agree up to here

# Numbers of the wire: within what JSON numbers and a bigint of SQL hold, with room to add them up.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_encode_json, _encode_packed = _json.encode, _msgpack.encode
_isfinite = math.isfinite


class Encoding(enum.StrEnum):
    """How a sender writes its messages."""

    JSON = "json"
    MSGPACK = "msgpack"


_IN_JSON = Encoding.JSON  # looked up once: an enum's members are slow to reach


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What every message says first; all that routing and `tail` need."""

    type: str
    source: str
    target: str | None = None
    id: str = ""
    time: float = 0.0


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """The first line of every payload: who sent it and where it stands in its stream.

    Attributes:
        version: Of this format.
        sender: The sending process's incarnation.
        stream: Tells the sender's streams to one address apart (a new one counts from 1); below 0 in
            copies of stored messages for followers.
        lane: "d" or "s".
        address: A worker's name, or "*" for everyone.
        first: Number of the first message of this payload within the stream, from 1.
        count: How many messages follow; 0 only marks how far the stream has come.
        position: Bytes of all earlier payloads of the stream, for flow control.
    """

    version: int
    sender: str
    stream: Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
    lane: Lane
    address: str
    first: Count
    count: Count
    position: Count


_header_decoder = msgspec.json.Decoder(Header)
_envelope_decoder = msgspec.json.Decoder(Envelope)
_packed_header_decoder = msgspec.msgpack.Decoder(Header)
_packed_envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_packed_payload_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


def _is_packed(data: bytes) -> bool:
    """Whether bytes are MessagePack: no map or array of it begins as JSON text does."""
    return data[:1] >= b"\x80"


def encode_payload(envelope: Envelope, messages: list[bytes]) -> bytes:
    """One payload of messages that all have one encoding: that of the first."""
    if messages and _is_packed(messages[0]):
        head = msgspec.Raw(_msgpack.encode(envelope))
        return _msgpack.encode([head, *map(msgspec.Raw, messages)])
    return b"\n".join((_json.encode(envelope), *messages))


def decode_payload(payload: bytes) -> tuple[Envelope, list[bytes]]:
    """Split a payload; messages stay undecoded.

    Raises:
        MessageDecodeError: It begins with no envelope of this format, or messages are missing.
    """
    try:
        if _is_packed(payload):
            head, *raw = _packed_payload_decoder.decode(payload)
            envelope, messages = (
                _packed_envelope_decoder.decode(head),
                [bytes(item) for item in raw],
            )
        else:
            messages = payload.split(b"\n")
            envelope = _envelope_decoder.decode(messages.pop(0))
    except DECODE_ERRORS as error:
        raise MessageDecodeError(f"no pbus envelope ({error})") from error
    if envelope.version != FORMAT_VERSION:
        problem = f"format version {envelope.version}, this process speaks {FORMAT_VERSION}"
        raise MessageDecodeError(problem)
    if len(messages) != envelope.count:
        raise MessageDecodeError(f"{len(messages)} messages where {envelope.count} were announced")
    return envelope, messages


def decode_header(data: bytes) -> Header:
    """The header of an encoded message.

    Raises:
        MessageDecodeError: Not an object with type and source.
    """
    try:
        return (_packed_header_decoder if _is_packed(data) else _header_decoder).decode(data)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error)) from error


def is_broadcast(data: bytes) -> bool:
    """Whether an encoded message is for everyone."""
    try:
        return decode_header(data).target is None
    except MessageDecodeError:
        return False


def source_of(data: bytes) -> str:
    """Who sent an encoded message; "" where that cannot be read."""
    try:
        return decode_header(data).source
    except MessageDecodeError:
        return ""


def origin_of(data: bytes) -> tuple[bytes, str]:
    """The beginning of an encoded message up to its source, and the source.

    What begins likewise has the same source.
    """
    if data.startswith(_HEAD):  # as pbus writes it: the header need not be decoded
        begins = data.find(b'"', _NAME_AT) + len(_SOURCE)
        ends = data.find(b'"', begins)
        head = data[: ends + 1]
        is_usual = ends > 0 and data.startswith(_SOURCE, begins - len(_SOURCE))
        if is_usual and b"\\" not in head:
            return head, head[begins:-1].decode(errors="replace")
    source = source_of(data)
    if _is_packed(data):
        mark = _PACKED_SOURCE + _encode_packed(source)
        if (at := data.find(mark)) >= 0:
            return data[: at + len(mark)], source
    return data, source


def as_json(data: bytes) -> bytes:
    """An encoded message as one line of JSON; bytes in it become base64.

    Raises:
        MessageDecodeError: It is broken.
    """
    if not _is_packed(data):
        return data
    try:
        return _json.encode(msgspec.msgpack.decode(data))
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error)) from error


def encode_message(
    message: BusMessage,
    *,
    limit: int = DEFAULT_MAX_MESSAGE_BYTES,
    encoding: Encoding = Encoding.JSON,
) -> bytes:
    """A message as bytes; in JSON, one line.

    Args:
        message: What to send.
        limit: The most bytes it may take.
        encoding: How to write it.

    Raises:
        MessageEncodeError: A field holds what the wire cannot carry unchanged.
        MessageDefinitionError: The type of a field cannot be found.
        MessageTooLargeError: It is longer than the limit.
    """
    spec = _specs.get(type(message)) or _spec(type(message))
    if not spec.is_plain:
        _check_fields(message, spec)
    is_json = encoding is _IN_JSON
    try:
        line = _encode_json(message) if is_json else _encode_packed(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _encode_error(message, error) from error
    if is_json and (
        not _isfinite(message.time)
        or (spec.has_numbers and b"null" in line)  # as msgspec writes NaN and infinities
    ):
        _check_finite(message)
    if len(line) > limit:
        raise MessageTooLargeError(type(message).__name__, len(line), limit)
    return line


def _check_fields(message: BusMessage, spec: "_WireSpec") -> None:
    for name in spec.free_fields:
        value = getattr(message, name)
        if value is not None:
            _check_plain(value, type(message).__name__, name, 0)
    for name in spec.frame_fields:
        _check_frame(getattr(message, name), type(message).__name__, name)


def encode_raw(
    header: Header, fields: dict[str, Any], *, limit: int, encoding: Encoding = Encoding.JSON
) -> bytes:
    """A message of a type this process does not know, from its header and JSON fields.

    Raises:
        MessageEncodeError: A field holds what JSON cannot carry.
        MessageTooLargeError: It is longer than the limit.
    """
    _check_plain(fields, header.type, "data", 0)
    encoder = _json if encoding is Encoding.JSON else _msgpack
    line = encoder.encode(msgspec.structs.asdict(header) | fields)
    if len(line) > limit:
        raise MessageTooLargeError(header.type, len(line), limit)
    return line


def decode_message(line: bytes) -> BusMessage:
    """The message of an encoded line, by its header's type.

    Raises:
        MessageDecodeError: Unknown type, a type that never travels, or a bad field.
    """
    decode = _decoders.get(line[_NAME_AT : line.find(b'"', _NAME_AT)])
    if decode is not None:  # it begins as pbus writes it: the header need not be decoded
        try:
            return decode(line)
        except DECODE_ERRORS:
            return _decode_by_header(line)  # which says what is wrong
        except BaseException as error:
            raise _refusal(error, decode_header(line).type) from error
    return _decode_by_header(line)


_HEAD = b'{"type":"'
_SOURCE = b'","source":"'
_PACKED_SOURCE = _encode_packed("source")
_NAME_AT = len(_HEAD)
_decoders: dict[bytes, Callable[[bytes], BusMessage]] = {}  # by the type's name, once it was met
BusMessage.catalogue.when_changed(_decoders.clear)


def type_of(line: bytes) -> type[BusMessage] | None:
    """The class of an encoded message; None where it is none that is known here."""
    if line.startswith(_HEAD):
        return BusMessage.catalogue.get(
            line[_NAME_AT : line.find(b'"', _NAME_AT)].decode(errors="replace")
        )
    try:
        return BusMessage.catalogue.get(decode_header(line).type)
    except MessageDecodeError:
        return None


def _decode_by_header(line: bytes) -> BusMessage:
    header = decode_header(line)
    cls = BusMessage.catalogue.get(header.type)
    if cls is None:
        raise UnknownTypeError(header.type)
    if cls.is_local:
        raise MessageDecodeError("its type never leaves a process", type_name=header.type)
    try:
        message: BusMessage = _spec(cls).decode(line)
    except BaseException as error:
        raise _refusal(error, header.type) from error
    _decoders[header.type.encode()] = _spec(cls).json_decoder
    return message


def _refusal(error: BaseException, type_name: str) -> BaseException:
    """What decoding a message of a class raised, which may be code of whoever wrote the class."""
    own = as_handler_error(error, f"__post_init__ of {type_name}")
    if own is None:
        return error
    if isinstance(own, UnknownTypeError):
        return own
    if isinstance(own, (*DECODE_ERRORS, MessageError, HandlerExitError)):
        return MessageDecodeError(text_of(own), type_name=type_name)
    problem = f"its class raised {type(own).__name__}: {text_of(own)}"
    return MessageDecodeError(problem, type_name=type_name)


class _FrameTag(msgspec.Struct, frozen=True):
    """Which type of frame an encoded frame is."""

    type: str


_frame_tag_decoder = msgspec.json.Decoder(_FrameTag)
_packed_frame_tag_decoder = msgspec.msgpack.Decoder(_FrameTag)


def _decode_frame(raw: bytes) -> Frame:
    """A frame by its own type: the second step of decoding a message that carries one."""
    decoder = _packed_frame_tag_decoder if _is_packed(raw) else _frame_tag_decoder
    name = decoder.decode(raw).type
    cls = Frame.catalogue.get(name)
    if cls is None:
        raise UnknownTypeError(name)
    frame: Frame = _spec(cls).decode(raw)
    return frame


class _WireSpec:
    """What coding needs to know of one class, found out on first use."""

    def __init__(self, cls: type[WireStruct]) -> None:
        hints = {field.name: field.type for field in msgspec.structs.fields(cls)}
        self.cls = cls
        self.free_fields = tuple(name for name, hint in hints.items() if _is_free(hint))
        self.frame_fields = tuple(name for name, hint in hints.items() if _is_frame(hint))
        self.has_numbers = any(
            _may_be_float(hint)
            for name, hint in hints.items()
            if name != "time" and name not in self.free_fields
        )
        self.is_plain = not (self.free_fields or self.frame_fields)
        wire = self._twin() if self.frame_fields else cls
        self._decode_json = msgspec.json.Decoder(wire).decode
        self.json_decoder = self.decode if self.frame_fields else self._decode_json
        self._decode_packed = msgspec.msgpack.Decoder(wire).decode

    def _twin(self) -> type[Any]:
        """The same struct with frames left undecoded."""
        fields = []
        for field in msgspec.structs.fields(self.cls):
            hint = msgspec.Raw if field.name in self.frame_fields else field.type
            if field.default_factory is not msgspec.NODEFAULT:
                default = msgspec.field(default_factory=field.default_factory)
            else:
                default = field.default
            entry = (field.name, hint)
            fields.append(entry if default is msgspec.NODEFAULT else (*entry, default))
        return msgspec.defstruct(
            self.cls.__name__, fields, tag_field="type", tag=self.cls.__name__, kw_only=True
        )

    def decode(self, data: bytes) -> Any:
        value = self._decode_packed(data) if _is_packed(data) else self._decode_json(data)
        if not self.frame_fields:
            return value
        values = msgspec.structs.asdict(value)
        for name in self.frame_fields:
            if isinstance(values[name], msgspec.Raw):
                values[name] = _decode_frame(bytes(values[name]))
        return self.cls(**values)


_specs: dict[type[WireStruct], _WireSpec] = {}


def _spec(cls: type[WireStruct]) -> _WireSpec:
    found = _specs.get(cls)
    if found is None:
        try:
            found = _specs[cls] = _WireSpec(cls)
        except NameError as error:
            raise _unresolved(cls, error) from error
        except TypeError as error:
            raise MessageDefinitionError(cls.__name__, str(error)) from error
    return found


def _unresolved(cls: type[WireStruct], error: NameError) -> MessageDefinitionError:
    """Say which annotation names what cannot be found."""
    fields = (
        f"{owner.__name__}.{name}"
        for owner in cls.__mro__
        for name, hint in vars(owner).get("__annotations__", {}).items()
        if isinstance(hint, str) and re.search(rf"\b{re.escape(error.name or '')}\b", hint)
    )
    problem = f"the type of {next(fields, 'a field')} names {error.name!r}, which is not defined"
    where = f"in module {cls.__module__}"
    hint = f"define or import it {where} itself, not in a function nor under `if TYPE_CHECKING:`"
    return MessageDefinitionError(cls.__name__, problem, hint=hint)


def _is_free(hint: Any) -> bool:
    """Whether a field may hold anything, so that only a look at the value can tell."""
    return hint is Any or any(_is_free(inner) for inner in typing.get_args(hint))


_NO_FLOATS = (str, int, bytes, type(None), enum.Enum)


def _may_be_float(hint: Any) -> bool:
    """Whether a float may be in a field of this type; yes where that is hard to tell."""
    inner = typing.get_args(hint)
    if inner:
        return typing.get_origin(hint) is not typing.Literal and any(map(_may_be_float, inner))
    return not (isinstance(hint, type) and issubclass(hint, _NO_FLOATS))


def _is_frame(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, Frame)) or any(
        _is_frame(inner) for inner in typing.get_args(hint)
    )


def _check_frame(frame: Frame | None, type_name: str, path: str) -> None:
    if frame is None:
        return
    for name in _spec(type(frame)).free_fields:
        _check_plain(getattr(frame, name), type_name, f"{path}.{name}", 0)


def _check_plain(value: Any, type_name: str, path: str, depth: int) -> None:
    """Refuse what JSON would change or drop on the way."""
    if value is None or isinstance(value, (str, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MessageEncodeError(type_name, path, f"{value} is no JSON number")
        return
    if depth >= _MAX_DEPTH:
        raise MessageEncodeError(type_name, path, f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise MessageEncodeError(
                    type_name, path, f"key {key!r} is {type(key).__name__}, JSON keys are text"
                )
            _check_plain(inner, type_name, f"{path}.{key}", depth + 1)
        return
    if isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_plain(inner, type_name, f"{path}[{index}]", depth + 1)
        return
    raise MessageEncodeError(
        type_name,
        path,
        f"a {type(value).__name__} would not arrive as one",
        hint="convert it to text, number, list or dict, or declare a field of that type in a "
        "message class of your own",
    )


def _check_finite(message: BusMessage) -> None:
    """Find the non-finite number in a typed field, if that is where a null came from."""
    for field in msgspec.structs.fields(type(message)):
        path = _non_finite(getattr(message, field.name), field.name, 0)
        if path is not None:
            raise MessageEncodeError(type(message).__name__, path, "NaN and infinity are no JSON")


def _non_finite(value: Any, path: str, depth: int) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if depth >= _MAX_DEPTH:
        return None
    inner: list[tuple[str, Any]] = []
    if isinstance(value, msgspec.Struct):
        inner = [(f"{path}.{name}", getattr(value, name)) for name in value.__struct_fields__]
    elif isinstance(value, dict):
        inner = [(f"{path}.{key}", item) for key, item in value.items()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return next(
        (found for name, item in inner if (found := _non_finite(item, name, depth + 1))), None
    )


def _encode_error(message: BusMessage, error: Exception) -> MessageEncodeError:
    """Name the field that could not be encoded."""
    for field in msgspec.structs.fields(type(message)):
        try:
            _json.encode(getattr(message, field.name))
        except (TypeError, ValueError, OverflowError, RecursionError) as inner:
            return MessageEncodeError(type(message).__name__, field.name, str(inner))
    return MessageEncodeError(type(message).__name__, "?", str(error))
