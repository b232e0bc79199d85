"""Reading and following the log files of workers."""

import asyncio
import contextlib
import errno
import heapq
import io
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pbus.process.project.log_files import LogLine, generations
from pbus.process.system import regular_files

_POLL_S = 0.2
_BLOCK = 1024 * 1024
_ALL_BLOCKS = 8 * _BLOCK  # of all files that are followed together
_MIN_BLOCK = 64 * 1024

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\w+) (.*)", re.DOTALL)


def read_lines(paths: Mapping[str, Path], last_n: int | None = None) -> list[LogLine]:
    """Return the newest lines of several workers in the order of their times.

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


def iter_lines(paths: Mapping[str, Path]) -> Iterator[LogLine]:
    """Yield all lines of several workers in the order of their times; few are held at once.

    Args:
        paths: The log file of each worker; one that does not exist is empty.

    Raises:
        OSError: A file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        sources = [
            stack.enter_context(contextlib.closing(_Source(worker, path)))
            for worker, path in paths.items()
        ]
        block = max(_MIN_BLOCK, _ALL_BLOCKS // max(1, len(sources)))
        yield from heapq.merge(*(source.read_all(block) for source in sources), key=_by_time)


async def follow_lines(
    paths: Mapping[str, Path], *, last_n: int | None = 0
) -> AsyncIterator[LogLine]:
    """Yield lines as they are written, without end: across rotation, restarts and new files.

    Args:
        paths: The log file of each worker.
        last_n: Start with so many existing lines (None: all); nothing is missed or repeated between these and
            the new ones.
    """
    with contextlib.ExitStack() as stack:
        sources = [
            stack.enter_context(contextlib.closing(_Source(worker, path)))
            for worker, path in paths.items()
        ]
        for line in _newest(sources, last_n):
            yield line
        block = max(_MIN_BLOCK, _ALL_BLOCKS // max(1, len(sources)))
        while True:
            fresh = [line for source in sources for line in source.read_fresh(block)]
            for line in sorted(fresh, key=_by_time):
                yield line
            await asyncio.sleep(0 if fresh else _POLL_S)


def _newest(sources: Sequence["_Source"], last_n: int | None) -> list[LogLine]:
    lines: list[LogLine] = []
    for source in sources:  # at most `last_n` lines and those of one file are held
        lines += source.read_last(last_n)
        lines.sort(key=_by_time)
        if last_n is not None:
            del lines[: max(0, len(lines) - last_n)]
    return lines


def _by_time(line: LogLine) -> float:
    return line.time


class _Source:
    """One worker's log: its newest file, open, and the position in it."""

    def __init__(self, worker: str, path: Path) -> None:
        self._worker = worker
        self._path = path
        self._file: io.FileIO | None = None
        self._rest = b""
        self._last_time = 0.0
        self._is_at_end = False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def read_last(self, count: int | None) -> list[LogLine]:
        """Return the last lines of all files; `read_fresh` continues at their end."""
        lines: list[bytes] = []
        seen: set[int] = set()
        for path in generations(self._path):
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

    def read_all(self, block: int) -> Iterator[LogLine]:
        """Yield the lines of all files that are there now, oldest first."""
        while not self._is_at_end:
            yield from self.read_fresh(block)

    def read_fresh(self, block: int = _BLOCK) -> list[LogLine]:
        """Return the lines written since, up to a block; to be called again until there is none."""
        if self._file is None:
            self._file = self._next_file(None)
        if self._file is None:
            self._is_at_end = True
            return []
        data = self._read_block(block)
        if not data and (successor := self._next_file(self._file)) is not None:
            data = self._read_block(block)  # written between the last read and the rotation
            if not data:
                data = b"\n" if self._rest else b""
                self._file.close()
                self._file = successor
                data += self._read_block(block)
            else:
                successor.close()
        self._is_at_end = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return self._parse(lines)

    def _read_block(self, size: int) -> bytes:
        assert self._file is not None  # noqa: S101 - callers checked
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # it was truncated
            self._rest = b""
        return self._file.read(size) or b""

    def _next_file(self, current: io.FileIO | None) -> io.FileIO | None:
        """Return the file that follows this one (after None: the oldest), if there is any."""
        inode = None if current is None else os.fstat(current.fileno()).st_ino
        next_path, next_inode = None, None
        for path in generations(self._path):
            try:
                found = path.stat().st_ino
            except FileNotFoundError:
                continue
            if found == inode:
                break
            next_path, next_inode = path, found
        file = None if next_path is None else _open(next_path)
        if file is not None and os.fstat(file.fileno()).st_ino != next_inode:
            file.close()  # rotated meanwhile: retry later
            return None
        return file

    def _parse(self, lines: list[bytes]) -> list[LogLine]:
        parsed = []
        for line in lines:
            parsed.append(parse_line(self._worker, line, self._last_time))
            self._last_time = parsed[-1].time
        return parsed


def parse_line(worker: str, line: bytes, last_time: float) -> LogLine:
    """Parse a line of a log file; a damaged one keeps its text, and the time of the one before."""
    text = line.decode(errors="replace")
    match = _LINE.fullmatch(text)
    if match is None:
        return LogLine(worker, last_time, "out", text)
    stamp, stream, rest = match.groups()
    try:
        return LogLine(worker, datetime.fromisoformat(stamp).timestamp(), stream, rest)
    except ValueError:
        return LogLine(worker, last_time, "out", text)


def _open(path: Path) -> io.FileIO | None:
    try:
        return io.FileIO(path, "rb", opener=regular_files.opener)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:  # none, or no file
            return None
        raise


def _last_lines(file: io.FileIO, count: int | None) -> tuple[list[bytes], int]:
    """Return the last complete lines of a file, and the position of their end."""
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
