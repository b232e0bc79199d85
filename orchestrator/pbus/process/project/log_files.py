"""One log file a worker, rotated by size."""

import contextlib
import io
import itertools
import logging
import os
import time as clock
from pathlib import Path
from typing import Self

import msgspec

from pbus.process.system import regular_files
from pbus.process.system.output import CUT_MARK, MAX_LINE_BYTES

MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 3

_CHECK_S = 0.001  # a check at every line would cost half of its write

logger = logging.getLogger(__name__)


class LogLine(msgspec.Struct, frozen=True):
    """A line of a worker's log.

    Attributes:
        time: Unix seconds, to the millisecond.
        stream: "out", "err", or "pbus" for lines of the supervisor.
    """

    worker: str
    time: float
    stream: str
    text: str


class LogFile:
    """Writes a worker's log; a full disk costs lines, never the supervisor.

    The logging handler that rotates likewise took 32 microseconds a line against 5 here, in the
    one loop that the output of all workers goes through.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: io.FileIO | None = None
        self._size = 0
        self._checked_at = 0.0
        self._has_warned = False

    def write(self, time: float, stream: str, text: str) -> None:
        """Append a worker's line; a line break within it makes another line.

        Args:
            time: Unix seconds.
            stream: One word.
            text: Without the last line break.
        """
        prefix = f"{stamp(time)} {stream} "
        lines = (f"{prefix}{_cut(line.removesuffix(chr(13)))}\n" for line in text.split("\n"))
        try:
            self._check_path()
            self._append("".join(lines).encode(errors="backslashreplace"))
            self._has_warned = False
        except OSError as error:
            self.close()
            if not self._has_warned:
                self._has_warned = True
                logger.error("cannot write %s: %s", self._path, error.strerror)  # noqa: TRY400 - the trace says nothing

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_path(self) -> None:
        """Close a file that was removed or moved away, so that a new one is made."""
        now = clock.monotonic()
        if self._file is None or now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        try:
            is_there = os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            is_there = False
        if not is_there:
            self.close()

    def _append(self, data: bytes) -> None:
        file = self._file or self._open()
        if self._size and self._size + len(data) > self._max_bytes:
            file = self._rotate()
        written = file.write(data) or 0
        self._size += written
        if written < len(data):  # a full disk; the next line is not to continue this one
            self.close()

    def _open(self) -> io.FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = io.FileIO(self._path, "ab+", opener=regular_files.opener)
        self._size = self._file.seek(0, io.SEEK_END)
        if self._size and os.pread(self._file.fileno(), 1, self._size - 1) != b"\n":
            self._size += (
                self._file.write(b"\n") or 0
            )  # its writer was killed, or the disk was full
        return self._file

    def _rotate(self) -> io.FileIO:
        self.close()
        paths = generations(self._path)
        for source, target in reversed(list(itertools.pairwise(paths))):
            with contextlib.suppress(FileNotFoundError):
                source.replace(target)
        return self._open()


def stamp(time: float) -> str:
    """Return Unix seconds as a time in UTC, to the millisecond."""
    seconds, milliseconds = divmod(round(time * 1000), 1000)
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', clock.gmtime(seconds))}.{milliseconds:03d}Z"


def _cut(text: str) -> str:
    if len(text) <= MAX_LINE_BYTES // 4:  # no character takes more than four bytes
        return text
    data = text.removesuffix(CUT_MARK).encode(errors="backslashreplace")
    if len(data) <= MAX_LINE_BYTES:
        return text
    return data[:MAX_LINE_BYTES].decode(errors="ignore") + CUT_MARK


def generations(path: Path) -> list[Path]:
    """Return the paths of a log's files, newest first."""
    return [path, *(path.with_name(f"{path.name}.{age}") for age in range(1, MAX_FILES))]
