"""The envelope of a payload and the headers of encoded messages."""

import enum
from typing import Annotated, Any

import msgspec

from pbus.errors import MessageDecodeError
from pbus.messages import Lane
from pbus.names import MAX_NAME_LENGTH
from pbus.seal import is_sealed
from pbus.seal.seal_text import SUFFIX_LENGTH
from pbus.structs import DECODE_ERRORS, RoutingKey, TraceParent, is_packed
from pbus.trace_context import trace_id_of

FORMAT_VERSION = 1

# Numbers of the wire: within what JSON numbers and a bigint of SQL hold, with room to add them up.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

_HEAD_BYTES = 4096  # more than an envelope can take
_MAX_ADDRESS_LENGTH = MAX_NAME_LENGTH + 1  # some have a sign before the name

json_encoder = msgspec.json.Encoder()
msgpack_encoder = msgspec.msgpack.Encoder()


class Encoding(enum.StrEnum):
    """The encoding of a sender's messages."""

    JSON = "json"
    MSGPACK = "msgpack"


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first fields of each message; all that routing and `tail` need."""

    type: str
    source: str
    target: str | None = None
    id: str = ""
    time: float = 0.0
    key: RoutingKey | None = None
    traceparent: TraceParent | None = None

    @property
    def trace_id(self) -> str:
        """The trace that the message belongs to, 32 hex digits."""
        return trace_id_of(self)


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """The first line of each payload: the sender, and the position in its stream.

    Attributes:
        version: Of the format.
        sender: The incarnation of the sending process.
        stream: The number of the sender's stream to an address; a new stream counts messages from 1.
            Below 0 in copies of stored messages for taps.
        lane: "d" or "s".
        address: A worker's name, or "*" for everyone.
        first: Number of the first message of this payload within the stream, from 1.
        count: The number of messages that follow; 0 in a payload that reports only the position.
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
_packed_bytes_decoder = msgspec.msgpack.Decoder(bytes)
_json_array_decoder = msgspec.json.Decoder(list[Any])
_json_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_packed_fields_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_packed_payload_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


HEAD = b'{"type":"'  # of a message in JSON, as pbus writes it
NAME_AT = len(HEAD)
_SOURCE = b'","source":"'
_BYTES_MARKS = b"\xc4\xc5\xc6"  # which bytes of MessagePack begin with
_PACKED_SOURCE = msgpack_encoder.encode("source")


def encode_payload(envelope: Envelope, messages: list[bytes]) -> bytes:
    """Encode a payload.

    Args:
        envelope: The envelope.
        messages: Encoded messages, all of one encoding.
    """
    if messages and is_packed(messages[0]):
        head = msgspec.Raw(msgpack_encoder.encode(envelope))
        return msgpack_encoder.encode([head, *map(msgspec.Raw, messages)])
    return b"\n".join((json_encoder.encode(envelope), *messages))


def decode_payload(payload: bytes) -> tuple[Envelope, list[bytes]]:
    """Split a payload.

    Returns:
        The envelope, and the encoded messages.

    Raises:
        MessageDecodeError: There is no envelope of this format, or messages are missing.
    """
    try:
        if is_packed(payload):
            head, *raw = _packed_payload_decoder.decode(payload)
            envelope = _packed_envelope_decoder.decode(head)
            messages = [_unwrapped(bytes(item)) for item in raw]
        else:
            messages = payload.split(b"\n")
            envelope = _envelope_decoder.decode(messages.pop(0))
        check_addresses(envelope.sender, envelope.address)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(f"no pbus envelope ({error})") from error
    if envelope.version != FORMAT_VERSION:
        problem = f"format version {envelope.version}, this process speaks {FORMAT_VERSION}"
        raise MessageDecodeError(problem)
    if len(messages) != envelope.count:
        raise MessageDecodeError(f"{len(messages)} messages where {envelope.count} were announced")
    return envelope, messages


def claimed_origin(payload: bytes) -> str:
    """The origin that a refused payload or control payload names; "" where it says nothing."""
    head, line_end, _ = payload[:_HEAD_BYTES].partition(b"\n")
    if not line_end and is_sealed(head):
        head = head[:-SUFFIX_LENGTH]
    try:
        kind, sender, *rest = _json_array_decoder.decode(head)
        address = rest[2] if kind == FORMAT_VERSION else rest[0]
        check_addresses(sender, address)
    except (*DECODE_ERRORS, AttributeError, IndexError):
        return ""
    return f"process {sender!r}, to {address!r}"


def within_packed(line: bytes) -> bytes:
    """A message in JSON as an item of a payload in MessagePack."""
    return line if is_packed(line) else msgpack_encoder.encode(line)


def _unwrapped(item: bytes) -> bytes:
    return _packed_bytes_decoder.decode(item) if item[0] in _BYTES_MARKS else item


def check_addresses(*addresses: str) -> None:
    """Check incarnations and addresses of subscribers that came from the broker.

    Raises:
        ValueError: One of them is longer than names are, or has characters that are not printable.
    """
    for address in addresses:
        if len(address) > _MAX_ADDRESS_LENGTH or not address.isprintable():
            raise ValueError(f"no name of a process or subscriber: {address[:50]!r}")


def decode_header(data: bytes) -> Header:
    """Decode the header of an encoded message.

    Raises:
        MessageDecodeError: It is no object with type and source.
    """
    try:
        return (_packed_header_decoder if is_packed(data) else _header_decoder).decode(data)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error)) from error


def is_broadcast(data: bytes) -> bool:
    """Whether an encoded message is for everyone."""
    try:
        return decode_header(data).target is None
    except MessageDecodeError:
        return False


def source_of(data: bytes) -> str:
    """The source of an encoded message; "" when it is unreadable."""
    try:
        return decode_header(data).source
    except MessageDecodeError:
        return ""


def origin_of(data: bytes) -> tuple[bytes, str]:
    """The beginning of an encoded message up to its source, and the source.

    Messages with the same beginning have the same source.
    """
    if data.startswith(HEAD):  # as pbus writes it: the header need not be decoded
        begins = data.find(b'"', NAME_AT) + len(_SOURCE)
        ends = data.find(b'"', begins)
        head = data[: ends + 1]
        is_usual = ends > 0 and data.startswith(_SOURCE, begins - len(_SOURCE))
        if is_usual and b"\\" not in head:
            return head, head[begins:-1].decode(errors="replace")
    source = source_of(data)
    if is_packed(data):
        mark = _PACKED_SOURCE + msgpack_encoder.encode(source)
        if (at := data.find(mark)) >= 0:
            return data[: at + len(mark)], source
    return data, source


def with_target(data: bytes, target: str) -> bytes:
    """An encoded message with another target.

    Raises:
        MessageDecodeError: It is no object.
    """
    is_json = not is_packed(data)
    decode, encoder = (
        (_json_fields_decoder.decode, json_encoder)
        if is_json
        else (_packed_fields_decoder.decode, msgpack_encoder)
    )
    try:
        fields = decode(data)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error)) from error
    return encoder.encode(fields | {"target": msgspec.Raw(encoder.encode(target))})


def as_json(data: bytes) -> bytes:
    """Convert an encoded message to one line of JSON, with bytes in base64.

    Raises:
        MessageDecodeError: It cannot be decoded.
    """
    if not is_packed(data):
        return data
    try:
        return json_encoder.encode(msgspec.msgpack.decode(data))
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error)) from error
