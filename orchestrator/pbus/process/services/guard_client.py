"""The supervisor's side of the guard: start it before all else, tell it whom to end."""

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from pbus.errors import ProcessError
from pbus.ids import new_token
from pbus.process.project.project import CLEANUP_S, Project, token_of
from pbus.process.system.groups import (
    SERVER_TOKEN_VARIABLE,
    TOKEN_BITS,
    TOKEN_VARIABLE,
    end_all,
    start_time,
)

START_S = 10.0  # a fresh interpreter on a loaded machine

_MARKS = (TOKEN_VARIABLE, SERVER_TOKEN_VARIABLE)

logger = logging.getLogger(__name__)


class GuardClient:
    """Ends everything that it was told of when this process is gone, however it goes.

    Should the guard itself die, `start` it again: it is told once more of all there is.
    """

    def __init__(self) -> None:
        self._project: Project | None = None
        self._token = ""
        self._process: asyncio.subprocess.Process | None = None
        self._groups: dict[int, float | None] = {}
        self._paths: dict[Path, None] = {}

    @property
    def pid(self) -> int | None:
        """Of the guard program, once started."""
        return self._process.pid if self._process else None

    @property
    def token(self) -> str:
        """Goes into the environment of every child (TOKEN_VARIABLE): by it strays are found."""
        return self._token

    async def start(self, project: Project) -> None:
        """Start the guard program, and end what a killed supervisor and its killed guard left.

        Raises:
            ProcessError: It does not start.
        """
        is_first = self._project is None  # else the project's processes are our own
        self._project = project
        project.make_state_dir()
        self._token = token_of(project) or self._token or new_token(TOKEN_BITS)
        if is_first and project.lock_fd is not None:
            await _end_leftovers(project)
        self._process = await self._launch(project)
        self._tell(f"token {self._token}")
        for group, born in self._groups.items():
            self._tell_group(group, born)
        # The record last: whoever still sees it may wait for the rest to be gone.
        for path in (*self._paths, project.runtime_dir, project.record_path):
            self._tell_path(path)

    def add_group(self, group: int) -> None:
        """Have a process group ended."""
        self._groups[group] = start_time(group)
        self._tell_group(group, self._groups[group])

    def remove_group(self, group: int) -> None:
        """A group is empty; its number may come to belong to strangers."""
        if group in self._groups:
            del self._groups[group]
            self._tell(f"forget {group}")

    def add_path(self, path: Path) -> None:
        """Have a file, a socket or a folder removed."""
        self._paths[path] = None
        self._tell_path(path)

    async def wait_died(self) -> int:
        """Wait until the guard program ended, and return its exit code."""
        if self._process is None:
            raise ProcessError("the guard was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Let the guard end what is left, clean up and go; returns when it has."""
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), CLEANUP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        if process.returncode:
            logger.error("the guard did not end cleanly, exit code %d", process.returncode)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()

    async def _launch(self, project: Project) -> asyncio.subprocess.Process:
        environ = {k: v for k, v in os.environ.items() if k not in _MARKS}
        with project.service_log_path("guard").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "pbus.process.system.guard", str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environ,  # no guard ends another one
                start_new_session=True,  # out of reach of Ctrl-C and of signals to our group
                pass_fds=() if project.lock_fd is None else (project.lock_fd,),
            )
        try:
            await asyncio.wait_for(_wait_ready(process), START_S)
        except BaseException as error:
            await _end(process)
            if not isinstance(error, TimeoutError | EOFError):
                raise
            raise ProcessError(
                "the guard program does not start", hint=f"see {project.service_log_path('guard')}"
            ) from error
        return process

    def _tell_group(self, group: int, born: float | None) -> None:
        self._tell(f"group {group}" if born is None else f"group {group} {born}")

    def _tell_path(self, path: Path) -> None:
        # In hex, for a path may hold any byte but zero.
        self._tell(f"path {os.fsencode(path).hex()}")

    def _tell(self, line: str) -> None:
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(f"{line}\n".encode())


async def _wait_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for above
    if await process.stdout.readline() != b"ready\n":
        raise EOFError


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a guard that is not needed, and wait until it is no child any more."""
    if process.returncode is None:
        process.kill()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), CLEANUP_S)


async def _end_leftovers(project: Project) -> None:
    # Nobody else can hold the lock, so whoever carries the project's token is an orphan.
    left = await asyncio.to_thread(end_all, {}, token_of(project), grace_s=2.0, kill_s=2.0)
    if left:
        raise ProcessError(
            f"processes of the last run of project {project.name!r} do not end: {left}"
        )
