"""What `pbus send` sends: JSON from the command line, checked against the catalogue."""

import difflib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import typer

from pbus.bus.base import WorkerBus
from pbus.codec import Header, decode_message, encode_raw
from pbus.errors import MessageDecodeError
from pbus.ids import new_id
from pbus.messages import BusMessage, Category

_HEADER_FIELDS = ("type", "source", "target", "id", "time")
_UNKNOWN = "its type is unknown here"


@dataclass(frozen=True)
class Letter:
    """A message without its addresses.

    Attributes:
        type: A catalogue type, or one that only the receiver knows.
        fields: The type's own fields.
    """

    type: str
    fields: dict[str, Any]

    @property
    def category(self) -> Category:
        """Of its type; data where the type is not known here."""
        known = BusMessage.catalogue.get(self.type)
        category: Category = "data" if known is None else known.category
        return category


def text_letter(text: str) -> Letter:
    """A text frame."""
    return Letter("BusFrameMessage", {"frame": {"type": "TextFrame", "text": text}})


def read_object(data: str | None) -> dict[str, Any]:
    """The JSON object of --data: given, in a file (@name) or on stdin (-).

    Raises:
        typer.BadParameter: It cannot be read or is no JSON object; says where.
    """
    if data is None:
        return {}
    text, where = _read_text(data)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        problem = f"{where} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise _bad_data(problem) from None
    except RecursionError:
        raise _bad_data(f"{where} is nested too deeply") from None
    if not isinstance(value, dict):
        raise _bad_data(f"{where} must be a JSON object, not {_kind(value)}")
    return value


def _read_text(data: str) -> tuple[str, str]:
    if not data.startswith("@") and data != "-":
        return data, "the value"
    try:
        if data == "-":
            return sys.stdin.read(), "stdin"
        return Path(data[1:]).read_text(encoding="utf-8"), data[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_data(f"cannot read {data!r}: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise _bad_data(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _bad_data(problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint="--data")


def check(letter: Letter) -> None:
    """See whether a catalogue type takes these fields; other types pass.

    Raises:
        typer.BadParameter: It does not; names the field.
    """
    cls = BusMessage.catalogue.get(letter.type)
    for name in letter.fields:
        if name in _HEADER_FIELDS:
            raise _bad_data(f"field {name!r} is set by pbus")
        if cls is not None:
            _check_known(name, letter.type, cls)
    if cls is not None:
        _build(letter, source="cli", target=None, limit=sys.maxsize)


def _check_known(name: str, type_name: str, cls: type[BusMessage]) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(cls)]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    own = ", ".join(sorted(set(known) - set(_HEADER_FIELDS))) or "none"
    advice = f"did you mean {near[0]!r}?" if near else f"it has: {own}"
    raise _bad_data(f"{type_name} has no field {name!r}; {advice}")


def _build(letter: Letter, source: str, target: str | None, limit: int) -> BusMessage | None:
    """The message, or None where only the receiver knows its type (or its frame's)."""
    header = Header(type=letter.type, source=source, target=target, id=new_id(), time=time.time())
    line = encode_raw(header, letter.fields, limit=limit)
    try:
        return decode_message(line)
    except MessageDecodeError as error:
        if _UNKNOWN in error.message:
            return None
        reason = str(error.__cause__) if error.__cause__ is not None else error.message
        raise _bad_data(f"{letter.type}: {reason}") from None


def is_known(letter: Letter) -> bool:
    """Whether this process can tell that a receiver will decode it."""
    return _build(letter, source="cli", target=None, limit=sys.maxsize) is not None


async def post(
    bus: WorkerBus, letter: Letter, *, source: str, target: str | None, is_urgent: bool
) -> None:
    """Send a message, in the system lane if urgent.

    Raises:
        MessageTooLargeError: The bus does not carry as much.
        BusFullError: The receiver makes no room.
    """
    message = _build(letter, source, target, bus.max_message_bytes)
    if message is None or is_urgent:
        await bus.send_raw(letter.type, target, letter.fields, source=source, urgent=is_urgent)
    else:
        await bus.send(message)
