"""Lines to a pipe or terminal from a thread of its own: a slow reader costs lines, never time."""

import asyncio
import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Final, TextIO, TypeAlias

Write: TypeAlias = Callable[[str], None]

_CAPACITY: Final = 20_000  # lines; some MB, and a second of very chatty workers
_ROOM_S: Final = 0.02
_BATCH: Final = 500  # lines a write, so that a stop is noticed soon


def stream_writer(stream: TextIO) -> Write:
    """A function that writes text to a stream at once.

    It goes round the stream's own buffer, whose lock a blocked thread would hold when the
    interpreter exits, and copes with a descriptor that another process made non-blocking.
    """
    try:
        fd = stream.fileno()
    except (OSError, ValueError):  # a test's stream in memory
        return _plain_writer(stream)
    stream.flush()

    def write(text: str) -> None:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                select.select([], [fd], [])

    return write


def _plain_writer(stream: TextIO) -> Write:
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write


class LinePrinter:
    """Prints lines in order, in a thread.

    Args:
        write: Where to.
        on_closed: Called (in the thread) once when nobody reads any more.
        says_dropped: Print how many lines were dropped, where that happened.
    """

    def __init__(
        self,
        write: Write,
        *,
        on_closed: Callable[[], None] = lambda: None,
        says_dropped: bool = True,
    ) -> None:
        self.dropped = 0
        self._says_dropped = says_dropped
        self._write = write
        self._on_closed = on_closed
        self._lines: queue.Queue[str | None] = queue.Queue(_CAPACITY)
        self._told = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Nobody reads any more."""
        return self._is_closed

    def put(self, line: str) -> bool:
        """Print a line soon; False when there was no room and it was dropped (and counted)."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    async def put_all(self, line: str) -> None:
        """Print a line soon, waiting for room: for lines that must not be dropped."""
        while self._lines.full() and not self._is_closed:  # noqa: ASYNC110 - a thread makes room
            await asyncio.sleep(_ROOM_S)
        self.put(line)

    def close(self, timeout_s: float = 5.0) -> None:
        """Print what waits, as far as the reader takes it in time."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        is_open = True
        while is_open:
            lines, is_open = self._next_batch()
            try:
                self._print(lines)
            except OSError:
                self._is_closed = True
                self._on_closed()
                return

    def _next_batch(self) -> tuple[list[str], bool]:
        lines: list[str] = []
        line = self._lines.get()
        while line is not None:
            lines.append(line)
            if len(lines) >= _BATCH or self._lines.empty():
                return lines, True
            line = self._lines.get()
        return lines, False

    def _print(self, lines: list[str]) -> None:
        dropped = self.dropped - self._told
        if dropped and self._says_dropped:
            self._told += dropped
            lines = [*lines, f"… {dropped:,} lines dropped: the output is not read fast enough"]
        if lines:
            self._write("\n".join(lines) + "\n")
