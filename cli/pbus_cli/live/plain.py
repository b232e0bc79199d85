"""The display of `pbus up` for pipes: every line of every worker, with its name before it."""

import sys
import time
from collections.abc import Callable, Iterable

from pbus.observe import HostRecord
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    Line,
    Ready,
    SessionEnded,
)
from pbus_cli.live.printer import LinePrinter, stream_writer
from pbus_cli.terminal.console import OutputError, has_colors, warn
from pbus_cli.views.log_lines import log_text, name_width

_SELF = "pbus"


class PlainDisplay:
    """Prints lines as they come; a reader that is too slow loses some and is told how many."""

    def __init__(
        self, workers: Iterable[str], *, on_closed: Callable[[], None] = lambda: None
    ) -> None:
        self._width = name_width([*workers, _SELF])
        self._has_colors = has_colors(sys.stdout)
        self._printer = LinePrinter(
            stream_writer(sys.stdout), on_closed=on_closed, on_trouble=self._complain
        )

    def hear(self, event: Event) -> None:
        """Print what the supervisor says."""
        if isinstance(event, Line):
            self._print(event)
        elif isinstance(event, Ready):
            self._remark(event.worker, "ready")
        elif isinstance(event, BrokerReady):
            self._remark(_SELF, f"the broker is ready at {event.url}")
        elif isinstance(event, BrokerLost):
            self._remark(_SELF, "the broker is away; workers keep running and reconnect")
        elif isinstance(event, SessionEnded):
            self._remark(_SELF, f"the session was {event.reason}")

    def tell(self, text: str) -> None:
        """Print a remark of the command itself."""
        self._remark(_SELF, text)

    def warn(self, text: str) -> None:
        """Print a warning of the library."""
        self._remark(_SELF, text)

    def look(self, record: HostRecord) -> None:
        """Records are for tables; there is none."""

    def suspend(self) -> None:
        """A pipe needs nothing before this process is stopped."""

    def resume(self) -> None:
        """Nor afterwards."""

    def close(self) -> None:
        """Print what waits."""
        self._printer.close()

    @property
    def error(self) -> OutputError | None:
        """The reason why lines were not written although there is a reader."""
        return self._printer.error

    def _complain(self, error: OutputError) -> None:
        warn(f"log lines cannot be written to stdout: {error.strerror}; the workers go on")

    def _remark(self, worker: str, text: str) -> None:
        self._print(Line(worker, "pbus", text, time.time()))

    def _print(self, line: Line) -> None:
        self._printer.put(log_text(line, self._width, has_colors=self._has_colors))
