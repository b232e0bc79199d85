"""A child's stdout and stderr as lines, in bounded memory."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import cast

from pbus.process.supervisor_events import Stream

MAX_LINE_BYTES = 64 * 1024
CUT_MARK = " … [line cut by pbus at 64 KiB]"
_ENDS = re.compile(rb"\r\n|\r|\n")
# A pipe's buffer may hold 32,768 lines of one character: all other tasks would wait for them.
_LINES_AT_ONCE = 200
_PAUSE_S = 0.5  # until a step of a progress bar is shown that no return has ended yet

OnLine = Callable[[Stream, str], None]


class LineSplitter:
    """Turns chunks of bytes into lines of text; a line that does not end is cut, not kept.

    A carriage return ends a line, too, so that each step of a progress bar is seen.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False  # the head of a long line was returned; its tail is dropped
        self._has_returned = False  # the chunk before ended with a return, which ended a line
        self._is_progress = False  # the line before was ended by a return
        self._shown = b""  # the part of the current line that pause() returned

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Return the lines that this chunk completes."""
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
        """Return the waiting step of a progress bar, when nothing came for a while."""
        if self.has_progress:
            self._shown = bytes(self._rest)
            yield _text(self._shown)

    def flush(self) -> Iterator[str]:
        """Return the last line, where the output ended without a newline."""
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


class OutputPipe(asyncio.Protocol):
    """Reads one pipe of a child without pause, so that the child does not wait for readers."""

    def __init__(self, stream: Stream, on_line: OnLine) -> None:
        self._stream = stream
        self._on_line = on_line
        self._transport: asyncio.ReadTransport | None = None
        self._splitter = LineSplitter()
        self._waiting: Iterator[str] | None = None  # lines of one chunk
        self._pause: asyncio.TimerHandle | None = None
        self.drained = asyncio.Event()

    def close(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Split a chunk."""
        self._waiting = self._splitter.feed(data)
        self._pass_on()
        if self._splitter.has_progress and self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(_PAUSE_S, self._show_progress)

    def _show_progress(self) -> None:
        self._pause = None
        for line in self._splitter.pause() if self._waiting is None else ():
            self._on_line(self._stream, line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Pass on the rest."""
        if self._pause is not None:
            self._pause.cancel()
        for line in self._waiting or ():
            self._on_line(self._stream, line)
        self._waiting = None
        for line in self._splitter.flush():
            self._on_line(self._stream, line)
        self.drained.set()

    def _pass_on(self) -> None:
        """Pass on some lines; the rest of the chunk later, before anything else is read."""
        if self._waiting is None or self._transport is None:
            return
        for count, line in enumerate(self._waiting, 1):
            self._on_line(self._stream, line)
            if count == _LINES_AT_ONCE:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._waiting = None
        self._transport.resume_reading()


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
