"""Stopping a running project from another process."""

import asyncio
import contextlib
import os
import signal
import time

import psutil

from pbus.errors import ProcessError, ProjectRunningError, SurvivorsError
from pbus.process.project.project import Project
from pbus.process.project.project_lock import CLEANUP_S, ProjectLock, is_over, token_of
from pbus.process.project.record import ProjectRecord
from pbus.process.project.recovery_log import RecoveryLog, StopTime
from pbus.process.system import groups
from pbus.process.system.groups import end_all
from pbus.process.system.guard import remove

USUAL_STOP_S = 30.0  # for running jobs, where neither the user nor the worker says
STOPPED_S = 15.0  # for signals, the broker and the last records, once the jobs' time is up
_GUARD_EXIT_S = 1.0  # the guard's lock is released a moment before it exits
_POLL_S = 0.05


async def end_orphans(record: ProjectRecord) -> None:
    """End the processes of a supervisor that was killed together with its guard.

    Raises:
        ProcessError: A process does not end.
        ProjectRunningError: Another supervisor has the project.
    """
    project = Project.of_record(record)
    async with ProjectLock(project):
        left = await asyncio.to_thread(end_all, {}, token_of(project), grace_s=2.0, kill_s=2.0)
        remove(project.runtime_dir)
    if left:
        raise ProcessError(f"processes of project {project.name!r} do not end: {left}")


async def stop_project(record: ProjectRecord, timeout_s: float | None) -> bool:
    """Stop a project through its supervisor and wait until nothing of it is left.

    Args:
        record: The project's record.
        timeout_s: Seconds for running jobs; None: `grace` of each worker, or 30. Then they are
            cancelled; a supervisor that has not ended STOPPED_S later is killed, and its guard ends
            the rest; with 0 at once.

    Returns:
        Whether it stopped in order.

    Raises:
        ProcessError: It cannot be stopped.
        SurvivorsError: It is over, but for processes that may not be signalled.
    """
    refuse_foreign(record)
    processes = groups.descendants(record.pid) if record.is_alive else []
    is_orderly = await _stop(record, timeout_s)
    await _check_survivors(record, processes)
    return is_orderly


async def _stop(record: ProjectRecord, given_s: float | None) -> bool:
    project = Project.of_record(record)
    is_usual = given_s is None
    stop_time = StopTime(USUAL_STOP_S if given_s is None else given_s, is_usual=is_usual)
    timeout_s = stop_time.seconds + (record.grace_s if is_usual else 0.0)
    RecoveryLog(project.state_dir).set_stop_time(record.pid, stop_time)
    _signal_supervisor(record, signal.SIGTERM)
    _signal_supervisor(record, signal.SIGCONT)  # it may be stopped by Ctrl-Z
    if await _is_over_within(record, timeout_s + STOPPED_S if timeout_s else 0.0):
        return True
    _signal_supervisor(record, signal.SIGKILL)
    if not await _is_over_within(record, CLEANUP_S):
        raise ProcessError(
            f"project {record.name!r} does not end (supervisor pid {record.pid})",
            hint=f"see {project.service_log_path('guard')}",
        )
    # The guard may have been killed, too; another supervisor of the project does it itself.
    with contextlib.suppress(ProjectRunningError):
        await end_orphans(record)
    return False


async def _check_survivors(record: ProjectRecord, processes: list[psutil.Process]) -> None:
    """Make sure that all processes of an ended project end."""
    deadline = time.monotonic() + _GUARD_EXIT_S
    while left := groups.live(processes):
        if time.monotonic() >= deadline:
            raise SurvivorsError({record.name: groups.describe(left)})
        await asyncio.sleep(_POLL_S)


async def _is_over_within(record: ProjectRecord, timeout_s: float) -> bool:
    project = Project.of_record(record)
    deadline = time.monotonic() + timeout_s
    while not is_over(project) or record.is_alive:  # the lock is released a moment before it exits
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _signal_supervisor(record: ProjectRecord, number: signal.Signals) -> None:
    if not record.is_alive:
        return
    refuse_foreign(record)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(record.pid).send_signal(number)


def refuse_foreign(record: ProjectRecord) -> None:
    """Make sure that the supervisor runs as this user; root could end another's, too.

    Raises:
        ProcessError: It does not.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        user = psutil.Process(record.pid).uids().real
        if record.is_alive and user != os.geteuid():
            raise ProcessError(
                f"project {record.name!r} (supervisor pid {record.pid}) belongs to user id {user}",
                hint="stop it as that user",
            )
