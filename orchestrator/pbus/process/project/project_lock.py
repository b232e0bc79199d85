"""The lock of a project's supervisor, shared by its guard."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil

from pbus.errors import ProcessError, ProjectRunningError
from pbus.ids import new_token
from pbus.process.project import lock_file
from pbus.process.project.project import Project, no_state
from pbus.process.system.groups import TOKEN_BITS, is_same_process, orphans_with_token
from pbus.process.system.regular_files import opener

CLEANUP_S = 10.0  # a guard needs at most 8 after its supervisor
_POLL_S = 0.05


class ProjectLock:
    """Makes one process the supervisor of a project: ``with`` or ``async with``.

    Args:
        project: The project.
        timeout: Seconds to wait for the guard of a dead supervisor.
        token: Mark of running processes, where the lock file does not have it.
    """

    def __init__(self, project: Project, timeout: float = CLEANUP_S, token: str = "") -> None:
        self._project = project
        self._timeout = timeout
        self._token = token

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            ProjectRunningError: Another supervisor has it.
            ProcessError: The guard of a dead one holds it for too long.
        """
        for _ in self._attempts():
            time.sleep(_POLL_S)
        return self

    def __exit__(self, *exc: object) -> None:
        """Release the lock; the project is free when its guard has released it as well."""
        descriptor, self._project.lock_fd = self._project.lock_fd, None
        if descriptor is not None:
            self._project.clear()
            with contextlib.suppress(OSError):
                lock_file.write_free(descriptor)
            # Closed, not unlocked: unlocking would take it from the guard, too.
            os.close(descriptor)

    async def __aenter__(self) -> Self:
        """Take the lock without blocking the loop."""
        for _ in self._attempts():
            await asyncio.sleep(_POLL_S)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Release the lock."""
        self.__exit__(*exc)

    def _attempts(self) -> Iterator[None]:
        """Yield before each further attempt; end when the lock is held."""
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
            return opener(lock_path(self._project), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise no_state(self._project, error) from error

    def _has_locked(self, descriptor: int) -> bool:
        return lock_file.try_lock(descriptor) and _is_same(lock_path(self._project), descriptor)

    def _refuse_if_running(self, descriptor: int, *, is_last: bool) -> None:
        pid, started, _ = lock_file.read_holder(descriptor)
        if is_same_process(pid, started):
            raise ProjectRunningError(self._project.name, self._project.folder, pid)
        if is_last:
            raise ProcessError(
                f"project {self._project.name!r} in {self._project.folder} is still being cleaned"
                f" up after its last run (pid {pid})",
                hint="try again in some seconds",
            )


def token_of(project: Project) -> str:
    """Return the secret mark of a project's processes; "" before its first run."""
    if project.lock_fd is not None:  # its folder may have been removed under us
        return lock_file.read_holder(project.lock_fd).token
    return lock_file.read_token(lock_path(project))


def processes_of(project: Project) -> list[psutil.Process]:
    """Return a project's live processes, apart from its supervisor and its guard."""
    return orphans_with_token(token_of(project))


def is_over(project: Project) -> bool:
    """Whether neither a supervisor nor its guard holds the project.

    If so, its record is removed, unless it leads to processes that have to be ended.
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
    """Whether the lock of this process is on disk: the state folder may be removed."""
    return project.lock_fd is not None and _is_same(lock_path(project), project.lock_fd)


def hold_again(project: Project) -> None:
    """Take the lock again after the state folder was removed.

    Raises:
        ProjectRunningError: Another supervisor has it.
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
