"""Events of a supervisor: lines go to log files, all events to the listeners."""

import logging
from collections.abc import Callable

from pbus.concurrency.background import ErrorLog
from pbus.process.project.log_writer import LogWriter
from pbus.process.supervisor_events import Event, Line

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]


class EventDispatch:
    """Dispatches events; an error of a recipient is logged.

    Args:
        log_writer: For lines.
        on_change: Called with every other event, before the listeners.

    Attributes:
        listeners: Called with every event.
    """

    def __init__(self, log_writer: LogWriter, on_change: Listener) -> None:
        self.listeners: list[Listener] = []
        self._log_writer = log_writer
        self._on_change = on_change
        self._errors = ErrorLog("writing down what happens")

    def emit(self, event: Event) -> None:
        """Dispatch an event. Never raises."""
        with self._errors.catch():
            if isinstance(event, Line):
                self._log_writer.write(event)
            else:
                self._on_change(event)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed at %s", type(event).__name__)
