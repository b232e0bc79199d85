"""Removal of an ended project's data in its broker and of its files."""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pbus.bus.connect import erase, make_bus
from pbus.errors import BrokerStartError, NothingRunningError, ProcessError, StrangeFileError
from pbus.leases import LEASE_S
from pbus.process.project.discovery import stopped_record
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock, lock_path
from pbus.process.project.record import LAST, ProjectRecord, ran_with, read_record
from pbus.process.project.recovery_log import RecoveryLog
from pbus.process.services import postgres
from pbus.process.system.guard import remove
from pbus.settings import PROJECT_VARIABLE, BusSettings
from pbus.topology.load import load_topology
from pbus.urls import mask_url

_QUIET_S = LEASE_S + 2.0  # the leases of a killed process have expired by then
_POLL_S = 0.2
_TOPOLOGY = "topology.yaml"


class Leftovers(msgspec.Struct, frozen=True):
    """The data of a project.

    Attributes:
        bus: How its processes reached each other; `url` is None for a broker of its own.
    """

    project: Project
    bus: BusSettings


def leftovers_of(record: ProjectRecord, environ: Mapping[str, str]) -> Leftovers:
    """Return the data of the project of a record.

    Args:
        record: Of the running project, or of the last run.
        environ: For the topology, should it be needed to find the broker.

    Raises:
        TopologyError: The topology is needed and cannot be read.
    """
    project = Project.of_record(record)
    last = read_record(project.state_dir / LAST)
    if last is not None and not last.bus.url:
        return Leftovers(project, last.bus)
    if not record.session:  # of the last run: its URL is there without its password
        return Leftovers(project, load_topology(record.files, environ).bus)
    return Leftovers(project, record.bus)


def stopped_leftovers(
    name: str | None, files: Sequence[Path], cwd: Path, environ: Mapping[str, str]
) -> Leftovers:
    """Return the data of a project that does not run, chosen as by `choose_project`.

    Raises:
        NothingRunningError: There is no such project.
        StrangeFileError: There is a file that the user has not named and not started with its broker.
        AmbiguousProjectError: There are several.
        TopologyError: The topology is needed and cannot be read.
    """
    file = next(iter(files), None)
    if name is None and file is None:  # a worker's own project
        name = environ.get(PROJECT_VARIABLE) or None
    record = stopped_record(name, file, cwd)
    if record is not None:
        path, left = Path(record.file), leftovers_of(record, environ)
    else:
        paths = [cwd / one for one in files or (_TOPOLOGY,)]
        path, left = paths[0], _leftovers_of_files(name, paths, environ)
    url = left.bus.url
    if file is None and url is not None and not ran_with(left.project.state_dir, url):
        raise StrangeFileError(path, mask_url(url))
    return left


def _leftovers_of_files(
    name: str | None, files: Sequence[Path], environ: Mapping[str, str]
) -> Leftovers:
    if name is not None or not files[0].exists():
        what = f"is named {name!r}" if name is not None else "was found"
        raise NothingRunningError(f"{what}, and none has left anything")
    topology = load_topology(files, environ)
    return Leftovers(Project.of(topology), topology.bus)


async def purge(left: Leftovers) -> bool:
    """Remove messages, registry, files and logs.

    Returns:
        Whether all of it is gone; False where others use the channel of a shared broker, so that
        only the messages stored for this project's workers were removed from there.

    Raises:
        ProjectRunningError: The project runs.
        BusUnavailableError: The broker is not reached. Nothing was removed then.
        ProcessError: Files cannot be removed.
    """
    project = left.project
    async with ProjectLock(project):
        is_whole = left.bus.url is None or await _purge_broker(left)
        await asyncio.to_thread(_remove_files, project)
    return is_whole


async def _purge_broker(left: Leftovers) -> bool:
    deadline = time.monotonic() + _QUIET_S
    while not await erase(left.bus.url or "", left.bus.channel):
        if time.monotonic() >= deadline:
            await _purge_queues(left)
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def _purge_queues(left: Leftovers) -> None:
    bus = make_bus(left.bus)
    if (store := bus.queues) is None:
        return
    async with bus:
        for name in RecoveryLog(left.project.state_dir).queues():
            await store.purge(name, remove=True)


def _remove_files(project: Project) -> None:
    """Remove files and folders, the lock last: a process that waits for it checks that it exists."""
    folders = [project.runtime_dir]
    with contextlib.suppress(BrokerStartError):  # there is no user for it, so it never ran
        folders.append(postgres.home_of(project))
    for folder in folders:
        remove(folder)
    postgres.remove_service_home()
    for entry in project.state_dir.iterdir():
        if entry != lock_path(project):
            remove(entry)
    left = {path for path in folders if os.path.lexists(path)} | {*project.state_dir.iterdir()}
    if left := left - {lock_path(project)}:
        raise ProcessError(f"cannot remove {', '.join(map(str, left))}")
    remove(project.state_dir)
