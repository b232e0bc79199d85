"""Destinations of the library's log: stderr, the supervisor's log, a display."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pbus_cli.terminal.clean import clean


def show_on_stderr() -> None:
    """Print the library's warnings as remarks of the command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter("warning: %(message)s"))
    _use([handler], logging.WARNING)


def show_everything() -> None:
    """Send the log of workers in this process to stderr, as in processes of their own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter("%(levelname)s %(name)s: %(message)s"))
    level = logging.getLevelName(os.environ.get("PBUS_LOG_LEVEL", "INFO").upper())
    _use([handler], level if isinstance(level, int) else logging.INFO)


def hide() -> None:
    """Drop the log: a full-screen display must not be written into."""
    _use([logging.NullHandler()], logging.CRITICAL)


def write_down(path: Path, tell: Callable[[str], None], *, except_thread: str) -> None:
    """Write all into the supervisor's log, and show warnings on the display as well.

    Args:
        path: The log.
        tell: Shows a warning; may be called from any thread.
        except_thread: Whose warnings are not told: the display's own connection only repeats
            what the supervisor notices.
    """
    logging.raiseExceptions = False  # a full disk: complaints about complaints tear the display
    from pbus.process.project.supervisor_log import SupervisorLogHandler  # noqa: PLC0415 - other verbs do without

    _use([SupervisorLogHandler(path), _Telling(tell, except_thread)], logging.INFO)


def _use(handlers: list[logging.Handler], level: int) -> None:
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


class _CleanFormatter(logging.Formatter):
    """Escapes control characters in names and errors."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return clean(super().format(record))


class _Telling(logging.Handler):
    """Hands warnings to a display."""

    def __init__(self, tell: Callable[[str], None], except_thread: str) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._except_thread = except_thread

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one over."""
        if record.threadName != self._except_thread:
            self._tell(record.getMessage())
