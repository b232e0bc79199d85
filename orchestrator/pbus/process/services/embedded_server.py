"""A server that belongs to one project: its process, environment and log."""

import abc
import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pbus.errors import BrokerStartError
from pbus.process.project.project import Project
from pbus.process.services.guard_client import GuardClient
from pbus.process.system import groups
from pbus.process.system.groups import SERVER_TOKEN_VARIABLE
from pbus.process.system.regular_files import opener

STOP_S = 5.0
POLL_S = 0.02
_SHOWN_LINES = 5
_MAX_LOG_BYTES = 10 * 1024 * 1024

# LD_LIBRARY_PATH: where the C library is in an unusual place. XDG_: which home a process belongs to.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


class EmbeddedServer(abc.ABC):
    """Starts and stops a server that listens on a socket only.

    Args:
        project: Its project.
        guard: Ends it when this process cannot.

    Attributes:
        name: For messages.
        stop_signal: Ends the server in order.
        abort_signal: Ends a server whose start was given up.
        start_s: Seconds until it has to answer.
        process: The running server.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    abort_signal: ClassVar[signal.Signals]

    def __init__(self, project: Project, guard: GuardClient, *, start_s: float) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.start_s = start_s
        self._project = project
        self._guard = guard

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The URL for `pbus.connect`."""

    @property
    @abc.abstractmethod
    def socket_path(self) -> Path:
        """The socket."""

    @property
    def is_listening(self) -> bool:
        """Whether the socket is there; a running server cannot make another one."""
        return self.socket_path.is_socket()

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._project.service_log_path(self.name.lower())

    async def start(self) -> str:
        """Start the server, again if it had ended, and wait until it answers.

        Returns:
            Its URL.

        Raises:
            BrokerStartError: It does not start, or is not installed.
            ProcessError: There is no safe place for its socket.
        """
        await self.stop()  # the rest of the one before
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise BrokerStartError(self.name, str(error)) from error
        for path in self._socket_files():
            self._guard.add_path(path)
        log_start = self._log_size()
        try:
            async with asyncio.timeout(self.start_s):
                await self._bring_up()
        except EOFError:
            code = await self.wait()
            await self.stop()
            raise self._failure(f"it exited with code {code}", log_start) from None
        except TimeoutError:
            await self.stop()
            raise self._failure(f"no answer within {self.start_s:g} s", log_start) from None
        except BaseException:
            await self._end(self.abort_signal)
            raise
        return self.url

    async def wait(self) -> int:
        """Wait until the server ended, and return its exit code."""
        if self.process is None:
            raise BrokerStartError(self.name, "start() was not called")
        return await self.process.wait()

    async def stop(self) -> None:
        """Stop the server, its data safe on disk. Idempotent."""
        await self._end(self.stop_signal)

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Make folders and files; runs in a thread, may raise OSError."""
        # The server holds its log open, so it can only be changed between two servers.
        if self._log_size() > _MAX_LOG_BYTES:
            self.log_path.replace(f"{self.log_path}.1")

    @abc.abstractmethod
    def _command(self) -> tuple[str, ...]:
        """The command line."""

    @abc.abstractmethod
    async def _is_ready(self, pid: int) -> bool:
        """Whether the server answers."""

    def _socket_files(self) -> tuple[Path, ...]:
        """The files that the guard removes when nothing else can."""
        return (self.socket_path,)

    def _process_options(self) -> dict[str, Any]:
        """More arguments of the process: user, folder."""
        return {}

    async def _bring_up(self) -> None:
        """Launch the server and wait until it answers.

        Raises:
            EOFError: It ended.
        """
        self.process = process = await self._launch()
        self._guard.add_group(process.pid)
        while not await self._is_ready(process.pid):
            if process.returncode is not None:
                raise EOFError
            await asyncio.sleep(POLL_S)

    async def _launch(self) -> asyncio.subprocess.Process:
        try:
            with open(self.log_path, "ab", opener=opener) as log:  # noqa: ASYNC230 - Path.open() takes no opener
                return await asyncio.create_subprocess_exec(
                    *self._command(),
                    **self._process_options(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    env=server_environ(self._guard.token),
                    start_new_session=True,
                )
        except OSError as error:
            raise BrokerStartError(self.name, str(error)) from error

    async def _end(self, number: signal.Signals) -> None:
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            groups.send_signal(process.pid, signal.SIGKILL)
            await process.wait()
        self._guard.remove_group(process.pid)
        self.process = None

    def _failure(self, reason: str, log_start: int) -> BrokerStartError:
        shown = "".join(f"\n  {line}" for line in self._log_lines(log_start)[-_SHOWN_LINES:])
        return BrokerStartError(self.name, f"{reason} (log: {self.log_path}){shown}")

    def _log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def _log_lines(self, start: int) -> list[str]:
        with open(self.log_path, "rb", opener=opener) as log:
            log.seek(start)
            return log.read(_MAX_LOG_BYTES).decode(errors="replace").splitlines()


def server_environ(token: str | None = None) -> dict[str, str]:
    """Return the environment of a server: variables meant for other programs do not reach it.

    Postgres reads PGDATA, PGPORT, PGTZ and more; a locale or time zone that the machine does not
    have keeps both servers from starting.

    Args:
        token: Marks the process as the project's, for the guard.
    """
    environ: Mapping[str, str] = os.environ
    inherited = {name: environ[name] for name in _INHERITED if name in environ}
    mark = {} if token is None else {SERVER_TOKEN_VARIABLE: token}
    return {"PATH": os.defpath, **inherited, "LC_ALL": "C", "TZ": "UTC", **mark}
