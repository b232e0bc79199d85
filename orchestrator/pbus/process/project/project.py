"""A project (a topology's name and folder): its places, the lock of its supervisor, its record."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import psutil

from pbus.errors import ProcessError, ProjectRunningError
from pbus.ids import new_token
from pbus.process.project import lock_file
from pbus.process.project.folders import (
    MAX_SOCKET_PATH,
    folder_id,
    make_private,
    refuse_foreign_path,
    runtime_roots,
    state_root,
)
from pbus.process.project.record import ProjectRecord, read_record, write_record
from pbus.process.system.groups import TOKEN_BITS, is_same_process, orphans_with_token
from pbus.topology.model import Topology

RECORD = "project.json"
CLEANUP_S = 10.0  # a guard needs at most 8 after its supervisor

_LONGEST_NAME = "valkey.sock"  # of what goes into a runtime folder
_POLL_S = 0.05


@dataclass
class Project:
    """Where a topology keeps its state and its sockets on this machine.

    Attributes:
        lock_fd: The locked file while this process holds the project's lock. The guard holds it
            too, so that the project counts as running until the guard has cleaned up.
    """

    name: str
    folder: Path
    file: Path
    lock_fd: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, topology: Topology) -> Self:
        """The project of a topology."""
        return cls(topology.name, topology.folder, topology.file)

    @classmethod
    def of_record(cls, record: ProjectRecord) -> Self:
        """The project that a record speaks of."""
        project = cls(record.name, Path(record.folder), Path(record.file))
        if record.state:  # else it would be looked for where this process keeps its state
            project.state_dir = Path(record.state)
        return project

    @functools.cached_property
    def id(self) -> str:
        """Unique among the projects of this user's state folder, and the same at every start."""
        return folder_id(self.name, str(self.folder))

    @functools.cached_property
    def state_dir(self) -> Path:
        """Logs, lock and record; stays."""
        return state_root() / self.id

    @functools.cached_property
    def runtime_dir(self) -> Path:
        """Sockets; short, since their paths are limited, and removed at every end."""
        # By the state folder: who keeps state elsewhere is another project and shares no socket.
        short = folder_id(self.name, str(self.state_dir), width=16)
        folders = [root / short for root in runtime_roots()]
        return next((folder for folder in folders if _fits(folder)), folders[-1])

    @property
    def record_path(self) -> Path:
        """Where the record is while the project runs."""
        return self.state_dir / RECORD

    def log_path(self, worker: str) -> Path:
        """The log of a worker."""
        return self.state_dir / "logs" / "workers" / f"{worker}.log"

    def service_log_path(self, service: str) -> Path:
        """The log of a part of pbus (supervisor, guard, valkey), apart from those of workers."""
        return self.state_dir / "logs" / f"{service}.log"

    def log_paths(self) -> dict[str, Path]:
        """The logs of all workers that ever wrote one, by worker."""
        return {path.stem: path for path in sorted(self.log_path("x").parent.glob("*.log"))}

    def make_state_dir(self) -> None:
        """Create the state folder for this user alone.

        Raises:
            ProcessError: It cannot be created.
        """
        root = self.state_dir.parent
        try:
            refuse_foreign_path(root)
            root.parent.mkdir(parents=True, exist_ok=True)
            make_private(root)
            make_private(self.state_dir)
            (self.state_dir / "logs" / "workers").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_state(self, error) from error

    def make_runtime_dir(self) -> None:
        """Create the runtime folder for this user alone; `/tmp` is everybody's.

        Raises:
            ProcessError: It cannot be created, or belongs to somebody else.
        """
        with contextlib.suppress(OSError):  # a logout removes it, too; the next login makes it
            self.runtime_dir.parent.parent.mkdir(mode=0o700)
        make_private(self.runtime_dir.parent)
        make_private(self.runtime_dir)

    def lock(self, timeout: float = CLEANUP_S) -> "ProjectLock":
        """Hold the project, as its one supervisor: ``with`` or ``async with project.lock():``.

        Args:
            timeout: How long to wait for the guard of a supervisor that is dead already.
        """
        return ProjectLock(self, timeout)

    def write_record(self, record: ProjectRecord) -> None:
        """Publish the record; a reader sees the old one or the new one, never half of one."""
        stated = msgspec.structs.replace(record, state=str(self.state_dir))
        write_record(self.record_path, stated)

    def read_record(self) -> ProjectRecord | None:
        """The record as it lies there; whether it is true only the lock and the pid can tell."""
        return read_record(self.record_path)

    def clear(self) -> None:
        """Withdraw the record; where the folder is read-only now it stays, and nobody believes it."""
        with contextlib.suppress(OSError):
            self.record_path.unlink()


class ProjectLock:
    """Makes one process the supervisor of a project, across terminals and crashes."""

    def __init__(self, project: Project, timeout: float, token: str = "") -> None:
        self._project = project
        self._timeout = timeout
        self._token = token  # of those that run already, should the file not know it

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            ProjectRunningError: Another supervisor has it.
            ProcessError: The guard of a dead one has it for too long.
        """
        for _ in self._attempts():
            time.sleep(_POLL_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go; the project is free when its guard has let go as well."""
        descriptor, self._project.lock_fd = self._project.lock_fd, None
        if descriptor is not None:
            self._project.clear()
            with contextlib.suppress(OSError):
                lock_file.write_free(descriptor)
            # Closed, not unlocked: unlocking would take it from the guard, too.
            os.close(descriptor)

    async def __aenter__(self) -> Self:
        """As ``with``, but waits without blocking the loop."""
        for _ in self._attempts():
            await asyncio.sleep(_POLL_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go."""
        self.__exit__(kind, error, traceback)

    def _attempts(self) -> Iterator[None]:
        """Yields when it is to be tried again a little later, ends when the lock is held."""
        deadline = time.monotonic() + self._timeout
        descriptor = self._open()
        try:
            while not self._has_locked(descriptor):
                self._refuse_if_running(descriptor, is_last=time.monotonic() >= deadline)
                yield
                if not _is_same(lock_path(self._project), descriptor):  # a purge removed it
                    os.close(descriptor)
                    descriptor = self._open()
            known = lock_file.read_holder(descriptor).token
            lock_file.write_holder(descriptor, self._token or known or new_token(TOKEN_BITS))
        except BaseException:
            os.close(descriptor)
            raise
        self._project.lock_fd = descriptor
        self._project.clear()  # of a supervisor that was killed together with its guard

    def _open(self) -> int:
        self._project.make_state_dir()
        try:
            return os.open(lock_path(self._project), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _no_state(self._project, error) from error

    def _has_locked(self, descriptor: int) -> bool:
        return lock_file.try_lock(descriptor) and _is_same(lock_path(self._project), descriptor)

    def _refuse_if_running(self, descriptor: int, *, is_last: bool) -> None:
        pid, born, _ = lock_file.read_holder(descriptor)
        if is_same_process(pid, born):
            raise ProjectRunningError(self._project.name, self._project.folder, pid)
        if is_last:
            raise ProcessError(
                f"project {self._project.name!r} in {self._project.folder} is still being cleaned"
                f" up after its last run (pid {pid})",
                hint="try again in some seconds",
            )


def token_of(project: Project) -> str:
    """The secret mark of all that was started for a project; "" before its first run."""
    if project.lock_fd is not None:  # its folder may have been removed under us
        return lock_file.read_holder(project.lock_fd).token
    return lock_file.read_token(lock_path(project))


def processes_of(project: Project) -> list[psutil.Process]:
    """All that lives of a project, apart from its supervisor and its guard."""
    return orphans_with_token(token_of(project))


def is_over(project: Project) -> bool:
    """Whether neither a supervisor nor its guard holds the project.

    If so, no record stays, unless it leads to processes that somebody has to end.
    """
    try:
        descriptor = lock_file.open_lock(lock_path(project))
    except OSError:  # no state folder: it never ran; or not this user's
        return True
    try:
        is_free = lock_file.try_lock(descriptor)
        if is_free and project.record_path.exists() and not processes_of(project):
            project.clear()
        return is_free
    finally:
        os.close(descriptor)


def is_held(project: Project) -> bool:
    """Whether others can see that this process holds the lock: the state folder may be removed."""
    return project.lock_fd is not None and _is_same(lock_path(project), project.lock_fd)


def hold_again(project: Project) -> None:
    """Take the lock anew where the state folder was removed under it.

    Raises:
        ProjectRunningError: Somebody was quicker.
        ProcessError: The folder cannot be made.
    """
    token = token_of(project)
    before, project.lock_fd = project.lock_fd, None
    try:
        ProjectLock(project, 0.0, token).__enter__()
    except BaseException:
        project.lock_fd = before
        raise
    if before is not None:
        os.close(before)


def lock_path(project: Project) -> Path:
    """The lock file."""
    # It stays when the project ends: two processes could lock two files of one name.
    return project.state_dir / "lock"


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _no_state(project: Project, error: OSError) -> ProcessError:
    return ProcessError(
        f"cannot write to the state folder {project.state_dir}: {error.strerror}",
        hint="set XDG_STATE_HOME to a folder that you can write to",
    )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _LONGEST_NAME)) <= MAX_SOCKET_PATH
