"""A full-screen display drawn by a thread of its own; the terminal comes back when it ends."""

import contextlib
import io
import logging
import os
import sys
import termios
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment

from pbus_cli.live.printer import Write, stay_in_background, stream_writer
from pbus_cli.terminal.clean import clean
from pbus_cli.terminal.console import has_colors, is_unicode

FRAMES_PER_S: Final = 8
_PATIENCE_S: Final = 2.0  # for a blocked terminal, at the end
_LEAVE_S: Final = 1.0  # likewise, before the process is stopped
_PLAINER: Final = str.maketrans("─…→←•", "-.><*")  # where the encoding has nothing better

# Width and height -> what to show, or None where nothing changed.
Draw: TypeAlias = Callable[[int, int], RenderableType | None]

logger = logging.getLogger(__name__)


class Screen:
    """Draws again and again until closed, while this process is in the foreground.

    Args:
        draw: Called in the screen's thread; only reads values that no other thread changes. It is called
            for the whole picture after `on_entered`.
        on_closed: Called (in the thread) when the terminal has no reader any more.
        on_entered: Called (in the thread) when the screen is empty again.
    """

    def __init__(
        self,
        draw: Draw,
        *,
        on_closed: Callable[[], None] = lambda: None,
        on_entered: Callable[[], None] = lambda: None,
    ) -> None:
        self._draw = draw
        self._on_closed = on_closed
        self._on_entered = on_entered
        self._is_done = False
        self._is_away = False
        self._is_stale = False
        self._wake = threading.Event()
        self._left = threading.Event()
        self._keyboard = _Keyboard()
        self._live: Live | None = None
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)

    def open(self) -> None:
        """Begin to draw; does nothing the second time."""
        if self._thread.ident is None and not self._is_done:
            self._thread.start()

    def suspend(self) -> None:
        """Give the terminal back for a while; one that is blocked is waited for only briefly."""
        if self._thread.is_alive():
            self._left.clear()
            self._is_away = True
            self._wake.set()
            self._left.wait(_LEAVE_S)

    def resume(self) -> None:
        """Draw again, everything: others may have written to the terminal."""
        self._is_stale = True
        self._is_away = False
        self._wake.set()

    def close(self) -> None:
        """Give the terminal back; a terminal that is blocked is waited for only briefly."""
        self._is_done = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE_S)
            self._keyboard.restore()

    def _run(self) -> None:
        stay_in_background()
        console = terminal_console()
        try:
            while not self._is_done:
                self._show(console)
                self._wake.wait(1 / FRAMES_PER_S)
                self._wake.clear()
            self._leave()
        except (BrokenPipeError, ConnectionResetError):
            self._on_closed()
        except OSError as error:
            logger.info("nothing is shown any more: %s", error)  # the terminal is gone
        finally:
            self._left.set()

    def _show(self, console: Console) -> None:
        """Draw the next frame, if the terminal is ours."""
        if self._is_stale or self._is_away or not _is_in_front():
            self._is_stale = False
            self._leave()
            self._left.set()
        if self._is_away or not _is_in_front():
            return
        live = self._live or self._enter(console)
        try:
            picture = self._draw(*console.size)
            if picture is not None:
                live.update(picture, refresh=True)
        except OSError:
            raise
        except Exception:
            logger.exception("a frame cannot be drawn: a bug in pbus")

    def _enter(self, console: Console) -> Live:
        self._keyboard.hush()
        self._live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._on_entered()
        return self._live

    def _leave(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            self._keyboard.restore()


class CleanConsole(Console):
    """A rich console that writes no control character but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments, their texts cleaned."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield segment._replace(text=clean(segment.text))


def terminal_console(write: Write | None = None) -> Console:
    """A rich console for stdout whose writes hold no lock of sys.stdout.

    Args:
        write: Takes what would go to stdout.
    """
    terminal = _Terminal(write)
    return CleanConsole(file=terminal, no_color=not has_colors(sys.stdout), highlight=False)


def _is_in_front() -> bool:
    """Whether the terminal is ours now; one that knows no foreground is."""
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True


class _Terminal(io.StringIO):
    """Gathers one frame and writes it in one go."""

    def __init__(self, write: Write | None) -> None:
        super().__init__()
        self._write = write or stream_writer(sys.stdout, errors="replace", is_clean=True)
        self._is_plain = not is_unicode(sys.stdout)

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
            self._write(text.translate(_PLAINER) if self._is_plain else text)


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
        """Echo as before; a second call does nothing, nor does one in the background."""
        before, self._before = self._before, None
        if before is not None and _is_in_front():
            with contextlib.suppress(OSError, ValueError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, before)
