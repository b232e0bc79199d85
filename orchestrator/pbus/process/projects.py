"""The projects that run on this machine: find them, choose one, stop it from outside."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from pathlib import Path

import psutil

from pbus.errors import (
    AmbiguousProjectError,
    NothingRunningError,
    OrphanedProjectError,
    ProcessError,
    ProjectRunningError,
)
from pbus.process.folders import state_root
from pbus.process.groups import end_all
from pbus.process.guard import remove
from pbus.process.project import CLEANUP_S, Project, is_over, processes_of, token_of
from pbus.process.record import ProjectRecord, read_record

_POLL_S = 0.05
_TOPOLOGY = "topology.yaml"

logger = logging.getLogger(__name__)


def running_projects() -> list[ProjectRecord]:
    """The projects of this user that run, by name; records that outlived theirs are removed."""
    return [record for record, project in _recorded() if not is_over(project) and record.is_alive]


def orphaned_projects() -> list[ProjectRecord]:
    """Those whose supervisor and guard were killed, and whose processes go on."""
    return [record for record, project in _recorded() if is_over(project) and processes_of(project)]


def _recorded() -> list[tuple[ProjectRecord, Project]]:
    found = []
    for path in sorted(state_root().glob("*/project.json")):
        record = read_record(path)
        if record is None:
            continue
        project = Project.of_record(record)
        if project.state_dir == path.parent:
            found.append((record, project))
        else:
            logger.warning("%s is not the record of project %s", path, project.id)
    return sorted(found, key=lambda pair: (pair[0].name, pair[0].folder))


def choose_project(name: str | None, file: Path | None, cwd: Path) -> ProjectRecord:
    """The running project that a command means.

    Args:
        name: As given by the user; the project of this name.
        file: As given by the user; the project of this topology file.
        cwd: The folder whose project is preferred; if it has a topology.yaml, that one is meant.

    Raises:
        NothingRunningError: None matches.
        OrphanedProjectError: It has processes, but nothing that looks after them.
        AmbiguousProjectError: Several do.
    """
    running = running_projects()
    chosen = _choose(running, name, file, cwd)
    if chosen:
        return chosen
    for orphan in orphaned_projects():
        if _choose([orphan], name, file, cwd):
            pids = sorted(process.pid for process in processes_of(Project.of_record(orphan)))
            raise OrphanedProjectError(orphan.name, orphan, pids)
    raise NothingRunningError(_wanted(name, file, cwd), [record.name for record in running])


def _choose(
    matching: list[ProjectRecord], name: str | None, file: Path | None, cwd: Path
) -> ProjectRecord | None:
    if name is not None:
        matching = [record for record in matching if record.name == name]
    if file is not None:
        full = (cwd / file).resolve()
        matching = [record for record in matching if Path(record.file) == full]
    candidates = [record for record in matching if Path(record.folder) == cwd.resolve()]
    if not candidates and (name or file or not _has_topology(cwd)):
        candidates = matching
    if len(candidates) > 1:
        raise AmbiguousProjectError([_label(record, candidates) for record in candidates])
    return candidates[0] if candidates else None


def _wanted(name: str | None, file: Path | None, cwd: Path) -> str:
    if file is not None:
        return f"was started from {(cwd / file).resolve()}"
    if name is not None:
        return f"is named {name!r}"
    return f"is that of {cwd / _TOPOLOGY}" if _has_topology(cwd) else "was found"


def _has_topology(folder: Path) -> bool:
    """Whether a command given here means the project of this folder, running or not."""
    return (folder / _TOPOLOGY).exists()


async def end_orphans(record: ProjectRecord) -> None:
    """End what a supervisor has left behind that was killed together with its guard.

    Raises:
        ProcessError: Somebody does not end.
        ProjectRunningError: The next supervisor is here.
    """
    project = Project.of_record(record)
    async with project.lock():
        left = await asyncio.to_thread(end_all, {}, token_of(project), grace_s=2.0, kill_s=2.0)
        remove(project.runtime_dir)
    if left:
        raise ProcessError(f"processes of project {project.name!r} do not end: {left}")


async def stop_project(record: ProjectRecord, timeout_s: float) -> bool:
    """Stop a project through its supervisor and wait until nothing of it is left.

    Args:
        record: Of the project.
        timeout_s: How long the orderly stop may take before the supervisor is killed and its
            guard ends the rest.

    Returns:
        Whether it stopped orderly.

    Raises:
        ProcessError: It cannot be stopped.
    """
    project = Project.of_record(record)
    _signal_supervisor(record, signal.SIGTERM)
    _signal_supervisor(record, signal.SIGCONT)  # it may stand still, by Ctrl-Z
    if await _is_over_within(record, timeout_s):
        return True
    _signal_supervisor(record, signal.SIGKILL)
    if not await _is_over_within(record, CLEANUP_S):
        raise ProcessError(
            f"project {record.name!r} does not end (supervisor pid {record.pid})",
            hint=f"see {project.service_log_path('guard')}",
        )
    # In case the guard had been killed, too; unless the next supervisor is here and does it.
    with contextlib.suppress(ProjectRunningError):
        await end_orphans(record)
    return False


async def _is_over_within(record: ProjectRecord, timeout_s: float) -> bool:
    project = Project.of_record(record)
    deadline = time.monotonic() + timeout_s
    while not is_over(project) or record.is_alive:  # it lets go a moment before it exits
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _signal_supervisor(record: ProjectRecord, number: signal.Signals) -> None:
    if not record.is_alive:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(record.pid)
        user = supervisor.uids().real
        if user != os.geteuid():  # root could end it all the same
            raise ProcessError(
                f"project {record.name!r} (supervisor pid {record.pid}) belongs to user id {user}",
                hint="stop it as that user",
            )
        supervisor.send_signal(number)


def _label(record: ProjectRecord, among: list[ProjectRecord]) -> str:
    is_unique = [other.name for other in among].count(record.name) == 1
    return record.name if is_unique else f"{record.name} ({record.file})"
