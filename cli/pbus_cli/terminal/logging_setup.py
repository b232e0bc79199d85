"""What the library logs, and where a command lets it be seen."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pbus_cli.terminal.clean import clean


def show_on_stderr() -> None:
    """Warnings of the library are remarks of the command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter("warning: %(message)s"))
    _use([handler], logging.WARNING)


def show_everything() -> None:
    """What workers of this process log goes to stderr, as it does in processes of their own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter("%(levelname)s %(name)s: %(message)s"))
    level = logging.getLevelName(os.environ.get("PBUS_LOG_LEVEL", "INFO").upper())
    _use([handler], level if isinstance(level, int) else logging.INFO)


def hide() -> None:
    """Nothing may be written into a full-screen display."""
    _use([logging.NullHandler()], logging.CRITICAL)


def write_down(path: Path, tell: Callable[[str], None], *, except_thread: str) -> None:
    """Everything goes into the supervisor's log, and warnings to the display as well.

    Args:
        path: The log.
        tell: Shows a warning; may be called from any thread.
        except_thread: Whose warnings are not told: the display's own connection only repeats
            what the supervisor notices.
    """
    logging.raiseExceptions = False  # a full disk: complaints about complaints tear the display
    from pbus.process.project.supervisor_log import OwnLog  # noqa: PLC0415 - other verbs do without

    _use([OwnLog(path), _Telling(tell, except_thread)], logging.INFO)


def _use(handlers: list[logging.Handler], level: int) -> None:
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


class _CleanFormatter(logging.Formatter):
    """Shows control characters that strangers' names and errors may have."""

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
