"""The embedded Postgres: a server that belongs to one project and listens on a socket only."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pbus.process.project.project import Project
from pbus.process.services import postgres_cluster
from pbus.process.services.embedded_server import POLL_S, EmbeddedServer
from pbus.process.services.guard_client import GuardClient
from pbus.process.system import safe_files

START_S = 30.0  # after kill -9 it reads its log first
_SERVICE_HOME = Path("/var/lib/pbus")  # for root: its server's user cannot enter root's home
_STATUS_LINE = 7  # of postmaster.pid
_SOCKET = ".s.PGSQL.5432"
# A server that was killed takes a moment to end, and its children notice that a little later.
_IN_USE = ("already exists", "pre-existing shared memory block")


class EmbeddedPostgres(EmbeddedServer):
    """Starts and stops the project's own Postgres; its data outlive it."""

    name = postgres_cluster.NAME
    stop_signal = abort_signal = signal.SIGINT  # "fast": clients are disconnected

    def __init__(self, project: Project, guard: GuardClient) -> None:
        super().__init__(project, guard, start_s=START_S)
        self._programs: Path

    @property
    def url(self) -> str:
        """The URL for `pbus.connect`."""
        host = quote(str(self.socket_path.parent), safe="")
        return f"postgresql://{postgres_cluster.ROLE}@/postgres?host={host}"

    @property
    def home(self) -> Path:
        """The folder of the server's user."""
        return home_of(self._project)

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.home / "data"

    @property
    def socket_path(self) -> Path:
        """The socket; in a short folder, since socket paths are limited."""
        is_ours = postgres_cluster.service_user() is None
        return (self._project.runtime_dir if is_ours else self.home) / _SOCKET

    def _prepare(self) -> None:
        super()._prepare()
        if postgres_cluster.service_user() is None:
            self._project.make_runtime_dir()
        else:
            _SERVICE_HOME.mkdir(parents=True, exist_ok=True)
            _SERVICE_HOME.chmod(0o755)  # whatever our umask is: the server's user has to pass
        postgres_cluster.own(self.home)
        self._programs = postgres_cluster.programs_for_service(self.home)
        if not self.data.exists():
            fresh = self.home / "fresh"  # an unfinished one is made again
            postgres_cluster.remove(fresh)
            postgres_cluster.init_cluster(self._programs, fresh)
            fresh.rename(self.data)

    def _command(self) -> tuple[str, ...]:
        return postgres_cluster.server_arguments(self._programs, self.data, self.socket_path.parent)

    def _process_options(self) -> dict[str, Any]:
        return {**postgres_cluster.user_options(), "cwd": self.home}

    def _socket_files(self) -> tuple[Path, ...]:
        return (self.socket_path, self.socket_path.with_name(f"{_SOCKET}.lock"))

    async def _bring_up(self) -> None:
        """Launch the server, again while one before it has not quite ended."""
        while True:
            postgres_cluster.forget_dead_server(self.data, self._socket_files()[1])
            log_start = self._log_size()
            try:
                await super()._bring_up()
            except EOFError:
                said = "\n".join(self._log_lines(log_start))
                if not any(text in said for text in _IN_USE):
                    raise
            else:
                return
            await self.stop()
            await asyncio.sleep(POLL_S)

    async def _is_ready(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            lines = safe_files.read(self.data, postgres_cluster.PID_FILE).split("\n")
            is_ours = lines[0] == str(pid)  # else it was left by a kill -9
            return is_ours and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"
        return False


def home_of(project: Project) -> Path:
    """Return the folder of a project's Postgres.

    Raises:
        BrokerStartError: This is root, and there is no user that the server could run as.
    """
    if postgres_cluster.service_user() is None:
        return project.state_dir / "postgres"
    return _SERVICE_HOME / project.runtime_dir.name


def remove_service_home() -> None:
    """Remove the folder of all servers that root has started, if it is empty."""
    with contextlib.suppress(OSError):
        _SERVICE_HOME.rmdir()
