"""Printing beside the loop: in order, never blocking, and honest about what was dropped."""

import asyncio
import contextlib
import errno
import io
import os
import threading
from pathlib import Path
from typing import TextIO

import pytest

from pbus_cli.live.printer import LinePrinter, feed, stream_writer
from pbus_cli.terminal.console import OutputError


class Reader:
    """Takes what is written, and can be made to stand still."""

    def __init__(self) -> None:
        self.text = ""
        self.blocked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def write(self, text: str) -> None:
        self.blocked.set()
        assert self.go_on.wait(10)
        self.text += text


def test_lines_keep_their_order() -> None:
    """All of them, each with its end."""
    reader = Reader()
    printer = LinePrinter(reader.write)
    for number in range(2_000):
        assert printer.put(str(number))
    printer.close()

    assert [str(number) for number in range(2_000)] == reader.text.splitlines()


def test_blocked_reader_drops_lines() -> None:
    """A printing caller goes on at once; the reader learns how many it missed."""
    reader = Reader()
    reader.go_on.clear()
    printer = LinePrinter(reader.write)
    printer.put("first")
    assert reader.blocked.wait(10)
    kept = sum(printer.put("x") for _ in range(25_000))
    reader.go_on.set()
    printer.close()

    assert 25_000 == kept + printer.dropped
    assert printer.dropped > 0
    assert f"… {printer.dropped:,} lines dropped" in reader.text


def test_waiting_drops_nothing() -> None:
    """Lines of a file wait for the reader instead."""
    reader = Reader()
    printer = LinePrinter(reader.write)

    async def main() -> None:
        for number in range(30_000):
            await printer.put_all(str(number))

    asyncio.run(main())
    printer.close()

    assert (0, 30_000) == (printer.dropped, len(reader.text.splitlines()))


def test_closed_pipe_is_told() -> None:
    """Once; later callers are not bothered."""
    told = threading.Event()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        printer = LinePrinter(stream_writer(stream), on_closed=told.set)
        printer.put("anything")

        assert told.wait(10)
        assert printer.is_closed
        printer.put("more")
        printer.close()


def test_full_disk_is_tried_again() -> None:
    """An output that fails is told of once; when it works again, the gap is told of, too."""
    told: list[str] = []
    taken: list[str] = []
    has_failed = threading.Event()

    def write(text: str) -> None:
        if not has_failed.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        taken.append(text)

    def note(error: OutputError) -> None:
        told.append(error.strerror)
        has_failed.set()

    printer = LinePrinter(write, on_trouble=note)
    printer.put("lost")
    assert has_failed.wait(10)
    printer.put("kept")
    printer.close()

    assert ["No space left on device"] == told
    assert "\nkept\n… 1 lines dropped: No space left on device\n" == "".join(taken)


def test_waiting_lines_are_bounded() -> None:
    """Not only in their number: long lines that are not read fall, too."""
    reader = Reader()
    reader.go_on.clear()
    printer = LinePrinter(reader.write)
    printer.put("first")
    assert reader.blocked.wait(10)
    kept = sum(printer.put("x" * 60_000) for _ in range(1_000))
    reader.go_on.set()
    printer.close()

    assert 1_000 == kept + printer.dropped
    assert len(reader.text) < 10_000_000


@pytest.mark.parametrize(("path", "error"), [("/dev/full", OutputError), ("pipe", None)])
def test_output_ends_who_feeds_it(path: str, error: type[Exception] | None) -> None:
    """Without another line: a full disk as an error, a reader that left as the end."""
    reading, writing = os.pipe()
    os.close(reading)

    async def print_one(printer: LinePrinter) -> None:
        printer.put("anything")
        await asyncio.Event().wait()

    async def main(stream: TextIO) -> None:
        printer = LinePrinter(stream_writer(stream))
        await asyncio.wait_for(feed(printer, print_one(printer)), 20)

    outcome = pytest.raises(error) if error else contextlib.nullcontext()
    with os.fdopen(writing, "w") as pipe, Path("/dev/full").open("w") as full, outcome:
        asyncio.run(main(full if path == "/dev/full" else pipe))


def test_close_gives_up_in_time() -> None:
    """A reader that never reads does not hold the end up."""
    reader = Reader()
    reader.go_on.clear()
    printer = LinePrinter(reader.write)
    printer.put("stuck")
    assert reader.blocked.wait(10)
    printer.close(timeout_s=0.05)
    reader.go_on.set()


def test_nonblocking_pipe_is_filled() -> None:
    """Another process may have made the shared descriptor non-blocking: nothing is lost."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    chunks: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reading, 65_536):
            chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w") as stream:
        stream_writer(stream)("y" * 1_000_000)
    reader.join(10)
    os.close(reading)

    assert 1_000_000 == sum(map(len, chunks))


@pytest.mark.parametrize("text", ["plain", "größe → 漢字", "lone \ud800 surrogate"])
def test_any_text_is_written(text: str) -> None:
    """A stream in memory, and one whose encoding is narrow, take everything."""
    stream = io.StringIO()
    stream_writer(stream)(text)

    assert stream.getvalue() == text
