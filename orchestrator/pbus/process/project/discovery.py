"""The projects that run on this machine: find them, choose one."""

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import psutil

from pbus.errors import (
    AmbiguousProjectError,
    NothingRunningError,
    OrphanedProjectError,
    ProjectRunningError,
)
from pbus.process.project.folders import state_root
from pbus.process.project.project import RECORD, Project
from pbus.process.project.project_lock import is_over, processes_of
from pbus.process.project.record import LAST, ProjectRecord, read_record
from pbus.settings import PROJECT_VARIABLE, STATE_VARIABLE
from pbus.topology.paths import as_named, is_same_place

_TOPOLOGY = "topology.yaml"
_NO_ENVIRON: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger(__name__)


def running_projects() -> list[ProjectRecord]:
    """Return the running projects of this user, by name; stale records are removed."""
    return _running(_state_dirs())


def orphaned_projects() -> list[ProjectRecord]:
    """Return the projects whose supervisor and guard were killed, and whose processes go on."""
    return list(_orphaned(_state_dirs()))


def abandoned_sockets() -> list[Path]:
    """Return the runtime folders of projects that are over: their guard was killed."""
    last = [record for folder in _state_dirs() if (record := read_record(folder / LAST))]
    projects = [Project.of_record(record) for record in last]
    return [one.runtime_dir for one in projects if one.runtime_dir.exists() and is_over(one)]


def running_of(project: Project) -> ProjectRecord | None:
    """Return the record of a project that runs from its file, or None."""
    found = _running([project.state_dir])
    return next((one for one in found if is_same_place(Path(one.file), project.file)), None)


def renamed_of(project: Project) -> ProjectRecord | None:
    """Return the record of a project that runs from the same file by another name, or None."""
    return next(
        (
            one
            for one in running_projects()
            if one.name != project.name
            and one.folder == str(project.folder)
            and one.file == str(project.file)
        ),
        None,
    )


def refuse_other_path(project: Project) -> None:
    """Make sure that a project does not run already by another path to its folder.

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
    """Return the running project for the arguments of a command.

    Args:
        name: As given by the user; the project of this name.
        file: As given by the user; the project of this topology file.
        cwd: The folder whose project is preferred; if it has a topology.yaml, no other is returned.
        environ: Without name and file, a worker's environment gives its own project.

    Raises:
        NothingRunningError: None matches.
        OrphanedProjectError: It has processes, but no supervisor.
        AmbiguousProjectError: Several do.
    """
    if name is not None or file is not None:
        return _choose_running(running_projects(), _state_dirs(), name, file, cwd)
    own = environ.get(PROJECT_VARIABLE)
    if own and (state_dir := environ.get(STATE_VARIABLE)) is not None:
        folders = [Path(state_dir)]
        return _choose_running(_running(folders), folders, own, None, cwd)
    running = running_projects()
    if own or _choose(running, None, None, cwd):
        return _choose_running(running, _state_dirs(), own or None, None, cwd)
    former = _by_former_link(running, cwd, environ.get("PWD"))
    return former or _choose_running(running, _state_dirs(), None, None, cwd)


def _choose_running(
    running: list[ProjectRecord],
    state_dirs: list[Path],
    name: str | None,
    file: Path | None,
    cwd: Path,
) -> ProjectRecord:
    chosen = _choose(running, name, file, cwd)
    if chosen is not None:
        return chosen
    for orphan in _orphaned(state_dirs):
        if _choose([orphan], name, file, cwd):
            pids = sorted(process.pid for process in processes_of(Project.of_record(orphan)))
            raise OrphanedProjectError(orphan.name, orphan, pids)
    raise NothingRunningError(_wanted(name, file, cwd), [record.name for record in running])


def stopped_record(name: str | None, file: Path | None, cwd: Path) -> ProjectRecord | None:
    """Return the record of a project's last run, chosen as by `choose_project`; or None.

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
    """Return the projects whose supervisor and guard were killed, and whose processes go on."""
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
    return _only(matching)


def _only(matching: list[ProjectRecord]) -> ProjectRecord | None:
    if len(matching) > 1:
        raise AmbiguousProjectError([_label(record, matching) for record in matching])
    return matching[0] if matching else None


def _started_from(records: list[ProjectRecord], file: Path) -> list[ProjectRecord]:
    """Return those of a file: by its path as given, else by another path to its folder."""
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
    """Return the project started in this folder by a link that leads elsewhere now.

    The shell still names the folder by the link, and it is still the supervisor's.
    """
    return next((one for one in records if one.folder == named and _runs_in(one, cwd)), None)


def _runs_in(record: ProjectRecord, folder: Path) -> bool:
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
    """Whether a command in this folder means its project, running or not."""
    return os.path.exists(folder / _TOPOLOGY)  # noqa: PTH110 - a folder may be another user's


def _label(record: ProjectRecord, among: list[ProjectRecord]) -> str:
    is_unique = [other.name for other in among].count(record.name) == 1
    return record.name if is_unique else f"{record.name} ({record.file})"
