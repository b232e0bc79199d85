"""Capsules of the workers of a run whose supervisor was killed: written at the next start."""

import logging
from typing import Final

from pbus.process.project.history.capsule import Capsule, LogEntry, Sequel
from pbus.process.project.history.capsule_files import write_capsule
from pbus.process.project.history.run_history import (
    Run,
    RunHistory,
    StateEvent,
    read_events,
    read_runs,
)
from pbus.process.project.log_reader import read_lines
from pbus.process.project.project import Project

MOST: Final = 20  # workers, those that changed last; capsules of other ends are to be kept, too
REASON: Final = "was killed with its supervisor"
_LOG_LINES: Final = 50
_ENDED: Final = frozenset({"exited", "failed", "backoff", "stopped"})

logger = logging.getLogger(__name__)


def begin_run(project: Project, history: RunHistory) -> None:
    """Record the begin of a run, and capsules of the one before if that crashed."""
    write_crash_capsules(project)
    history.begin()


def write_crash_capsules(project: Project) -> int:
    """Write a capsule for each worker that ran when the newest run crashed; returns their number.

    When they ended is known by their last log line and event only. A disk that refuses is logged.

    Args:
        project: Held by this process, which has not begun its run yet.
    """
    written = 0
    try:
        runs = read_runs(project)
        if not runs or runs[-1].outcome != "crashed":
            return 0
        for history in _running(project, runs[-1])[-MOST:]:
            write_capsule(project, _capsule(project, runs[-1], history))
            written += 1
    except OSError as error:
        logger.warning("capsules of the run before cannot be kept: %s", error)
    return written


def _running(project: Project, run: Run) -> list[list[StateEvent]]:
    """The events of each worker that had a process at last; the one that changed last is last."""
    histories: dict[str, list[StateEvent]] = {}
    for event in read_events(project):
        if event.time >= run.began:
            histories.setdefault(event.worker, []).append(event)
    running = [one for one in histories.values() if one[-1].state not in _ENDED]
    return sorted(running, key=lambda one: one[-1].time)


def _capsule(project: Project, run: Run, history: list[StateEvent]) -> Capsule:
    worker, last = history[0].worker, history[-1]
    starts = _times(history, "starting")
    started = starts[-1] if starts else None
    since = run.began if started is None else started
    log = _log(project, worker, since)
    ready = next((at for at in _times(history, "ready") if at >= since), None)
    return Capsule(
        project=project.name,
        run=run.number,
        session=run.session,
        worker=worker,
        workers=(worker,),
        pid=next((one.pid for one in reversed(history) if one.pid is not None), None),
        started=started,
        ready=ready,
        ended=max(last.time, log[-1].time if log else 0.0),
        start=len(starts),
        reason=REASON,
        code=None,
        signal=None,
        is_told=False,
        error=None,
        sequel=Sequel("crashed", f"run {run.number} ended; at last it was {last.state}"),
        log=log,
    )


def _times(history: list[StateEvent], state: str) -> list[float]:
    return [one.time for one in history if one.state == state]


def _log(project: Project, worker: str, since: float) -> tuple[LogEntry, ...]:
    """The last lines of the process; they have times of milliseconds."""
    lines = read_lines({worker: project.log_path(worker)}, _LOG_LINES)
    return tuple(
        LogEntry(one.time, one.stream, one.text) for one in lines if one.time >= since - 0.001
    )
