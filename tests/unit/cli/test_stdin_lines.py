"""Lines of stdin: whole, however they come, until its end."""

import asyncio
import os
import threading

import pytest

from pbus_cli.tools.stdin_lines import MAX_LINE, stdin_lines
from support.waiting import run


def lines_of(data: bytes) -> list[str]:
    """The lines that are read while a thread writes them to a pipe."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    async def main():
        return [line async for line in stdin_lines(reading)]

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return run(main())
    finally:
        thread.join()
        os.close(reading)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\nno end", ["one", "", "no end"]),
        ("Grüße \u2028 here\n".encode() + b"\xff\n", ["Grüße \u2028 here", "\ufffd"]),
        (b"x" * 200_000 + b"\ny\n", ["x" * 200_000, "y"]),
    ],
)
def test_lines_are_whole(data: bytes, lines: list[str]):
    """Over several reads; what is no UTF-8 is replaced; only line feeds end a line."""
    assert lines == lines_of(data)


def test_a_line_without_end_is_cut():
    """Memory is bounded; the reader goes on after it."""
    found = lines_of(b"z" * (MAX_LINE + 300_000) + b"\nnext\n")

    assert MAX_LINE < len(found[0]) <= MAX_LINE + 64 * 1024
    assert MAX_LINE + 300_000 == sum(map(len, found[:-1]))
    assert "next" == found[-1]


def test_a_descriptor_that_is_none_is_at_its_end():
    """As a program has it whose stdin was closed."""
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)

    async def main():
        return [line async for line in stdin_lines(reading)]

    assert [] == run(main())


def test_it_can_be_left_while_nothing_comes():
    """The thread that waits for input keeps nothing from ending."""
    reading, writing = os.pipe()

    async def main():
        lines = stdin_lines(reading)
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()

    run(main())
    os.close(writing)
    threads = [one for one in threading.enumerate() if one.name == "pbus stdin"]
    assert all(one.daemon for one in threads)
    for one in threads:
        one.join()
    os.close(reading)
