"""The terminal of the display: taken and given back whole, and never trusted to be there."""

import asyncio
import io
import os
import pty
import select
import sys
import termios
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from textual import events

from pbus_cli.live.display.terminal_driver import (
    _PLAINER,
    Keyboard,
    TerminalDriver,
    driver_class,
    is_in_front,
)

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


class FakeApp:
    """Notes what the driver sends it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.came = asyncio.Event()

    async def _post_message(self, message: Any) -> bool:
        self.messages.append(message)
        self.came.set()
        return True

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what came is as it should be."""
        async with asyncio.timeout(20):
            while not holds():
                self.came.clear()
                await self.came.wait()

    @property
    def keys(self) -> list[str]:
        """The keys that came."""
        return [one.key for one in self.messages if isinstance(one, events.Key)]


class Screen:
    """A terminal that stands for stdin and stdout."""

    def __init__(self, encoding: str) -> None:
        self.master, self.slave = pty.openpty()
        self.stdin = os.fdopen(os.dup(self.slave), "r", encoding=encoding)
        self.stdout = os.fdopen(os.dup(self.slave), "w", encoding=encoding)

    def written(self) -> str:
        """What was written since the last call."""
        data = b""
        while select.select([self.master], [], [], 0)[0]:
            data += os.read(self.master, 65536)
        return data.decode(self.stdout.encoding)

    @property
    def flags(self) -> list[Any]:
        """The settings of the terminal."""
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        """Close both sides."""
        for stream in (self.stdin, self.stdout):
            stream.close()
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)


@pytest.fixture(params=["utf-8"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """A terminal; drive() puts it in place of this process' own."""
    made = Screen(request.param)
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: os.getpgrp())  # no process has it
    yield made
    made.close()


def drive(screen: Screen, look: Callable[[TerminalDriver, FakeApp], Any]) -> None:
    """Use a driver of a terminal within a loop."""

    async def main() -> None:
        app = FakeApp()
        driver = TerminalDriver(app)  # type: ignore[arg-type]
        driver.start_application_mode()
        try:
            await look(driver, app)
        finally:
            driver.close()

    with patch.object(sys, "stdin", screen.stdin), patch.object(sys, "stdout", screen.stdout):
        asyncio.run(main())


def test_taken_and_given_back(screen: Screen):
    """The screen, the cursor, the mouse, the echo: as before, however often it is given back."""
    before = screen.flags

    async def look(driver: TerminalDriver, _app: FakeApp) -> None:
        taken = screen.written()
        assert taken.startswith(ENTER)
        assert "\x1b[?1006h" in taken
        assert not screen.flags[3] & (termios.ECHO | termios.ICANON)
        assert screen.flags[3] & termios.ISIG  # Ctrl-C is a signal
        for _ in range(2):
            driver.stop_application_mode()
        given = screen.written()
        assert 1 == given.count(LEAVE)
        assert given.endswith("\x1b[?25h" + LEAVE)
        assert "\x1b[?1006l" in given
        assert before == screen.flags
        driver.write("unseen")
        driver.start_application_mode()
        driver.write("seen")
        assert screen.written().endswith("seen")

    drive(screen, look)
    assert before == screen.flags


def test_keys_and_mouse_arrive(screen: Screen):
    """Characters, arrows, a lone escape, clicks; those typed while the terminal was others' are theirs."""

    async def look(driver: TerminalDriver, app: FakeApp) -> None:
        os.write(screen.master, "qé\x1b[A\t\r".encode())
        await app.until(lambda: len(app.keys) == 5)
        assert ["q", "é", "up", "tab", "enter"] == app.keys
        os.write(screen.master, b"\x1b")
        await app.until(lambda: len(app.keys) == 6)
        assert "escape" == app.keys[-1]
        os.write(screen.master, b"\x1b[<0;3;4M")
        await app.until(lambda: isinstance(app.messages[-1], events.MouseDown))
        assert (2, 3) == (app.messages[-1].x, app.messages[-1].y)
        driver.disable_input()
        os.write(screen.master, b"z")
        assert screen.stdin.buffer.read1(1) == b"z"  # type: ignore[union-attr]

    drive(screen, look)


def test_size_is_told_once(screen: Screen):
    """At the beginning, and when it has changed."""

    async def look(driver: TerminalDriver, app: FakeApp) -> None:
        def sizes() -> list[tuple[int, int]]:
            resizes = [one for one in app.messages if isinstance(one, events.Resize)]
            return [(one.size.width, one.size.height) for one in resizes]

        await app.until(lambda: len(sizes()) == 1)
        driver.note_size()
        termios.tcsetwinsize(screen.slave, (30, 100))
        driver.note_size()
        await app.until(lambda: len(sizes()) == 2)
        assert (100, 30) == sizes()[-1]

    drive(screen, look)


def test_only_drawing_goes_out(screen: Screen):
    """What would have the terminal itself do something (its title, its clipboard) is left out."""

    async def look(driver: TerminalDriver, _app: FakeApp) -> None:
        screen.written()
        driver.write("\x1b]22;default\x1b\\")
        driver.write("\x1b]52;c;eA==\x07")
        driver.write("\x1b[1mdrawn")
        assert "\x1b[1mdrawn" == screen.written()

    drive(screen, look)


@pytest.mark.parametrize("screen", ["latin-1", "ascii"], indirect=True)
def test_poor_encoding(screen: Screen):
    """Lines, arrows and bars have something that stands for them, of the same width."""

    async def look(driver: TerminalDriver, _app: FakeApp) -> None:
        screen.written()
        driver.write("".join(map(chr, _PLAINER)))
        drawn = screen.written()
        assert "".join(map(chr, _PLAINER.values())) == drawn
        assert drawn.isascii()
        driver.write("→ 日本 x")
        assert "> ?? x" == screen.written()

    drive(screen, look)


def test_terminal_that_is_gone(screen: Screen):
    """A window that was closed: nothing is raised, nothing spins, and closing still works."""

    async def look(driver: TerminalDriver, _app: FakeApp) -> None:
        reader = driver._reader
        os.close(screen.master)
        screen.master = -1
        for _ in range(3):
            driver.write("into the void")
        assert reader is not None
        reader._thread.join(20)
        assert not reader._thread.is_alive()

    drive(screen, look)


def test_reader_that_left_is_told_of_once(monkeypatch: pytest.MonkeyPatch):
    """A pipe whose reader has left ends what is shown."""
    reading, writing = os.pipe()
    os.close(reading)
    left: list[str] = []
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stdin", io.StringIO())

        async def main() -> None:
            made = driver_class(lambda: left.append("left"))(FakeApp())  # type: ignore[arg-type]
            made.start_application_mode()
            made.write("more")
            made.close()

        asyncio.run(main())
    assert ["left"] == left


def test_no_terminal_at_all():
    """Streams in memory: no keys, no size, no echo to restore, and no error."""
    memory = SimpleNamespace(stdin=io.StringIO(), stdout=io.StringIO())

    async def look(_driver: TerminalDriver, app: FakeApp) -> None:
        await app.until(lambda: bool(app.messages))
        assert (80, 24) == (app.messages[0].size.width, app.messages[0].size.height)

    drive(memory, look)  # type: ignore[arg-type]
    assert memory.stdout.getvalue().endswith(LEAVE)
    assert is_in_front()


def test_keyboard_of_others_is_left_alone(screen: Screen, monkeypatch: pytest.MonkeyPatch):
    """In the background nothing is set, and nothing restored."""
    monkeypatch.setattr(sys, "stdin", screen.stdin)
    monkeypatch.setattr(sys, "stdout", screen.stdout)
    before = screen.flags
    keyboard = Keyboard()
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: -1)
    keyboard.hush()
    assert before == screen.flags
    assert not is_in_front()
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: os.getpgrp())
    keyboard.hush()
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: -1)
    keyboard.restore()
    assert before != screen.flags
