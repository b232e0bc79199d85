"""One log file a worker, rotated by size: write it, read the newest lines, follow it."""

import asyncio
import contextlib
import io
import logging
import os
import re
import time as clock
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from pbus.process.system.output import CUT_MARK, MAX_LINE_BYTES

MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 3

_POLL_S = 0.2
_LOOK_S = 0.001  # a look at every line would cost as much as half of its write
_BLOCK = 1024 * 1024
_BLOCKS = 8 * _BLOCK  # of all files that are followed together
_LEAST_BLOCK = 64 * 1024

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\w+) (.*)", re.DOTALL)

logger = logging.getLogger(__name__)


class LogLine(msgspec.Struct, frozen=True):
    """A line of a worker's log.

    Attributes:
        time: Unix seconds, to the millisecond.
        stream: "out", "err", or "pbus" for what the supervisor noted.
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
        self._looked = 0.0
        self._complained = False

    def write(self, time: float, stream: str, text: str) -> None:
        """Append what a worker wrote; a line break within makes another line.

        Args:
            time: Unix seconds.
            stream: A word.
            text: Without the last line break.
        """
        prefix = f"{_stamp(time)} {stream} "
        lines = (f"{prefix}{_cut(line.removesuffix(chr(13)))}\n" for line in text.split("\n"))
        try:
            self._look()
            self._append("".join(lines).encode(errors="backslashreplace"))
        except OSError as error:
            self.close()
            if not self._complained:
                self._complained = True
                logger.error("cannot write %s: %s", self._path, error.strerror)  # noqa: TRY400 - once is enough, and the trace says nothing

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self) -> None:
        """Let go of a file that was removed or moved away: nobody would find what is written."""
        now = clock.monotonic()
        if self._file is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
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
        self._size += file.write(data) or 0

    def _open(self) -> io.FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = io.FileIO(self._path, "ab")
        self._size = self._file.tell()
        return self._file

    def _rotate(self) -> io.FileIO:
        self.close()
        *younger, _ = generations = _generations(self._path)
        for source, target in reversed(list(zip(younger, generations[1:], strict=True))):
            with contextlib.suppress(FileNotFoundError):
                source.replace(target)
        return self._open()


def parse_line(worker: str, line: bytes, last_time: float) -> LogLine:
    """Read a line of a log file; one that was damaged is shown as it is, at the time before."""
    text = line.decode(errors="replace")
    match = _LINE.fullmatch(text)
    if match is None:
        return LogLine(worker, last_time, "out", text)
    stamp, stream, rest = match.groups()
    try:
        return LogLine(worker, datetime.fromisoformat(stamp).timestamp(), stream, rest)
    except ValueError:
        return LogLine(worker, last_time, "out", text)


def _stamp(time: float) -> str:
    seconds, milliseconds = divmod(round(time * 1000), 1000)
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', clock.gmtime(seconds))}.{milliseconds:03d}Z"


def _cut(text: str) -> str:
    if len(text) <= MAX_LINE_BYTES // 4:  # no character takes more than four bytes
        return text
    data = text.removesuffix(CUT_MARK).encode(errors="backslashreplace")
    if len(data) <= MAX_LINE_BYTES:
        return text
    return data[:MAX_LINE_BYTES].decode(errors="ignore") + CUT_MARK


def read_lines(paths: Mapping[str, Path], last_n: int | None = None) -> list[LogLine]:
    """The newest lines of several workers together, in the order of their times.

    Args:
        paths: The log file of each worker; one that does not exist is empty.
        last_n: How many lines in all; None for all there are.
    """
    with contextlib.ExitStack() as stack:
        sources = [
            stack.enter_context(contextlib.closing(_Source(worker, path)))
            for worker, path in paths.items()
        ]
        return _newest(sources, last_n)


async def follow_lines(paths: Mapping[str, Path], *, last_n: int = 0) -> AsyncIterator[LogLine]:
    """Lines as they are written, for ever: across rotation, restarts, files yet to come.

    Args:
        paths: The log file of each worker.
        last_n: Begin with so many lines that are there already; nothing is missed or repeated
            between these and the new ones.
    """
    with contextlib.ExitStack() as stack:
        sources = [
            stack.enter_context(contextlib.closing(_Source(worker, path)))
            for worker, path in paths.items()
        ]
        for line in _newest(sources, last_n):
            yield line
        block = max(_LEAST_BLOCK, _BLOCKS // max(1, len(sources)))
        while True:
            fresh = [line for source in sources for line in source.read_fresh(block)]
            for line in sorted(fresh, key=_by_time):
                yield line
            await asyncio.sleep(0 if fresh else _POLL_S)


def _newest(sources: Sequence["_Source"], last_n: int | None) -> list[LogLine]:
    lines: list[LogLine] = []
    for source in sources:  # no more is held than what is asked for, and one file's
        lines += source.read_last(last_n)
        lines.sort(key=_by_time)
        if last_n is not None:
            del lines[: max(0, len(lines) - last_n)]
    return lines


def _by_time(line: LogLine) -> float:
    return line.time


class _Source:
    """One worker's log: its newest file, open, and how far it was read."""

    def __init__(self, worker: str, path: Path) -> None:
        self._worker = worker
        self._path = path
        self._file: io.FileIO | None = None
        self._rest = b""
        self._last_time = 0.0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def read_last(self, count: int | None) -> list[LogLine]:
        """The last lines of all files; from their end `read_fresh` goes on."""
        lines: list[bytes] = []
        seen: set[int] = set()
        for path in _generations(self._path):
            file = _open(path)
            if file is None:
                continue
            inode = os.fstat(file.fileno()).st_ino
            if inode in seen:  # rotated since we opened it under the younger name
                file.close()
                continue
            seen.add(inode)
            missing = None if count is None else count - len(lines)
            older, position = _last_lines(file, missing)
            lines[:0] = older
            if self._file is None:
                self._file = file
                file.seek(position)
            else:
                file.close()
            if count is not None and len(lines) >= count:
                break
        return self._parse(lines)

    def read_fresh(self, block: int = _BLOCK) -> list[LogLine]:
        """What was written since, up to a block; to be called again while there is something."""
        if self._file is None:
            self._file = self._next_file(None)
        if self._file is None:
            return []
        data = self._read_block(block)
        if not data and (successor := self._next_file(self._file)) is not None:
            data = self._read_block(block)  # written between our last look and the rotation
            if not data:
                data = b"\n" if self._rest else b""
                self._file.close()
                self._file = successor
                data += self._read_block(block)
            else:
                successor.close()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return self._parse(lines)

    def _read_block(self, size: int) -> bytes:
        assert self._file is not None  # noqa: S101 - callers looked
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # somebody emptied it
            self._rest = b""
        return self._file.read(size) or b""

    def _next_file(self, current: io.FileIO | None) -> io.FileIO | None:
        """The file that was begun after this one (the oldest, after None), if there is any."""
        inode = None if current is None else os.fstat(current.fileno()).st_ino
        next_path, next_inode = None, None
        for path in _generations(self._path):
            try:
                found = path.stat().st_ino
            except FileNotFoundError:
                continue
            if found == inode:
                break
            next_path, next_inode = path, found
        file = None if next_path is None else _open(next_path)
        if file is not None and os.fstat(file.fileno()).st_ino != next_inode:
            file.close()  # rotated under our eyes: look again later
            return None
        return file

    def _parse(self, lines: list[bytes]) -> list[LogLine]:
        parsed = []
        for line in lines:
            parsed.append(parse_line(self._worker, line, self._last_time))
            self._last_time = parsed[-1].time
        return parsed


def _generations(path: Path) -> list[Path]:
    """Where the files of a log are, youngest first."""
    return [path, *(path.with_name(f"{path.name}.{age}") for age in range(1, MAX_FILES))]


def _open(path: Path) -> io.FileIO | None:
    try:
        return io.FileIO(path, "rb")
    except (FileNotFoundError, IsADirectoryError):
        return None


def _last_lines(file: io.FileIO, count: int | None) -> tuple[list[bytes], int]:
    """The last complete lines of a file, and where they end."""
    start = file.seek(0, io.SEEK_END)
    data = b""
    while start > 0 and (count is None or data.count(b"\n") <= count):
        size = min(_BLOCK, start)
        start -= size
        file.seek(start)
        data = (file.read(size) or b"") + data
    end = data.rfind(b"\n") + 1
    lines = data[:end].split(b"\n")[:-1]
    return lines if count is None else lines[len(lines) - min(count, len(lines)) :], start + end
