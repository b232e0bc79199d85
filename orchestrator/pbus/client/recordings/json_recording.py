"""Recordings as JSON lines: the head, one message a line, the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from pbus.client.recordings.recording import RecordedMessage, RecordingEnd, RecordingHead
from pbus.structs import DECODE_ERRORS

_MAX_LINE: Final = 256 * 1024 * 1024


class _HeadLine(msgspec.Struct, frozen=True):
    recording: RecordingHead


class _EndLine(msgspec.Struct, frozen=True):
    end: RecordingEnd


_encode: Final = msgspec.json.Encoder().encode


class JsonRecordingWriter:
    """Writes a recording as JSON lines.

    Args:
        path: Of the file, which is replaced.
        head: The beginning.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, head: RecordingHead) -> None:
        self._file: BinaryIO = path.open("wb")
        self._write(_HeadLine(head))
        self.flush()

    def add(self, message: RecordedMessage) -> None:
        """Write a message; see RecordingWriter."""
        self._write(message)

    def flush(self) -> None:
        """Have it survive this process; see RecordingWriter."""
        self._file.flush()

    def end(self, end: RecordingEnd) -> None:
        """Write the end; see RecordingWriter."""
        self._write(_EndLine(end))
        self._file.flush()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def _write(self, value: Any) -> None:
        self._file.write(_encode(value) + b"\n")


def read_json_recording(
    path: Path,
) -> Iterator[RecordingHead | RecordedMessage | RecordingEnd]:
    """Yield what a file of JSON lines has, in order.

    Raises:
        OSError: The file cannot be read.
        ValueError: A line is no part of a recording.
    """
    with path.open("rb") as file:
        for number in range(1, 1 << 53):
            line = file.readline(_MAX_LINE)
            if not line:
                return
            try:
                yield _decoded(line, is_first=number == 1)
            except DECODE_ERRORS as error:
                raise ValueError(f"line {number} is no part of a recording ({error})") from error


def _decoded(line: bytes, *, is_first: bool) -> RecordingHead | RecordedMessage | RecordingEnd:
    if is_first:
        return msgspec.json.decode(line, type=_HeadLine).recording
    if line.startswith(b'{"end":'):
        return msgspec.json.decode(line, type=_EndLine).end
    return msgspec.json.decode(line, type=RecordedMessage)
