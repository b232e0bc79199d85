"""Crash capsules of a supervisor's workers: made at each end with an error."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from pbus.leases import Lease
from pbus.process.project.history.capsule import (
    Capsule,
    LogEntry,
    OpenWork,
    Sequel,
    Traffic,
    UsageSample,
)
from pbus.process.project.history.capsule_files import write_capsule
from pbus.process.project.log_reader import read_lines
from pbus.process.project.project import Project
from pbus.process.supervisor.worker.end_facts import EndFacts
from pbus.process.supervisor.worker.restart_policy import signal_name
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor_events import Event, StateChanged
from pbus.settings import DeliveryMode

_LOG_LINES: Final = 100

logger = logging.getLogger(__name__)


class RunInfo(Protocol):
    """The run that is kept."""

    @property
    def number(self) -> int | None:
        """Its number; None where it is not kept."""
        ...

    @property
    def session(self) -> str:
        """Its session."""
        ...


class CapsuleWriter:
    """Writes a capsule as soon as it is known what follows an end. A full disk costs capsules only.

    Args:
        project: Held by this process.
        run: Of this supervisor.
        find: Returns the process of a worker.
        traffic_of: Returns the last messages of workers; None where they are not kept.
        delivery: Of the bus.
    """

    def __init__(
        self,
        project: Project,
        run: RunInfo,
        find: Callable[[str], WorkerProcess | None],
        traffic_of: Callable[[tuple[str, ...]], Traffic | None] = lambda _names: None,
        delivery: DeliveryMode = "at-most-once",
    ) -> None:
        self._is_stored = delivery == "at-least-once"
        self._project = project
        self._run = run
        self._find = find
        self._traffic_of = traffic_of
        self._has_warned = False

    def on_event(self, event: Event) -> None:
        """Handle an event of the supervisor."""
        process = self._find(event.worker) if isinstance(event, StateChanged) else None
        if process is None or not isinstance(event, StateChanged):
            return
        facts = process.status.facts.take_end()
        if facts is None or not facts.is_error:
            return
        try:
            write_capsule(self._project, self._capsule(process, facts, event))
        except OSError as error:
            if not self._has_warned:
                logger.warning("the crash capsule of %r cannot be kept: %s", event.worker, error)
            self._has_warned = True
        else:
            self._has_warned = False

    def _capsule(self, process: WorkerProcess, facts: EndFacts, event: StateChanged) -> Capsule:
        code = facts.code
        log, left_out = self._log(process.name, facts.started)
        return Capsule(
            project=self._project.name,
            run=self._run.number,
            session=self._run.session,
            worker=process.name,
            workers=process.names,
            pid=facts.pid,
            started=facts.started,
            ready=facts.ready,
            ended=facts.ended,
            start=facts.start,
            reason=facts.reason,
            code=None if code is None or code < 0 else code,
            signal=None if code is None or code >= 0 else signal_name(-code),
            is_told=facts.is_told,
            error=facts.error,
            sequel=Sequel(event.state, event.detail),
            open=_open_work(facts, is_stored=self._is_stored),
            traffic=self._traffic_of(process.names),
            log=log,
            log_left_out=left_out,
            usage=tuple(UsageSample(at, one.cpu_percent, one.rss_bytes) for at, one in facts.usage),
            stacks=facts.stacks,
            stacks_error=facts.stacks_error,
        )

    def _log(self, worker: str, started: float | None) -> tuple[tuple[LogEntry, ...], int]:
        """The last lines of the process, and how many at least came before them."""
        try:
            lines = read_lines({worker: self._project.log_path(worker)}, _LOG_LINES + 1)
        except OSError as error:
            return (LogEntry(0.0, "pbus", f"its log cannot be read: {error}"),), 0
        if started is not None:  # lines have times of milliseconds
            lines = [line for line in lines if line.time >= started - 0.001]
        kept = lines[-_LOG_LINES:]
        entries = tuple(LogEntry(line.time, line.stream, line.text) for line in kept)
        return entries, len(lines) - len(kept)


def _open_work(facts: EndFacts, *, is_stored: bool) -> OpenWork:
    leases = facts.leases
    return OpenWork(
        fate=facts.open_messages,
        beat=max((_beat(lease) for lease in leases), default=None),
        queued=sum(lease.queued for lease in leases),
        working=sum(lease.working for lease in leases),
        handlers={lease.name: lease.handler for lease in leases if lease.handler is not None},
        is_stored=is_stored,
    )


def _beat(lease: Lease) -> float:
    return lease.beat
