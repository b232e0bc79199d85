"""Pipecat's messages on pbus' wire: each by its class name, with its fields beside the header."""

import base64
import binascii
import dataclasses
import enum
import functools
import logging
import typing
from typing import Any

import msgspec

from pbus.codec import Header
from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.remaking import remake
from pbus.compat.pipecat.values import (
    Unencodable,
    decode,
    encode,
    encode_field,
    field_error,
    is_of_process,
    is_plain,
)
from pbus.errors import MessageDecodeError
from pbus.frames import Frame
from pbus.messages import BusMessage, BusOpaqueMessage
from pbus.structs import DECODE_ERRORS, is_packed

logger = logging.getLogger(__name__)

_HEADER = frozenset(Header.__struct_fields__)
_MADE = "made"  # Pipecat's own id and name of a message
_OWN = frozenset({"id", "name", "source", "target"})
_NAMED_HERE = "pipecat."  # classes of Pipecat itself are found without their module
# Those of pbus that Pipecat has another class for.
_AS_THEIRS = {
    "BusJobRequestUrgentMessage": "BusJobRequestMessage",
}
_FRAMES_AS_THEIRS = {"AudioRawFrame": "OutputAudioRawFrame"}
_DIRECTIONS = {one: one.name.lower() for one in theirs.FrameDirection}
_WAYS = {word: one for one, word in _DIRECTIONS.items()}
_TAG = frozenset({"type", "module"})  # of a frame; its fields of these names get a _
_NOT_THEIRS = frozenset({"BusWorkerRegistryMessage", "BusAddWorkerMessage"})


class WireMessage(BusOpaqueMessage):
    """A message as it travels: of no class of this process.

    Attributes:
        values: Its own fields as JSON; `data` is empty.
    """

    values: dict[str, Any]

    @property
    def header(self) -> Header:
        """Its header."""
        return Header(
            type=self.type_name,
            source=self.source,
            target=self.target,
            id=self.id,
            time=self.time,
            traceparent=self.traceparent,
        )


BusMessage.catalogue.discard(WireMessage)  # its name means no type on the wire


def decode_wire(line: bytes) -> WireMessage | None:
    """Decode an encoded message of any type; None, and a line in the log, for what is none."""
    try:
        fields = (_decode_packed if is_packed(line) else _decode_json)(line)
        header = msgspec.convert({key: fields.pop(key) for key in _HEADER & fields.keys()}, Header)
    except DECODE_ERRORS as error:
        logger.warning("a message is refused: %s", error)
        return None
    return WireMessage(
        type_name=header.type,
        source=header.source,
        target=header.target,
        id=header.id,
        time=header.time,
        key=header.key,
        traceparent=header.traceparent,
        values=fields,
    )


_decode_json = msgspec.json.Decoder(dict[str, Any]).decode
_decode_packed = msgspec.msgpack.Decoder(dict[str, Any]).decode


# To the wire


def to_wire(message: Any, source: str, target: str | None, *, packed: bool) -> WireMessage:
    """The form of a Pipecat message for the wire.

    Args:
        message: The message.
        source: The address of its sender.
        target: The address of its receiver.
        packed: Whether bytes may travel as they are.

    Raises:
        MessageEncodeError: A field cannot travel; it names the field.
    """
    kind = type(message).__name__
    fields: dict[str, Any] = {_MADE: [message.id, message.name]}
    for name, key in _message_fields(message.__class__):
        value = getattr(message, name)
        if value is None:
            continue
        if isinstance(value, theirs.Frame):
            value = _frame_to_wire(value, kind, name, packed=packed)
        elif isinstance(value, enum.StrEnum):
            value = value.value
        elif isinstance(value, theirs.FrameDirection):
            value = _DIRECTIONS[value]
        elif type(value) is not str:
            value = encode_field(value, kind, name)
        fields[key] = value
    if not type(message).__module__.startswith(_NAMED_HERE):
        fields["module"] = type(message).__module__
    return WireMessage(type_name=kind, source=source, target=target, values=fields)


@functools.cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@functools.cache
def _message_fields(cls: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a message beside the header: name, key on the wire."""
    own = (name for name in _names(cls) if name not in _OWN)
    return tuple((name, f"{name}_" if name in _HEADER else name) for name in own)


def _frame_to_wire(frame: Any, kind: str, name: str, *, packed: bool) -> dict[str, Any]:
    """A frame as pbus writes its own: the class' name, and the fields beside it."""
    cls: Any = type(frame)
    wire: dict[str, Any] = {"type": cls.__name__}
    if not cls.__module__.startswith(_NAMED_HERE):
        wire["module"] = cls.__module__
    field = ""
    try:
        for field, key, is_raw in _frame_fields(cls):
            value = getattr(frame, field, None)
            if value is None:
                continue
            if is_plain(value, type(value)):
                wire[key] = value
            elif is_raw and isinstance(value, (bytes, bytearray)):
                wire[key] = _raw(value, packed=packed)
            elif not is_of_process(value):
                wire[key] = encode(value)
    except (Unencodable, RecursionError) as error:
        raise field_error(error, kind, f"{name}.{field}") from error
    return wire


def _raw(value: bytes | bytearray, *, packed: bool) -> bytes | str:
    return bytes(value) if packed else base64.b64encode(value).decode()


@functools.cache
def _frame_fields(cls: Any) -> tuple[tuple[str, str, bool], ...]:
    """The fields of a frame: name, key on the wire, whether bytes in it travel without a tag."""
    raw = _bytes_fields(cls)
    return tuple((name, f"{name}_" if name in _TAG else name, name in raw) for name in _names(cls))


@functools.cache
def _fields_by_key(cls: Any) -> dict[str, tuple[str, bool]]:
    """The same by key."""
    return {key: (name, is_raw) for name, key, is_raw in _frame_fields(cls)}


@functools.cache
def _bytes_fields(cls: Any) -> frozenset[str]:
    """The fields of a frame that hold bytes, which travel without a tag, as those of pbus' frames."""
    return frozenset(field.name for field in dataclasses.fields(cls) if _is_bytes(field.type))


def _is_bytes(hint: Any) -> bool:
    """Whether a type is bytes, perhaps None, too; not resolved where it is text: it may be undefined."""
    if isinstance(hint, str):
        return hint.replace(" ", "") in {"bytes", "bytes|None", "None|bytes", "Optional[bytes]"}
    return hint is bytes or set(typing.get_args(hint)) == {bytes, type(None)}


# From the wire


def from_wire(wire: WireMessage) -> Any:
    """The Pipecat message of a message on the wire; None for one that is of pbus' own affairs.

    Raises:
        MessageDecodeError: This process has no class of that name, or its class refused the fields.
    """
    kind = _AS_THEIRS.get(wire.type_name, wire.type_name)
    cls = None if kind in _NOT_THEIRS else find(theirs.BusMessage, kind, wire.values.get("module"))
    if cls is None:
        if BusMessage.catalogue.get(kind) is not None:
            return None
        raise MessageDecodeError("no class of that name is imported here", type_name=kind)
    try:
        return _message(cls, wire)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise MessageDecodeError(text, type_name=kind) from error


def _message(cls: type, wire: WireMessage) -> Any:
    fields: dict[str, Any] = {"source": wire.source}
    if wire.target is not None:
        fields["target"] = wire.target
    ours: Any = BusMessage.catalogue.get(wire.type_name)
    defaults = _defaults(ours)
    for name, key in _message_fields(cls):
        value = wire.values.get(key, defaults.get(name))
        if type(value) is str and name != "direction":
            fields[name] = value
        elif value is not None:
            fields[name] = _field_from_wire(name, value)
    made = wire.values.get(_MADE)
    if isinstance(made, list) and len(made) == 2:  # noqa: PLR2004 - id and name
        fields["id"], fields["name"] = made
    return remake(cls, fields)


def _field_from_wire(name: str, value: Any) -> Any:
    if name == "frame" and isinstance(value, dict) and "type" in value:
        return _frame_from_wire(value)
    if name == "direction" and isinstance(value, str):
        return _WAYS.get(value) or theirs.FrameDirection[value.upper()]
    return decode(value)


@functools.cache
def _defaults(ours: Any) -> dict[str, Any]:
    """The values that pbus leaves out of messages and frames of a class of its own."""
    if ours is None:
        return {}
    return {
        field.name: field.default
        for field in msgspec.structs.fields(ours)
        if field.default not in {None, msgspec.NODEFAULT} and field.name not in _OWN
    }


def _frame_from_wire(wire: dict[str, Any]) -> Any:
    kind = _FRAMES_AS_THEIRS.get(wire["type"], wire["type"])
    cls = find(theirs.Frame, kind, wire.get("module"))
    if cls is None:
        raise MessageDecodeError("no frame class of that name is imported here", type_name=kind)
    known = _fields_by_key(cls)
    ours: Any = Frame.catalogue.get(wire["type"])
    fields: dict[str, Any] = dict(_defaults(ours))
    for key, value in wire.items():
        name, is_raw = known.get(key, (key, False))
        held = type(value)
        if key in _TAG:
            continue
        if is_raw and held is str:
            fields[name] = binascii.a2b_base64(value, strict_mode=True)
        else:
            fields[name] = decode(value) if held is dict or held is list else value
    if fields.get("metadata") is None:
        fields.pop("metadata", None)
    return remake(cls, fields)


_found: dict[tuple[type, str, str | None], type] = {}


def find(base: type, name: str, module: str | None = None) -> type | None:
    """The class below a base of a name, among those that this process has; the latest of several.

    Args:
        base: Of messages, or of frames.
        name: The class' name.
        module: Decides between several.
    """
    key = (base, name, module)
    if key not in _found:
        classes = (base, *theirs.subclasses_of(base))
        same = [cls for cls in classes if cls.__name__ == name]
        if not same:
            return None
        _found[key] = max(reversed(same), key=lambda cls: _fits(cls, module))
    return _found[key]


def _fits(cls: type, module: str | None) -> bool:
    """Whether a class is of a module; of Pipecat itself where none is named."""
    return cls.__module__ == module or (module is None and cls.__module__.startswith(_NAMED_HERE))
