"""Encoding and decoding of single messages."""

import math
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from pbus.codec.envelope import (
    HEAD,
    NAME_AT,
    Encoding,
    Header,
    decode_header,
    json_encoder,
    msgpack_encoder,
)
from pbus.codec.field_checks import (
    check_finite,
    check_key,
    check_plain,
    encode_error,
    raw_encode_error,
)
from pbus.codec.opaque import checked_value, read_opaque
from pbus.codec.union_decoder import UnionDecoder
from pbus.codec.wire_spec import SPECS, spec_of
from pbus.concurrency.user_code import as_handler_error
from pbus.errors import (
    HandlerExitError,
    MessageDecodeError,
    MessageError,
    MessageTooLargeError,
    UnknownTypeError,
    text_of,
)
from pbus.messages import BusMessage, BusOpaqueMessage, Lane
from pbus.settings import DEFAULT_MAX_MESSAGE_BYTES
from pbus.structs import DECODE_ERRORS

_encode_json, _encode_packed = json_encoder.encode, msgpack_encoder.encode
_isfinite = math.isfinite
_IN_JSON = Encoding.JSON  # looked up once: an enum's members are slow to reach

_decoders: dict[bytes, Callable[[bytes], BusMessage]] = {}  # by the type's name, after first use
union_decoder = UnionDecoder()
BusMessage.catalogue.when_changed(_decoders.clear)
BusMessage.catalogue.when_changed(union_decoder.clear)


def encode_message(
    message: BusMessage,
    *,
    limit: int = DEFAULT_MAX_MESSAGE_BYTES,
    encoding: Encoding = Encoding.JSON,
) -> bytes:
    """Encode a message; in JSON, as one line.

    Args:
        message: The message.
        limit: Bytes.
        encoding: The encoding.

    Raises:
        MessageEncodeError: A field has a value that would not arrive unchanged.
        MessageDefinitionError: The type of a field cannot be found.
        MessageTooLargeError: It is longer than the limit.
    """
    spec = SPECS.get(type(message)) or spec_of(type(message))
    value = message if spec.is_plain else checked_value(message, spec, encoding)
    is_json = encoding is _IN_JSON
    try:
        line = _encode_json(value) if is_json else _encode_packed(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise encode_error(message, error) from error
    if is_json and (
        not _isfinite(message.time)
        or (spec.has_numbers and b"null" in line)  # as msgspec writes NaN and infinities
    ):
        check_finite(message)
    if len(line) > limit:
        raise MessageTooLargeError(decode_header(line).type, len(line), limit)
    return line


def encode_raw(
    header: Header, fields: dict[str, Any], *, limit: int, encoding: Encoding = Encoding.JSON
) -> bytes:
    """Encode a message of a type that this process need not know.

    Args:
        header: The header.
        fields: JSON values.
        limit: Bytes.
        encoding: The encoding.

    Raises:
        MessageEncodeError: A field has a value that JSON cannot carry.
        MessageTooLargeError: It is longer than the limit.
    """
    check_plain(fields, header.type, "data")
    if header.key is not None:
        check_key(header.key, header.type)
    return encode_checked(header, fields, limit=limit, encoding=encoding)


def encode_checked(
    header: Header, fields: dict[str, Any], *, limit: int, encoding: Encoding = Encoding.JSON
) -> bytes:
    """Encode a message as `encode_raw` does, with fields that were checked before.

    Args:
        header: The header.
        fields: Values that the encoding carries unchanged; bytes may be among them.
        limit: Bytes.
        encoding: The encoding.

    Raises:
        MessageEncodeError: A text in it is none of Unicode.
        MessageTooLargeError: It is longer than the limit.
    """
    encoder = json_encoder if encoding is Encoding.JSON else msgpack_encoder
    try:
        line = encoder.encode(msgspec.to_builtins(header) | fields)
    except ValueError as error:
        raise raw_encode_error(header.type, fields, error) from error
    if len(line) > limit:
        raise MessageTooLargeError(header.type, len(line), limit)
    return line


def decode_message(line: bytes) -> BusMessage:
    """Decode a message, by the type in its header.

    Raises:
        MessageDecodeError: The type is unknown or never travels, or a field is wrong.
    """
    decode = _decoders.get(line[NAME_AT : line.find(b'"', NAME_AT)])
    if decode is not None:  # it begins as pbus writes it: the header is not decoded
        try:
            return decode(line)
        except DECODE_ERRORS:
            return _decode_by_header(line)  # whose error tells the reason
        except BaseException as error:
            raise _refusal(error, decode_header(line).type) from error
    return _decode_by_header(line)


def decode_opaque(line: bytes, lane: Lane) -> BusMessage:
    """Decode a message; of a type that is unknown here, or with a frame of one, as an opaque one.

    Args:
        line: The message.
        lane: Of its arrival.

    Raises:
        MessageDecodeError: Its type never travels, or a field is wrong.
    """
    try:
        return decode_message(line)
    except UnknownTypeError as unknown:
        try:
            return read_opaque(line, lane)
        except BaseException as error:
            raise _refusal(error, unknown.type_name) from error


def known_form(message: BusMessage) -> BusMessage:
    """The message that an opaque one stands for, where this process knows its type.

    Raises:
        MessageEncodeError: The data is no object.
        MessageDecodeError: The type does not take these fields.
    """
    if isinstance(message, BusOpaqueMessage) and BusMessage.catalogue.get(message.type_name):
        return decode_message(encode_message(message, limit=sys.maxsize))
    return message


def type_of(line: bytes) -> type[BusMessage] | None:
    """The class of an encoded message; None when it has no header."""
    if line.startswith(HEAD):
        name = line[NAME_AT : line.find(b'"', NAME_AT)].decode(errors="replace")
    else:
        try:
            name = decode_header(line).type
        except MessageDecodeError:
            return None
    return BusMessage.catalogue.get(name) or BusOpaqueMessage


def _decode_by_header(line: bytes) -> BusMessage:
    header = decode_header(line)
    cls = BusMessage.catalogue.get(header.type)
    if cls is None:
        raise UnknownTypeError(header.type)
    if cls.is_local:
        raise MessageDecodeError("its type never leaves a process", type_name=header.type)
    try:
        message: BusMessage = spec_of(cls).decode(line)
    except BaseException as error:
        raise _refusal(error, header.type) from error
    _decoders[header.type.encode()] = spec_of(cls).json_decoder
    union_decoder.add(cls)
    return message


def _refusal(error: BaseException, type_name: str) -> BaseException:
    """The error to raise for an error in decoding, which may be of a user's class."""
    own = as_handler_error(error, f"__post_init__ of {type_name}")
    if own is None:
        return error
    if isinstance(own, UnknownTypeError):
        return own
    if isinstance(own, (*DECODE_ERRORS, MessageError, HandlerExitError)):
        return MessageDecodeError(text_of(own), type_name=type_name)
    problem = f"its class raised {type(own).__name__}: {text_of(own)}"
    return MessageDecodeError(problem, type_name=type_name)
