"""A full-screen display drawn by a thread of its own; the terminal comes back when it ends."""

import contextlib
import io
import os
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from rich.console import Console, RenderableType
from rich.live import Live

from pbus_cli.console import has_colors
from pbus_cli.live.printer import stream_writer

FRAMES_PER_S: Final = 8
_PATIENCE_S: Final = 2.0  # for a blocked terminal, at the end

# Width and height -> what to show, or None where nothing changed.
Draw: TypeAlias = Callable[[int, int], RenderableType | None]


class Screen:
    """Draws again and again until closed.

    Args:
        draw: Called in the screen's thread; only looks at values that nobody changes.
        on_closed: Called (in the thread) when the terminal is gone.
    """

    def __init__(self, draw: Draw, *, on_closed: Callable[[], None] = lambda: None) -> None:
        self._draw = draw
        self._on_closed = on_closed
        self._done = threading.Event()
        self._keyboard = _Keyboard()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)

    def open(self) -> None:
        """Begin to draw; does nothing the second time."""
        if self._thread.ident is None and not self._done.is_set():
            self._keyboard.hush()
            self._thread.start()

    def close(self) -> None:
        """Give the terminal back; a terminal that is blocked is waited for only briefly."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE_S)
            self._keyboard.restore()

    def _run(self) -> None:
        console = terminal_console()
        try:
            with Live(
                console=console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as live:
                while not self._done.wait(1 / FRAMES_PER_S):
                    width, height = console.size
                    picture = self._draw(width, height)
                    if picture is not None:
                        live.update(picture, refresh=True)
        except OSError:
            self._on_closed()


def terminal_console() -> Console:
    """A rich console on stdout whose writes hold no lock of sys.stdout."""
    return Console(file=_Terminal(), no_color=not has_colors(sys.stdout), highlight=False)


class _Terminal(io.StringIO):
    """Gathers one frame and writes it in one go."""

    def __init__(self) -> None:
        super().__init__()
        self._send = stream_writer(sys.stdout)

    def isatty(self) -> bool:
        """Whether rich may move the cursor."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """The terminal."""
        return sys.stdout.fileno()

    def flush(self) -> None:
        """Write the frame."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        if text:
            self._send(text)


class _Keyboard:
    """Does not echo what is typed (^C, say) into the picture; only while we own the terminal."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def hush(self) -> None:
        """Stop echoing."""
        with contextlib.suppress(OSError, ValueError, termios.error):
            fd = sys.stdin.fileno()
            if os.tcgetpgrp(fd) == os.getpgrp():
                before = termios.tcgetattr(fd)
                silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
                termios.tcsetattr(fd, termios.TCSANOW, silent)
                self._before = before

    def restore(self) -> None:
        """Echo as before; a second call does nothing."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(OSError, ValueError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, before)
