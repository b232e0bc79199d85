"""Lines to a pipe or terminal from a thread of its own: a slow reader costs lines, never time."""

import asyncio
import contextlib
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TextIO, TypeAlias

from pbus.concurrency.waiting import first_of
from pbus_cli.terminal.clean import clean
from pbus_cli.terminal.console import OutputError

Write: TypeAlias = Callable[[str], None]

_CAPACITY: Final = 20_000  # lines; a second of very chatty workers
_CAPACITY_CHARS: Final = 8 * 1024 * 1024  # in all; a single line of any length always has room
_ROOM_S: Final = 0.02
_BATCH: Final = 500  # lines a write, so that a stop is noticed soon
_BATCH_CHARS: Final = 256 * 1024  # likewise


def stream_writer(
    stream: TextIO, errors: str = "backslashreplace", *, is_clean: bool = False
) -> Write:
    """A function that writes text to a stream at once.

    It goes round the stream's own buffer, whose lock a blocked thread would hold when the
    interpreter exits, and copes with a descriptor that another process made non-blocking.

    Args:
        stream: Where to.
        errors: What becomes of characters that its encoding lacks, as in str.encode().
        is_clean: What is written was made by us, down to each control character.
    """
    try:
        fd = stream.fileno()
    except (OSError, ValueError):  # a test's stream in memory
        return _plain_writer(stream, is_clean=is_clean)
    stream.flush()
    encoding = stream.encoding

    def write(text: str) -> None:
        data = memoryview((text if is_clean else clean(text)).encode(encoding, errors))
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                select.select([], [fd], [])

    return write


def _plain_writer(stream: TextIO, *, is_clean: bool) -> Write:
    def write(text: str) -> None:
        stream.write(text if is_clean else clean(text))
        stream.flush()

    return write


class LinePrinter:
    """Prints lines in order, in a thread.

    Args:
        write: Where to.
        on_closed: Called (in the thread) once when nothing is printed any more.
        on_trouble: Called (in the thread) once when the output cannot be written though there is
            a reader; then later lines are tried. Without it the printer closes.
        says_dropped: Print how many lines were dropped, where that happened.

    Attributes:
        dropped: Lines that were not printed.
        error: Why not, where the output could not be written.
    """

    def __init__(
        self,
        write: Write,
        *,
        on_closed: Callable[[], None] | None = None,
        on_trouble: Callable[[OutputError], None] | None = None,
        says_dropped: bool = True,
    ) -> None:
        self.dropped = 0
        self.error: OutputError | None = None
        self._says_dropped = says_dropped
        self._write = write
        self._on_trouble = on_trouble
        self._lines: queue.Queue[str | None] = queue.Queue(_CAPACITY)
        self._chars = 0  # that wait
        self._lock = threading.Lock()
        self._told = 0
        self._is_torn = False  # a write failed, perhaps within a line
        self._closed: Future[None] = Future()
        if on_closed is not None:
            self.when_closed(on_closed)
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Nothing is printed any more."""
        return self._closed.done()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call this once when nothing is printed any more, in any thread; now where that is so."""
        self._closed.add_done_callback(lambda _: callback())

    @property
    def _is_full(self) -> bool:
        return self._lines.full() or self._chars >= _CAPACITY_CHARS

    def put(self, line: str) -> bool:
        """Print a line soon; False when there was no room and it was dropped (and counted)."""
        with self._lock:
            has_room = not self._is_full
            if has_room:
                self._lines.put_nowait(line)
                self._chars += len(line)
            else:
                self.dropped += 1
        return has_room

    async def put_all(self, line: str) -> None:
        """Print a line soon, waiting for room: for lines that must not be dropped."""
        while self._is_full and not self.is_closed:  # noqa: ASYNC110 - a thread makes room
            await asyncio.sleep(_ROOM_S)
        self.put(line)

    def close(self, timeout_s: float = 5.0) -> None:
        """Print what waits, as far as the reader takes it in time."""
        deadline = time.monotonic() + timeout_s
        if not self.is_closed:
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        stay_in_background()
        is_open = True
        while is_open:
            lines, is_open = self._next_batch()
            try:
                self._print(lines)
            except (BrokenPipeError, ConnectionResetError):
                break
            except OSError as error:
                if not self._goes_on(error, len(lines)):
                    break
        else:
            return
        self._closed.set_result(None)

    def _goes_on(self, error: OSError, count: int) -> bool:
        """Note an error of the output. Returns whether later lines are to be tried."""
        is_first = self.error is None
        self.error = OutputError(error.errno, error.strerror)
        self._is_torn = True
        with self._lock:
            self.dropped += count
        if self._on_trouble is not None and is_first:
            self._on_trouble(self.error)
        return self._on_trouble is not None

    def _next_batch(self) -> tuple[list[str], bool]:
        lines: list[str] = []
        chars = 0
        line = self._lines.get()
        while line is not None:
            lines.append(line)
            chars += len(line)
            if len(lines) >= _BATCH or chars >= _BATCH_CHARS or self._lines.empty():
                break
            line = self._lines.get()
        with self._lock:
            self._chars -= chars
        return lines, line is not None

    def _print(self, lines: list[str]) -> None:
        dropped = self.dropped - self._told
        if dropped and self._says_dropped:
            why = (
                "the output is not read fast enough" if self.error is None else self.error.strerror
            )
            lines = [*lines, f"… {dropped:,} lines dropped: {why}"]
        if lines:
            self._write("\n" * self._is_torn + "\n".join(lines) + "\n")
            self._is_torn = False
            self._told += dropped


async def feed(printer: LinePrinter, printing: Coroutine[Any, Any, None]) -> None:
    """Run what prints until it is done or nothing is printed any more, then close the printer.

    Raises:
        OutputError: The output could not be written.
    """
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def note_closed() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(closed.set)

    printer.when_closed(note_closed)
    try:
        done, _ = await first_of(printing, closed.wait())
    finally:
        printer.close()
    if not done.cancelled():
        done.result()
    if printer.error is not None:
        raise printer.error


def stay_in_background() -> None:
    """Have no write of this thread to a terminal stop the process when it is in the background."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})


def print_within(
    stream: TextIO, text: str, timeout_s: float = 2.0, *, is_clean: bool = False
) -> None:
    """Print to a terminal that may be blocked; what it does not take in time is dropped."""
    printer = LinePrinter(stream_writer(stream, is_clean=is_clean))
    printer.put(text)
    printer.close(timeout_s)
