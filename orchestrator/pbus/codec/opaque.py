"""Messages and frames of classes that this process does not have: read, kept and written as they are."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pbus.codec.envelope import Encoding, Header, decode_header, json_encoder, msgpack_encoder
from pbus.codec.field_checks import check_fields, check_plain
from pbus.codec.wire_spec import WireSpec, spec_of
from pbus.errors import MessageDecodeError, MessageEncodeError
from pbus.frames import OpaqueFrame
from pbus.ids import new_id
from pbus.messages import BusMessage, BusOpaqueMessage, BusOpaqueSystemMessage, Lane
from pbus.structs import DECODE_ERRORS, is_packed

_MESSAGE_HEAD = ("type", "source", "target", "id", "time", "key", "traceparent")
_FRAME_HEAD = ("type", "metadata")
_SPLIT = dict[str, msgspec.Raw]

_split_json = msgspec.json.Decoder(_SPLIT).decode
_split_packed = msgspec.msgpack.Decoder(_SPLIT).decode


def opaque_data(
    fields: Mapping[str, Any], type_name: str, encoding: Encoding = Encoding.JSON
) -> bytes:
    """Encode the own fields of a message or frame whose class this process need not have.

    Args:
        fields: JSON values, or bytes.
        type_name: Of the message or frame.
        encoding: Of the data. JSON has bytes in base64, as fields of that type expect them.

    Raises:
        MessageEncodeError: A value would not arrive unchanged.
    """
    check_plain(dict(fields), type_name, "data", simple=(str, int, bytes))
    return (json_encoder if encoding is Encoding.JSON else msgpack_encoder).encode(dict(fields))


def read_opaque(line: bytes, lane: Lane) -> BusMessage:
    """Decode a message that is, or has a frame, of an unknown type.

    Args:
        line: The message.
        lane: Of its arrival.

    Raises:
        MessageDecodeError: It is no object, or a field of a known type is wrong.
    """
    header = decode_header(line)
    cls = BusMessage.catalogue.get(header.type)
    if cls is not None:
        message: BusMessage = spec_of(cls).decode(line, read_frame=_read_frame)
        return message
    kind = BusOpaqueMessage if lane is Lane.DATA else BusOpaqueSystemMessage
    _, data = _split(line, _MESSAGE_HEAD, header.type)
    return kind(
        source=header.source,
        target=header.target,
        id=header.id or new_id(),
        time=header.time,
        key=header.key,
        traceparent=header.traceparent,
        type_name=header.type,
        data=data,
    )


def checked_value(
    message: BusMessage, spec: WireSpec, encoding: Encoding
) -> BusMessage | msgspec.Raw:
    """Check a message, and encode what is opaque in it.

    Fields that are in JSON stay so, whatever the encoding of the bus: MessagePack would need the types.

    Returns:
        The value that is encoded for the message: itself, or its bytes.

    Raises:
        MessageEncodeError: A value would not arrive unchanged, or opaque data is no object, or has a
            field of the header.
    """
    check_fields(message, spec)
    if isinstance(message, BusOpaqueMessage):
        return msgspec.Raw(_write_message(message, encoding))
    if spec.frame_fields and any(
        isinstance(getattr(message, name), OpaqueFrame) for name in spec.frame_fields
    ):
        return msgspec.Raw(_write_frames(message, spec, encoding))
    return message


def _write_message(message: BusOpaqueMessage, encoding: Encoding) -> bytes:
    header = Header(
        type=message.type_name,
        source=message.source,
        target=message.target,
        id=message.id,
        time=message.time,
        key=message.key,
        traceparent=message.traceparent,
    )
    return _join(header, _MESSAGE_HEAD, message, encoding)


def _write_frames(message: BusMessage, spec: WireSpec, encoding: Encoding) -> bytes:
    frames = {name: getattr(message, name) for name in spec.frame_fields}
    unknown = {name: one for name, one in frames.items() if isinstance(one, OpaqueFrame)}
    if not all(is_packed(frame.data) for frame in unknown.values()):
        encoding = Encoding.JSON
    encoder = json_encoder if encoding is Encoding.JSON else msgpack_encoder
    values = {
        name: _join(_FrameHead(frame.type_name, frame.metadata), _FRAME_HEAD, frame, encoding)
        if name in unknown
        else encoder.encode(frame)
        for name, frame in frames.items()
    }
    raw = {name: msgspec.Raw(value) for name, value in values.items()}
    return encoder.encode(spec.wire(**msgspec.structs.asdict(message) | raw))


class _FrameHead(msgspec.Struct, omit_defaults=True):
    type: str
    metadata: dict[str, Any] | None = None


def _read_frame(raw: bytes, name: str) -> OpaqueFrame:
    head, data = _split(raw, _FRAME_HEAD, name)
    decode = msgspec.msgpack.decode if is_packed(raw) else msgspec.json.decode
    metadata = decode(head["metadata"]) if "metadata" in head else None
    if not isinstance(metadata, dict | None):
        raise MessageDecodeError("its metadata is no object", type_name=name)
    return OpaqueFrame(type_name=name, data=data, metadata=metadata)


def _split(raw: bytes, names: tuple[str, ...], type_name: str) -> tuple[_SPLIT, bytes]:
    """Part the fields of the header from the others, which stay encoded as they are."""
    try:
        fields = (_split_packed if is_packed(raw) else _split_json)(raw)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error), type_name=type_name) from error
    head = {name: value for name, value in fields.items() if name in names}
    own = {name: value for name, value in fields.items() if name not in names}
    if is_packed(raw):
        return head, msgpack_encoder.encode(own)
    begins = json_encoder.encode(head)[:-1]
    if own and raw.startswith(begins + b","):  # as pbus writes it: what follows is not touched
        return head, b"{" + raw[len(begins) + 1 :]
    return head, json_encoder.encode(own)


def _join(
    header: msgspec.Struct,
    names: tuple[str, ...],
    value: BusOpaqueMessage | OpaqueFrame,
    encoding: Encoding,
) -> bytes:
    """Encode a header and the own fields of an unknown message or frame."""
    type_name, data = value.type_name, value.data
    own = _own_of(data, type_name, names)
    if is_packed(data) and encoding is Encoding.MSGPACK:
        return msgpack_encoder.encode(msgspec.to_builtins(header) | own)
    if is_packed(data):
        data = opaque_data(msgspec.msgpack.decode(data), type_name)
    data = data.strip(b" \t\r\n")
    if b"\n" in data or b"\r" in data:  # one line is one message
        data = msgspec.json.format(data, indent=-1)
    head = json_encoder.encode(header)
    return head[:-1] + b"," + data[1:] if own else head


def _own_of(data: bytes, type_name: str, names: tuple[str, ...]) -> _SPLIT:
    """Check data, and what it is data of; returns its fields, still encoded."""
    if not (type_name and type_name.isprintable()):
        raise MessageEncodeError("BusMessage", "type_name", f"{type_name!r} is no name of a class")
    try:
        own = (_split_packed if is_packed(data) else _split_json)(data)
    except DECODE_ERRORS as error:
        raise MessageEncodeError(type_name, "data", f"it is no object ({error})") from error
    if taken := own.keys() & set(names):
        raise MessageEncodeError(type_name, "data", f"{min(taken)!r} is a field of the header")
    return own
