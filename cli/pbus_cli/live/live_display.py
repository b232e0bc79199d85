"""The live display of `pbus up`: events and channel folded into the picture that is drawn."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import structs
from rich.console import RenderableType

from pbus.bus.base import WorkerBus
from pbus.leases import Lease
from pbus.observe import HostRecord, join_reason, merge_rows
from pbus.process.project.record import ProjectRecord
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    GaveUp,
    Line,
    SessionEnded,
    Started,
)
from pbus_cli.live.channel_watch import ChannelWatch
from pbus_cli.live.screen import Screen
from pbus_cli.views.dashboard import Failure, Snapshot, dashboard
from pbus_cli.views.endings import Ending

_LONGEST: Final = 4096  # characters of a line: wider than any screen
_KEPT: Final = 200  # log lines: more than the tallest screen shows
_FOOT: Final = "Ctrl-C stops all workers"


class LiveDisplay:
    """Shows a supervised project until closed.

    `hear`, `tell` and `look` are called on the supervisor's loop and never wait; everything that
    could take time happens in the threads of the screen and of the channel's watch.

    Args:
        project: Its name.
        make_bus: Makes the watch's connection.
        on_closed: Called when the terminal has no reader any more.
        record: Of a supervisor in another process: its state is read from the channel.
    """

    def __init__(
        self,
        project: str,
        make_bus: Callable[[], WorkerBus],
        *,
        on_closed: Callable[[], None] = lambda: None,
        record: ProjectRecord | None = None,
    ) -> None:
        self._project = project
        self._session = record.session if record else None
        ran_s = time.time() - record.started_at if record else 0.0
        self._started = time.monotonic() - max(0.0, ran_s)
        self._watch = ChannelWatch(make_bus)
        self._screen = Screen(self._draw, on_closed=on_closed, on_entered=self._forget_drawn)
        self._lock = threading.Lock()
        self._logs: deque[Line] = deque(maxlen=_KEPT)
        self._failures: dict[str, Failure] = {}
        self.last_words: dict[str, tuple[str, ...]] = {}  # of those that were given up
        self._bus: str | None = None
        self._is_bus_lost = False
        self._foot = _FOOT
        self._record: HostRecord | None = None
        self._changes = 0
        self._drawn: tuple[object, ...] = ()

    def hear(self, event: Event) -> None:
        """Take in what the supervisor says."""
        with self._lock:
            self._take_in(event)
            self._changes += 1
        if isinstance(event, BrokerReady):
            self._watch.open()
        self._screen.open()

    def tell(self, text: str) -> None:
        """Show a remark at the foot of the screen."""
        self._foot = text

    def warn(self, text: str) -> None:
        """Show a warning of the library among the log lines."""
        with self._lock:
            self._logs.append(Line("pbus", "pbus", text, time.time()))
            self._changes += 1

    def look(self, record: HostRecord) -> None:
        """Take the supervisor's newest record."""
        self._record = record

    def suspend(self) -> None:
        """Give the terminal back for a while."""
        self._screen.suspend()

    def resume(self) -> None:
        """Draw again."""
        self._screen.resume()

    def close(self) -> None:
        """Give the terminal back."""
        self._screen.close()
        self._watch.close()

    def endings(self, record: HostRecord) -> list[Ending]:
        """The endings of the workers, with the last figures of the registry."""
        known = {lease.name: lease for lease in self._watch.last_leases}
        return [
            _ending(process.name, record, known.get(process.name)) for process in record.processes
        ]

    def _take_in(self, event: Event) -> None:
        if isinstance(event, Line):
            self._logs.append(structs.replace(event, text=event.text[:_LONGEST]))
        elif isinstance(event, GaveUp):
            reason = join_reason(event.reason, event.error) or ""
            self._failures[event.worker] = Failure(event.worker, reason)
            self.last_words[event.worker] = event.last_lines
        elif isinstance(event, Started):
            self._failures.pop(event.worker, None)
            self.last_words.pop(event.worker, None)
        elif isinstance(event, BrokerReady):
            self._bus, self._is_bus_lost = event.url, False
        elif isinstance(event, BrokerLost):
            self._is_bus_lost = True
        elif isinstance(event, SessionEnded):
            self._foot = f"the session was {event.reason}"

    def _forget_drawn(self) -> None:
        self._drawn = ()

    def _draw(self, width: int, height: int) -> RenderableType | None:
        """The picture, or None where it is still the last one."""
        record, watch = self._record or self._published(), self._watch
        processes = record.processes if record else ()
        seen = (width, height, self._changes, self._foot, processes)
        uptime_s = time.monotonic() - self._started
        now = (*seen, watch.passed, watch.leases, watch.queues, int(uptime_s))
        if now == self._drawn:
            return None
        self._drawn = now
        return dashboard(self._snapshot(record, uptime_s), width, height)

    def _published(self) -> HostRecord | None:
        """The record that the supervisor of another process publishes on the channel."""
        hosts = self._watch.hosts if self._session else ()
        return next((host for host in hosts if host.session == self._session), None)

    def _snapshot(self, record: HostRecord | None, uptime_s: float) -> Snapshot:
        watch = self._watch
        own = (record,) if record else ()
        others = (host for host in watch.hosts if record is None or host.session != record.session)
        with self._lock:
            logs, failures = tuple(self._logs), tuple(self._failures.values())
        return Snapshot(
            project=self._project,
            bus=self._bus,
            uptime_s=uptime_s,
            rows=tuple(merge_rows(watch.leases, [*own, *others], time.time())),
            messages=watch.messages,
            passed=watch.passed,
            per_second=watch.per_second,
            missed=watch.missed,
            logs=logs,
            failures=failures,
            queues=watch.queues,
            foot=self._foot,
            is_bus_lost=self._is_bus_lost,
        )


def _ending(name: str, record: HostRecord, lease: Lease | None) -> Ending:
    process = next(one for one in record.processes if one.name == name)
    return Ending(
        name=name,
        state=process.state,
        exit_code=process.exit_code,
        restarts=process.restarts,
        received=lease.received if lease else 0,
        sent=lease.sent if lease else 0,
        lost=lease.lost if lease else 0,
        error=process.error,
    )
