"""The projects that run on this machine: find them, choose one, stop it from outside."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import psutil

from pbus.errors import (
    AmbiguousProjectError,
    NothingRunningError,
    OrphanedProjectError,
    ProcessError,
    ProjectRunningError,
    SurvivorsError,
)
from pbus.process.project.folders import state_root
from pbus.process.project.project import CLEANUP_S, RECORD, Project, is_over, processes_of, token_of
from pbus.process.project.record import LAST, ProjectRecord, read_record
from pbus.process.project.recovery_log import RecoveryLog
from pbus.process.system import groups
from pbus.process.system.groups import PROJECT_VARIABLE, STATE_VARIABLE, end_all
from pbus.process.system.guard import remove
from pbus.topology.paths import as_named, is_same_place

STOPPED_S = 15.0  # for signals, the broker and what is written last, once the jobs' time is up
_LAST_S = 1.0  # for the guard, whose lock goes a moment before it does
_POLL_S = 0.05
_TOPOLOGY = "topology.yaml"
_NO_ENVIRON: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger(__name__)


def running_projects() -> list[ProjectRecord]:
    """The projects of this user that run, by name; records that outlived theirs are removed."""
    return _running(_state_dirs())


def refuse_other_path(project: Project) -> None:
    """See that a project does not run already, started by another path to its folder.

    Raises:
        ProjectRunningError: It does.
    """
    for record in running_projects():
        folder, file = Path(record.folder), Path(record.file)
        if folder == project.folder or not is_same_place(folder, project.folder):
            continue
        if record.name == project.name or is_same_place(file, project.file):
            raise ProjectRunningError(record.name, folder, record.pid)


def choose_project(
    name: str | None, file: Path | None, cwd: Path, environ: Mapping[str, str] = _NO_ENVIRON
) -> ProjectRecord:
    """The running project that a command means.

    Args:
        name: As given by the user; the project of this name.
        file: As given by the user; the project of this topology file.
        cwd: The folder whose project is preferred; if it has a topology.yaml, that one is meant.
        environ: Without name and file a worker's environment means its own project.

    Raises:
        NothingRunningError: None matches.
        OrphanedProjectError: It has processes, but nothing that looks after them.
        AmbiguousProjectError: Several do.
    """
    own = None
    if name is None and file is None and environ.get(PROJECT_VARIABLE):
        name, own = environ[PROJECT_VARIABLE], environ.get(STATE_VARIABLE)
    running = running_projects() if own is None else _running([Path(own)])
    chosen = _choose(running, name, file, cwd)
    if chosen is None and name is None and file is None:
        chosen = _by_former_link(running, cwd, environ.get("PWD"))
    if chosen:
        return chosen
    for orphan in _orphaned(_state_dirs() if own is None else [Path(own)]):
        if _choose([orphan], name, file, cwd):
            pids = sorted(process.pid for process in processes_of(Project.of_record(orphan)))
            raise OrphanedProjectError(orphan.name, orphan, pids)
    raise NothingRunningError(_wanted(name, file, cwd), [record.name for record in running])


def stopped_record(name: str | None, file: Path | None, cwd: Path) -> ProjectRecord | None:
    """What the last run of a project left, chosen as `choose_project` chooses; None of none.

    Raises:
        AmbiguousProjectError: There are several.
    """
    found = [
        record
        for folder in _state_dirs()
        if (record := read_record(folder / LAST))
        and is_same_place(Project.of_record(record).state_dir, folder)  # else it is a copy
    ]
    return _choose(found, name, file, cwd)


def _state_dirs() -> list[Path]:
    return sorted(state_root().glob("*"))


def _running(state_dirs: Iterable[Path]) -> list[ProjectRecord]:
    recorded = _recorded(state_dirs)
    return [record for record, project in recorded if not is_over(project) and record.is_alive]


def _orphaned(state_dirs: Iterable[Path]) -> list[ProjectRecord]:
    """Those whose supervisor and guard were killed, and whose processes go on."""
    recorded = _recorded(state_dirs)
    return [record for record, project in recorded if is_over(project) and processes_of(project)]


def _recorded(state_dirs: Iterable[Path]) -> list[tuple[ProjectRecord, Project]]:
    found = []
    for state_dir in state_dirs:
        record = read_record(state_dir / RECORD)
        if record is None:
            continue
        project = Project.of_record(record)
        if is_same_place(project.state_dir, state_dir):
            found.append((record, project))
        else:
            logger.debug("%s is a copy of %s", state_dir, project.state_dir)
    return sorted(found, key=lambda pair: (pair[0].name, pair[0].folder))


def _choose(
    matching: list[ProjectRecord], name: str | None, file: Path | None, cwd: Path
) -> ProjectRecord | None:
    if name is not None:
        matching = [record for record in matching if record.name == name]
    if file is not None:
        matching = _started_from(matching, as_named(cwd / file))
    elif name is not None:
        matching = _in_folder(matching, cwd) or matching
    else:
        own = _started_from(matching, cwd / _TOPOLOGY)
        matching = own if own or _has_topology(cwd) else _in_folder(matching, cwd) or matching
    if len(matching) > 1:
        raise AmbiguousProjectError([_label(record, matching) for record in matching])
    return matching[0] if matching else None


def _started_from(records: list[ProjectRecord], file: Path) -> list[ProjectRecord]:
    """Those of a file: by the path that it was given by, else by another one to its folder."""
    named = [record for record in records if Path(record.file) == file]
    return named or [
        record
        for record in _in_folder(records, file.parent)
        if Path(record.file).name == file.name or is_same_place(Path(record.file), file)
    ]


def _in_folder(records: list[ProjectRecord], folder: Path) -> list[ProjectRecord]:
    named = [record for record in records if Path(record.folder) == folder]
    return named or [record for record in records if is_same_place(Path(record.folder), folder)]


def _by_former_link(
    records: list[ProjectRecord], cwd: Path, named: str | None
) -> ProjectRecord | None:
    """The one started in this very folder, by a link that leads elsewhere by now.

    The shell still names the folder by the link, and the supervisor still stands in it.
    """
    return next((one for one in records if one.folder == named and _stands_in(one, cwd)), None)


def _stands_in(record: ProjectRecord, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return is_same_place(Path(psutil.Process(record.pid).cwd()), folder)
    return False


def _wanted(name: str | None, file: Path | None, cwd: Path) -> str:
    if file is not None:
        return f"was started from {as_named(cwd / file)}"
    if name is not None:
        return f"is named {name!r}"
    return f"is that of {cwd / _TOPOLOGY}" if _has_topology(cwd) else "was found"


def _has_topology(folder: Path) -> bool:
    """Whether a command given here means the project of this folder, running or not."""
    return os.path.exists(folder / _TOPOLOGY)  # noqa: PTH110 - a folder may be another user's


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
        timeout_s: Seconds that jobs in hand get. Then they are cancelled, and a supervisor that has
            not ended STOPPED_S later is killed, its guard ends the rest; with 0 at once.

    Returns:
        Whether it stopped orderly.

    Raises:
        ProcessError: It cannot be stopped.
        SurvivorsError: It is over, but for processes that may not be signalled.
    """
    refuse_foreign(record)
    family = groups.descendants(record.pid) if record.is_alive else []
    is_orderly = await _stop(record, timeout_s)
    await _refuse_survivors(record, family)
    return is_orderly


async def _stop(record: ProjectRecord, timeout_s: float) -> bool:
    project = Project.of_record(record)
    RecoveryLog(project.state_dir).set_stop_timeout(record.pid, timeout_s)
    _signal_supervisor(record, signal.SIGTERM)
    _signal_supervisor(record, signal.SIGCONT)  # it may stand still, by Ctrl-Z
    if await _is_over_within(record, timeout_s + STOPPED_S if timeout_s else 0.0):
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


async def _refuse_survivors(record: ProjectRecord, family: list[psutil.Process]) -> None:
    """See that all processes of a project that is over have ended, or are about to."""
    deadline = time.monotonic() + _LAST_S
    while left := groups.living(family):
        if time.monotonic() >= deadline:
            raise SurvivorsError({record.name: groups.describe(left)})
        await asyncio.sleep(_POLL_S)


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
    refuse_foreign(record)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(record.pid).send_signal(number)


def refuse_foreign(record: ProjectRecord) -> None:
    """See that the supervisor runs as this user; root could end any other's, too.

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


def _label(record: ProjectRecord, among: list[ProjectRecord]) -> str:
    is_unique = [other.name for other in among].count(record.name) == 1
    return record.name if is_unique else f"{record.name} ({record.file})"
