"""The supervisor's side of the guard: starts it first, registers process groups and files."""

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from pbus.errors import ProcessError
from pbus.ids import new_token
from pbus.process.project.project import Project
from pbus.process.project.project_lock import CLEANUP_S, token_of
from pbus.process.system.groups import (
    SERVER_TOKEN_VARIABLE,
    TOKEN_BITS,
    TOKEN_VARIABLE,
    end_all,
    start_time,
)
from pbus.process.system.regular_files import opener

START_S = 10.0  # a fresh interpreter on a loaded machine

_MARKS = (TOKEN_VARIABLE, SERVER_TOKEN_VARIABLE)

logger = logging.getLogger(__name__)


class GuardClient:
    """Has process groups ended and files removed when this process is gone, however it ends.

    Should the guard itself die, `start` it again: everything is registered again.
    """

    def __init__(self) -> None:
        self._project: Project | None = None
        self._token = ""
        self._process: asyncio.subprocess.Process | None = None
        self._groups: dict[int, float | None] = {}
        self._paths: dict[Path, None] = {}

    @property
    def pid(self) -> int | None:
        """The guard program's pid, once started."""
        return self._process.pid if self._process else None

    @property
    def token(self) -> str:
        """The value of TOKEN_VARIABLE in every child: orphans are found by it."""
        return self._token

    async def start(self, project: Project) -> None:
        """Start the guard program, and end the leftovers of a killed supervisor and its killed guard.

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
        self._send(f"token {self._token}")
        for group, started in self._groups.items():
            self._send_group(group, started)
        # The record last: a process that still finds it may wait for the rest to be gone.
        for path in (*self._paths, project.runtime_dir, project.record_path):
            self._send_path(path)

    def add_group(self, group: int) -> None:
        """Register a process group to be ended."""
        self._groups[group] = start_time(group)
        self._send_group(group, self._groups[group])

    def remove_group(self, group: int) -> None:
        """Unregister an empty group: its number may be taken by another program."""
        if group in self._groups:
            del self._groups[group]
            self._send(f"forget {group}")

    def add_path(self, path: Path) -> None:
        """Register a file, a socket or a folder to be removed."""
        self._paths[path] = None
        self._send_path(path)

    async def wait_died(self) -> int:
        """Wait until the guard program ended, and return its exit code."""
        if self._process is None:
            raise ProcessError("the guard was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Let the guard end what is left and clean up; returns when it has ended."""
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
        with open(project.service_log_path("guard"), "ab", opener=opener) as log:  # noqa: ASYNC230 - Path.open() takes no opener
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

    def _send_group(self, group: int, started: float | None) -> None:
        self._send(f"group {group}" if started is None else f"group {group} {started}")

    def _send_path(self, path: Path) -> None:
        # In hex, for a path may hold any byte but zero.
        self._send(f"path {os.fsencode(path).hex()}")

    def _send(self, line: str) -> None:
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(f"{line}\n".encode())


async def _wait_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for above
    if await process.stdout.readline() != b"ready\n":
        raise EOFError


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a guard that is not needed, and reap it."""
    if process.returncode is None:
        process.kill()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), CLEANUP_S)


async def _end_leftovers(project: Project) -> None:
    # This process holds the lock, so every process with the project's token is an orphan.
    left = await asyncio.to_thread(end_all, {}, token_of(project), grace_s=2.0, kill_s=2.0)
    if left:
        raise ProcessError(
            f"processes of the last run of project {project.name!r} do not end: {left}"
        )
