"""The newest output lines of a worker, and the one that most likely explains a failure."""

import collections
import re

from pbus.process.supervisor_events import Stream

_MAX_LINES = 20
_MAX_CHARACTERS = 4096  # of a line kept here; the log has all of it

# Log lines below WARNING, after any time stamp.
_INFORMATIONAL = re.compile(r"(?:[\W\d_]|\d+T\d+)*(?:DEBUG|INFO|NOTICE|TRACE)\b", re.IGNORECASE)


class RecentOutput:
    """Keeps the last lines over all processes of a worker."""

    def __init__(self) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_MAX_LINES)
        self._error: str | None = None  # of the current process
        self._last_stdout: str | None = None  # likewise

    @property
    def lines(self) -> tuple[str, ...]:
        """The newest lines, oldest first."""
        return tuple(self._lines)

    def forget_error(self) -> None:
        """A new process starts."""
        self._error = self._last_stdout = None

    def set_error(self, text: str) -> None:
        """Set an error that pbus found itself."""
        self._error = text

    def add(self, stream: Stream, text: str) -> None:
        """Add a line that the process wrote."""
        text = text[:_MAX_CHARACTERS]
        self._lines.append(text)
        if (words := text.strip()) and not _INFORMATIONAL.match(words):
            if stream == "err":
                self._error = words
            else:
                self._last_stdout = words

    def error(self, code: int | None) -> str | None:
        """Return the line that most likely tells the cause of a failure.

        Args:
            code: Exit code of the process, if it has ended: after one of an error its last line on
                stdout counts, after 0 no line is a cause.
        """
        if code == 0:
            return None
        if self._error is not None:
            return self._error
        return self._last_stdout if code is not None and code > 0 else None
