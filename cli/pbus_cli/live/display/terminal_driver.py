"""The terminal of the display: used from a thread, given back to others, and never trusted to be there."""

import codecs
import contextlib
import logging
import os
import select
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any, Final

from textual import events
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.driver import Driver
from textual.geometry import Size

from pbus_cli.live.printer import stream_writer
from pbus_cli.terminal.console import is_unicode

logger = logging.getLogger(__name__)

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h"  # screen, cursor, no wrapping, pastes
_LEAVE: Final = "\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"
_MOUSE_ON: Final = "\x1b[?1000h\x1b[?1002h\x1b[?1006h"
_MOUSE_OFF: Final = "\x1b[?1006l\x1b[?1002l\x1b[?1000l"
_COMMAND: Final = "\x1b]"
_LOOK_S: Final = 0.1  # for a key: after a lone escape, and for the end
_READ: Final = 4096
_SIZE: Final = (80, 24)  # of a terminal that does not tell
# Where the encoding has nothing better; one cell each.
_PLAINER: Final = str.maketrans("─…→←↑↓•▸▾‖▁▂▃▄▅▆▇█▰▱", "-.><^v*>v|._-:=+*##-")


class TerminalDriver(Driver):
    """Draws on stdout and reads keys from stdin.

    Signals stay with the main thread: those of keys (Ctrl-C, Ctrl-Z) come from the terminal as for any
    program, and Ctrl-S holds only the display's own thread.

    Args:
        app: The application.
        on_closed: Called once when the terminal has no reader any more.
    """

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._write = stream_writer(sys.stdout, errors="replace", is_clean=True)
        self._is_plain = not is_unicode(sys.stdout)
        self._on_closed = on_closed
        self._keyboard = Keyboard()
        self._is_drawing = False
        self._is_gone = False
        self._reader: _KeyReader | None = None
        self._shown_size: tuple[int, int] | None = None

    @property
    def is_drawing(self) -> bool:
        """Whether the terminal is the display's now."""
        return self._is_drawing

    def write(self, data: str) -> None:
        """Draw; while the terminal is others', or gone, nothing is.

        Commands to the terminal itself (its pointer's shape, its clipboard) are left out.
        """
        if self._is_drawing and not self._is_gone and not data.startswith(_COMMAND):
            self._put(data.translate(_PLAINER) if self._is_plain else data)

    def start_application_mode(self) -> None:
        """Take the terminal."""
        self._keyboard.hush()
        self._is_drawing = True
        self.write(_ENTER + _MOUSE_ON * self._mouse)
        self._shown_size = None
        self.note_size()
        self._reader = _KeyReader(self.process_message, debug=self._debug)
        self._reader.start()

    def disable_input(self) -> None:
        """Read no more keys."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()

    def stop_application_mode(self) -> None:
        """Give the terminal back. Idempotent."""
        self.disable_input()
        if self._is_drawing:
            self.write(_MOUSE_OFF * self._mouse + _LEAVE)
            self._is_drawing = False
        self._keyboard.restore()

    def close(self) -> None:
        """Give the terminal back; called at the very end."""
        self.stop_application_mode()

    def note_size(self) -> None:
        """Tell the application of a new size of the terminal."""
        try:
            width, height = os.get_terminal_size(sys.stdout.fileno())
        except (OSError, ValueError):
            width, height = 0, 0
        size = (width or _SIZE[0], height or _SIZE[1])
        if size != self._shown_size:
            self._shown_size = size
            shown = Size(*size)
            self.send_message(events.Resize(shown, shown))

    def restore_keyboard(self) -> None:
        """Let the terminal echo again, though the display's thread may be stuck; from any thread."""
        self._keyboard.restore()

    def _put(self, data: str) -> None:
        try:
            self._write(data)
        except (BrokenPipeError, ConnectionResetError):
            self._is_gone = True
            self._on_closed()
        except OSError as error:
            self._is_gone = True
            logger.info("nothing is shown any more: %s", error)  # the terminal is gone


class Keyboard:
    """Gives each key at once and does not echo it; only while we own the terminal."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def hush(self) -> None:
        """Begin; signals of keys stay."""
        with contextlib.suppress(OSError, ValueError, termios.error):
            fd = sys.stdin.fileno()
            if self._before is None and os.tcgetpgrp(fd) == os.getpgrp():
                before = termios.tcgetattr(fd)
                silent = termios.tcgetattr(fd)
                silent[0] &= ~termios.ICRNL
                silent[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
                silent[6][termios.VMIN] = 1
                termios.tcsetattr(fd, termios.TCSANOW, silent)
                self._before = before

    def restore(self) -> None:
        """As before; a second call does nothing, nor does one in the background."""
        before, self._before = self._before, None
        if before is not None and is_in_front():
            with contextlib.suppress(OSError, ValueError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, before)


class _KeyReader:
    """Reads keys and the mouse in a thread, until stopped or the terminal is gone."""

    def __init__(self, take: Callable[[Any], None], *, debug: bool) -> None:
        self._take = take
        self._parser = XTermParser(debug)
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def start(self) -> None:
        """Begin, where stdin is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            if sys.stdin.isatty():
                self._thread.start()

    def stop(self) -> None:
        """End; a key that comes now is the next reader's."""
        self._is_stopped.set()
        if self._thread.is_alive():
            self._thread.join(2 * _LOOK_S)

    def _run(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        fd = sys.stdin.fileno()
        try:
            while not self._is_stopped.is_set():
                if select.select([fd], [], [], _LOOK_S)[0]:
                    data = os.read(fd, _READ)
                    if not data:
                        return
                    self._give(self._parser.feed(decode(data)))
                self._give(self._parser.tick())
        except (OSError, ValueError, RuntimeError) as error:  # it is gone, or the loop is
            logger.debug("no keys are read any more: %s", error)

    def _give(self, messages: Any) -> None:
        for message in messages:
            self._take(message)


def is_in_front() -> bool:
    """Whether the terminal is ours now; one that knows no foreground is."""
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True


def driver_class(on_closed: Callable[[], None]) -> type[TerminalDriver]:
    """The class of drivers with this callback: Textual makes the driver itself."""

    class _Driver(TerminalDriver):
        def __init__(self, app: App[Any], **options: Any) -> None:
            super().__init__(app, **options, on_closed=on_closed)

    return _Driver
