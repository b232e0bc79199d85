"""A child's stdout and stderr as lines: bounded in memory whatever the child writes."""

import re
from collections.abc import Iterator

MAX_LINE_BYTES = 64 * 1024
CUT_MARK = " … [line cut by pbus at 64 KiB]"
_ENDS = re.compile(rb"\r\n|\r|\n")


class LineSplitter:
    """Turns chunks of bytes into lines of text; a line that does not end is cut, not kept.

    A carriage return ends a line, too, so that each step of a progress bar is seen.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False  # the head of a long line was given out; its tail is dropped
        self._has_returned = False  # the chunk before ended with a return, which ended a line
        self._is_progress = False  # the line before was ended by a return
        self._shown = b""  # what pause() gave out of the line that goes on

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that this chunk completes."""
        if self._has_returned:
            chunk = chunk.removeprefix(b"\n")
            self._has_returned = False
        if self._is_progress or b"\r" in chunk:
            yield from self._feed_steps(chunk)
            return
        *complete, rest = chunk.split(b"\n")  # a third of the time
        for piece in complete:
            line = self._take(piece)
            if line is not None:
                yield line
        yield from self._keep(rest)

    def _feed_steps(self, chunk: bytes) -> Iterator[str]:
        start = 0
        for end in _ENDS.finditer(chunk):
            is_return = end[0] == b"\r"
            line = self._take(chunk[start : end.start()])
            start = end.end()
            is_empty = line is not None and not line.strip()
            self._has_returned = is_return and not is_empty and start == len(chunk)
            self._is_progress = is_return
            if line is not None and not (is_empty and is_return):
                yield line
        yield from self._keep(chunk[start:])

    @property
    def has_progress(self) -> bool:
        """Whether a step of a progress bar waits for the return that begins the next."""
        return self._is_progress and bool(self._rest) and self._rest != self._shown

    def pause(self) -> Iterator[str]:
        """The step of a progress bar that waits, when nothing came for a while."""
        if self.has_progress:
            self._shown = bytes(self._rest)
            yield _text(self._shown)

    def flush(self) -> Iterator[str]:
        """The last line, where the output ended without a newline."""
        if self._rest:
            line = self._take(b"")
            if line is not None:
                yield line

    def _take(self, piece: bytes) -> str | None:
        """End the current line with these bytes."""
        shown, self._shown = self._shown, b""
        if self._skipping:
            self._skipping = False
            return None
        line = bytes(self._rest) + piece if self._rest else piece
        self._rest.clear()
        if shown and line == shown:
            return None
        if len(line) > self._limit:
            return _text(line[: self._limit]) + CUT_MARK
        return _text(line)

    def _keep(self, piece: bytes) -> Iterator[str]:
        """Hold the beginning of a line, up to the limit."""
        if self._skipping or not piece:
            return
        self._rest += piece
        if len(self._rest) > self._limit:
            yield _text(bytes(self._rest[: self._limit])) + CUT_MARK
            self._rest.clear()
            self._skipping = True


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
