"""The interactive display of a project: events and channel folded into what is drawn."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import structs

from pbus.client import Attachment
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
from pbus_cli.live.display_thread import DisplayThread
from pbus_cli.live.orders import carry_out
from pbus_cli.views.board.arrangement import Focus, Pane
from pbus_cli.views.board.board_snapshot import Failure, Snapshot
from pbus_cli.views.endings import Ending

_LONGEST: Final = 4096  # characters of a line: wider than any screen
_KEPT: Final = 500  # log lines
_TOLD_S: Final = 8.0  # how an order went is shown for so long
_PARTING: Final = "leaving stops all workers: stop them?"


class LiveDisplay:
    """Shows a supervised project until closed.

    `hear`, `tell` and `look` are called on the supervisor's loop and never wait; everything that
    could take time happens in the threads of the display and of the channel's watch.

    Args:
        project: Its name.
        attach: Finds the project for the watch.
        on_closed: Called when the terminal has no reader any more.
        on_left: Called when the person wants to leave.
        is_owner: Whether that ends the project.
        record: Of a supervisor in another process: its state is read from the channel.
    """

    def __init__(
        self,
        project: str,
        attach: Callable[[], Attachment],
        *,
        on_closed: Callable[[], None] = lambda: None,
        on_left: Callable[[], None] = lambda: None,
        is_owner: bool = False,
        record: ProjectRecord | None = None,
    ) -> None:
        self._project = project
        self._session = record.session if record else None
        ran_s = time.time() - record.started_at if record else 0.0
        self._started = time.monotonic() - max(0.0, ran_s)
        self._watch = ChannelWatch(attach)
        self._on_left = on_left
        self.parting = _PARTING if is_owner else None
        self._screen = DisplayThread(self, on_closed=on_closed)
        self._lock = threading.Lock()
        self._logs: deque[Line] = deque(maxlen=_KEPT)
        self._logged = 0
        self._failures: dict[str, Failure] = {}
        self.last_words: dict[str, tuple[str, ...]] = {}  # of those that were given up
        self._bus: str | None = None
        self._is_bus_lost = False
        self._foot = ""
        self._told: tuple[str, float] = ("", 0.0)
        self._record: HostRecord | None = None
        self._changes = 0
        self._drawn: tuple[object, ...] = ()

    def begin_at(self, focus: Focus) -> None:
        """Show this first."""
        self._screen.focus = focus
        self._watch.names = focus.names

    def hear(self, event: Event) -> None:
        """Take in what the supervisor says."""
        with self._lock:
            self._take_in(event)
            self._changes += 1
        if isinstance(event, BrokerReady):
            self._watch.open()
        self._screen.open()

    def tell(self, text: str) -> None:
        """Show what the command is doing, at the foot."""
        self._foot = text

    def warn(self, text: str) -> None:
        """Show a warning of the library among the log lines."""
        with self._lock:
            self._log(Line("pbus", "pbus", text, time.time()))
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

    def want(self, panes: frozenset[Pane]) -> None:
        """Ask only for what these panes show."""
        self._watch.wanted = panes

    def order(self, verb: str, name: str, count: int = 0) -> None:
        """Do what the person wants; tells at the foot how it goes."""
        is_sent = self._watch.call(
            lambda client: carry_out(client, verb, name, count, self._tell_briefly)
        )
        if not is_sent:
            self._tell_briefly(f"{verb} {name}: the broker is not connected")

    def leave(self) -> None:
        """The person wants to leave."""
        self._on_left()

    def endings(self, record: HostRecord) -> list[Ending]:
        """The endings of the workers, with the last figures of the registry."""
        known = {lease.name: lease for lease in self._watch.last_leases}
        return [
            _ending(process.name, record, known.get(process.name)) for process in record.processes
        ]

    def _take_in(self, event: Event) -> None:
        if isinstance(event, Line):
            self._log(structs.replace(event, text=event.text[:_LONGEST]))
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

    def _log(self, line: Line) -> None:
        self._logs.append(line)
        self._logged += 1

    def _tell_briefly(self, text: str) -> None:
        self._told = (text, time.monotonic())

    def _shown_foot(self) -> str:
        text, since = self._told
        return self._foot or (text if time.monotonic() - since < _TOLD_S else "")

    def snapshot(self) -> Snapshot | None:
        """All that is shown as of now; None where nothing has changed since the last call."""
        record, watch = self._record or self._published(), self._watch
        processes = record.processes if record else ()
        uptime_s = time.monotonic() - self._started
        seen = (self._changes, self._shown_foot(), processes, int(uptime_s))
        now = (*seen, watch.passed, watch.leases, watch.queues, watch.edges, watch.jobs, watch.dead)
        if now == self._drawn:
            return None
        self._drawn = now
        return self._made(record, uptime_s)

    def _published(self) -> HostRecord | None:
        """The record that the supervisor of another process publishes on the channel."""
        hosts = self._watch.hosts if self._session else ()
        return next((host for host in hosts if host.session == self._session), None)

    def _made(self, record: HostRecord | None, uptime_s: float) -> Snapshot:
        watch = self._watch
        own = (record,) if record else ()
        others = (host for host in watch.hosts if record is None or host.session != record.session)
        with self._lock:
            logs, logged = tuple(self._logs), self._logged
            failures, last_words = tuple(self._failures.values()), dict(self.last_words)
        messages, folded = watch.traffic()
        return Snapshot(
            project=self._project,
            bus=self._bus,
            uptime_s=uptime_s,
            rows=tuple(merge_rows(watch.leases, [*own, *others], time.time())),
            messages=messages,
            folded=folded,
            passed=watch.passed,
            per_second=watch.per_second,
            missed=watch.missed,
            logs=logs,
            logged=logged,
            failures=failures,
            last_words=last_words,
            queues=watch.queues,
            edges=watch.edges,
            job_stats=watch.job_stats,
            jobs=watch.jobs,
            dead=watch.dead,
            foot=self._shown_foot(),
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
