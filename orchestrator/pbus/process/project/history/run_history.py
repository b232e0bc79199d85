"""History of a project: its runs, and the state events of its workers.

Both are log files beside those of the workers, so they rotate, are read and survive as these do.
"""

import bisect
import collections
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Self

import msgspec

from pbus.messages import BusWorkerStateMessage
from pbus.process.project.log_files import LogFile, LogLine
from pbus.process.project.log_reader import iter_lines
from pbus.process.project.project import Project
from pbus.process.system.groups import is_same_process, start_time

Outcome = Literal["running", "stopped", "finished", "failed", "crashed"]

logger = logging.getLogger(__name__)


class StateEvent(msgspec.Struct, frozen=True):
    """A state change of a worker as it is kept; fields as of `BusWorkerStateMessage`."""

    time: float
    project: str
    worker: str
    state: str
    previous: str | None = None
    pid: int | None = None
    detail: str = ""


class Begin(msgspec.Struct, frozen=True):
    """The begin of a run, as it is kept.

    Attributes:
        pid: The supervisor, and `pid_created` its start time.
    """

    number: int
    time: float
    session: str
    pid: int
    pid_created: float


class End(msgspec.Struct, frozen=True):
    """The end of a run, as it is kept."""

    number: int
    time: float
    outcome: Outcome
    code: int
    reason: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a project; its fields are the keys of the JSON output.

    Attributes:
        began: Unix seconds; `ended` likewise, None where it runs or its supervisor did not end it.
        outcome: "stopped" by a request, "finished" by itself, "failed", "crashed" (its supervisor was
            killed), or "running".
        code: The exit code; None where there is none.
        workers: Workers that had a process; None where the events are not kept any more.
        restarts: Processes that were started in the place of an earlier one; None likewise.
    """

    number: int
    session: str
    began: float
    ended: float | None
    outcome: Outcome
    code: int | None
    reason: str
    workers: int | None = None
    restarts: int | None = None


class RunHistory:
    """Writes the history of one run. A disk that refuses is logged and no error.

    Args:
        project: Held by this process, as of `begin`.
        session: Of the run.

    Attributes:
        number: Of the run; None before its begin and after its end.
        reason: Of the end.
    """

    def __init__(self, project: Project, session: str) -> None:
        self._project = project
        self.session = session
        self.number: int | None = None
        self.reason = ""
        self._runs = LogFile(project.service_log_path("runs"))
        self._events = LogFile(project.service_log_path("events"))

    def begin(self) -> Self:
        """Record the begin of the run."""
        try:
            number = 1 + max((one.number for one in _entries(self._project)), default=0)
        except OSError as error:
            logger.warning("the runs before this one cannot be read: %s", error)
            number = 1
        self.number = number
        now = math.floor(time.time() * 1000) / 1000  # lines of the run have times of milliseconds
        pid = os.getpid()
        entry = Begin(number, now, self.session, pid, start_time(pid) or 0.0)
        self._write(self._runs, "begin", now, entry)
        return self

    def end(self, outcome: Outcome, code: int) -> None:
        """Record the end of the run, once; without a begin there is none."""
        number, self.number = self.number, None
        if number is not None:
            now = time.time()
            self._write(self._runs, "end", now, End(number, now, outcome, code, self.reason))

    def add_event(self, message: BusWorkerStateMessage) -> None:
        """Record a state change."""
        event = StateEvent(
            message.time, message.project, message.worker, message.state,
            message.previous, message.pid, message.detail,
        )  # fmt: skip
        self._write(self._events, "event", message.time, event)

    def close(self) -> None:
        """Close the files. A run that has not ended in order has failed."""
        self.reason = self.reason or "it did not start, or ended by an error"
        self.end("failed", 1)
        self._runs.close()
        self._events.close()

    def _write(self, file: LogFile, kind: str, at: float, entry: msgspec.Struct) -> None:
        file.write(at, kind, msgspec.json.encode(entry).decode())


class Marks:
    """Tells the runs of lines by their times.

    Args:
        runs: In order of their begin.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = sorted(runs, key=lambda run: run.began)
        self._begins = [run.began for run in self._runs]

    def run_at(self, at: float) -> Run | None:
        """Return the run that had begun last at a time; None before the first that is kept."""
        index = bisect.bisect_right(self._begins, at)
        return self._runs[index - 1] if index else None


def read_runs(project: Project) -> list[Run]:
    """Return the runs that are kept, oldest first, without numbers of workers and restarts.

    Raises:
        OSError: The file cannot be read.
    """
    begins: dict[int, Begin] = {}
    ends: dict[int, End] = {}
    for entry in _entries(project):
        if isinstance(entry, Begin):
            begins[entry.number] = entry
        else:
            ends[entry.number] = entry
    return [_run(begin, ends.get(number)) for number, begin in sorted(begins.items())]


def count_workers(runs: Iterable[Run], events: Iterable[StateEvent]) -> list[Run]:
    """Return the runs with their numbers of workers and restarts.

    Args:
        runs: All, or the newest of them.
        events: All that are kept, in order.
    """
    runs = list(runs)
    marks = Marks(runs)
    starts: dict[int, collections.Counter[str]] = {
        run.number: collections.Counter() for run in runs
    }
    first = math.inf
    for event in events:
        first = min(first, event.time)
        run = marks.run_at(event.time)
        if run is not None and event.state == "starting":
            starts[run.number][event.worker] += 1
    return [_counted(run, starts[run.number], first) for run in runs]


def read_events(
    project: Project, on_damage: Callable[[], object] = lambda: None
) -> Iterator[StateEvent]:
    """Yield the state events that are kept, oldest first; damaged lines are left out.

    Args:
        project: Whose.
        on_damage: Called for each damaged line.

    Raises:
        OSError: The file cannot be read.
    """
    for line in iter_lines({"": project.service_log_path("events")}):
        event = parse_event(line)
        if event is None:
            on_damage()
        else:
            yield event


def parse_event(line: LogLine) -> StateEvent | None:
    """Return the event of a line; None where it is damaged."""
    try:
        return msgspec.json.decode(line.text, type=StateEvent) if line.stream == "event" else None
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _entries(project: Project) -> Iterator[Begin | End]:
    for line in iter_lines({"": project.service_log_path("runs")}):
        kind = {"begin": Begin, "end": End}.get(line.stream)
        if kind is None:
            continue
        try:
            yield msgspec.json.decode(line.text, type=kind)
        except (msgspec.MsgspecError, UnicodeError):
            continue


def _run(begin: Begin, end: End | None) -> Run:
    outcome: Outcome = "crashed" if end is None else end.outcome
    if end is None and is_same_process(begin.pid, begin.pid_created):
        outcome = "running"
    return Run(
        number=begin.number,
        session=begin.session,
        began=begin.time,
        ended=None if end is None else end.time,
        outcome=outcome,
        code=None if end is None else end.code,
        reason="" if end is None else end.reason,
    )


def _counted(run: Run, starts: collections.Counter[str], first_event: float) -> Run:
    if not starts and first_event > (run.ended or run.began):  # rotated away, or removed
        return (
            run if run.outcome != "running" else msgspec.structs.replace(run, workers=0, restarts=0)
        )
    restarts = sum(starts.values()) - len(starts)
    return msgspec.structs.replace(run, workers=len(starts), restarts=restarts)
