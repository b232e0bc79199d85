"""The lines between a worker and its program: JSON objects, each with a `kind`."""

from collections.abc import Iterator
from typing import Any

import msgspec

from pbus.codec import decode_header, encode_message
from pbus.errors import ProgramLineError
from pbus.messages import BusMessage, BusOpaqueMessage
from pbus.structs import DECODE_ERRORS, is_packed
from pbus.trace_context import is_traceparent, traceparent_after

SHOWN_CHARACTERS = 200
_HEADER = ("type", "source", "target", "id", "time", "key", "traceparent")
_NEEDED = {
    "ready": (),
    "done": ("id",),
    "failed": ("id",),
    "message": ("type",),
    "response": ("id",),
    "error": ("id",),
    "update": ("id",),
    "stream": ("id",),
    "job": ("id", "target"),
    "cancel": ("id",),
    "activate": ("target",),
    "deactivate": ("target",),
    "end": (),
}
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class ProgramLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line that a program prints.

    Attributes:
        kind: What it is; "message" and "ready" may be left out.
        id: Of a job, or of a message that it has received.
        type: Of a message.
        target: A worker; None for everyone.
        name: Of a job.
        key: Of a message or a job for one of several replicas.
        traceparent: Of the trace that a message or a job belongs to, as a message or job came with.
        data: An object: the fields of a message, the payload or the response of a job.
        error: For people.
        timeout: Of a job, in seconds; None for none.
        urgent: Whether the message overtakes others, where only its receivers know the type.
        ready: The program is ready, in a line without a kind.
        done: It tells of each message, with `done` or `failed`, when it has handled it.
    """

    kind: str = ""
    id: str | int = ""
    type: str = ""
    target: str | None = None
    name: str | None = None
    key: str | None = None
    traceparent: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")
    error: str = ""
    timeout: float | None = 60.0
    urgent: bool = False
    ready: bool = False
    done: bool = False

    def fields(self) -> dict[str, Any]:
        """The data, decoded."""
        return msgspec.json.decode(self.data, type=dict[str, Any])


_decode = msgspec.json.Decoder(ProgramLine).decode


def parse_line(line: bytes) -> ProgramLine:
    """Read a line of a program.

    Raises:
        ProgramLineError: It is none that pbus knows.
    """
    try:
        found = _decode(line)
        _split(found.data)
        _check_trace(found)
    except DECODE_ERRORS as error:
        raise ProgramLineError(shown(line), str(error)) from error
    kind = found.kind or ("ready" if found.ready else "message")
    if kind not in _NEEDED:
        raise ProgramLineError(shown(line), f"expected a kind of {', '.join(_NEEDED)}")
    missing = [name for name in _NEEDED[kind] if getattr(found, name) in ("", None)]
    if missing:
        what = kind if found.kind else "line without a kind"
        raise ProgramLineError(shown(line), f"a {what} needs {' and '.join(missing)}")
    return msgspec.structs.replace(found, kind=kind)


def _check_trace(line: ProgramLine) -> None:
    if line.traceparent is not None and not is_traceparent(line.traceparent):
        raise ValueError("its traceparent is none of W3C Trace Context")


def shown(line: bytes) -> str:
    """A line for the log, on one line and of bounded length."""
    text = line[: 4 * SHOWN_CHARACTERS].decode(errors="replace")
    rest = f" … ({len(line):,} bytes)" if len(text) > SHOWN_CHARACTERS else ""
    return f"{text[:SHOWN_CHARACTERS]!r}{rest}"


def message_line(message: BusMessage) -> bytes:
    """A message as a program reads it: its header, and its own fields as `data`."""
    body = encode_message(message, limit=1 << 62)
    header = decode_header(body)
    if isinstance(message, BusOpaqueMessage) and not is_packed(message.data):
        data = message.data
    else:
        own = {name: raw for name, raw in _split(body).items() if name not in _HEADER}
        data = _encode(own)
    head = {name: getattr(header, name) for name in _HEADER if name != "key" or header.key}
    head["traceparent"] = traceparent_after(message)
    return event_line("message", **head, data=msgspec.Raw(data))


def event_line(kind: str, **fields: Any) -> bytes:
    """A line of a kind."""
    return _encode({"kind": kind, **fields}) + b"\n"


class ByteLines:
    """Turns chunks of bytes into lines of a bounded length.

    Args:
        limit: Bytes of a line.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipped = 0  # bytes of a line that is too long

    def feed(self, chunk: bytes) -> Iterator[bytes | int]:
        """The lines that a chunk completes; for one that was too long its bytes, as a number."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            yield from self._end(piece)
        if self._skipped or len(self._rest) + len(rest) > self._limit:
            self._skipped += len(self._rest) + len(rest)
            self._rest.clear()
        else:
            self._rest += rest

    def flush(self) -> Iterator[bytes | int]:
        """The last line, where the output ended without a newline."""
        if self._rest or self._skipped:
            yield from self._end(b"")

    def _end(self, piece: bytes) -> Iterator[bytes | int]:
        size = self._skipped + len(self._rest) + len(piece)
        line = bytes(self._rest) + piece if self._rest else piece
        is_short = not self._skipped and size <= self._limit
        self._rest.clear()
        self._skipped = 0
        if not is_short:
            yield size
        elif line.strip():
            yield line
