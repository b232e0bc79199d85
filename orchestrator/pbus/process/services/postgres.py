"""The embedded Postgres: a server that belongs to one project and listens on a socket only."""

import asyncio
import contextlib
import signal
from pathlib import Path
from urllib.parse import quote

from pbus.errors import BrokerStartError
from pbus.process.project.project import Project
from pbus.process.services import postgres_cluster
from pbus.process.services.embedded_server import server_environ
from pbus.process.services.guard_client import GuardClient
from pbus.process.system import groups, safe_files

START_S = 30.0  # after kill -9 it reads its log first
STOP_S = 5.0
_POLL_S = 0.02
_SHOWN_LINES = 5
_MAX_LOG_BYTES = 10 * 1024 * 1024
_SERVICE_HOME = Path("/var/lib/pbus")  # for root: its server's user cannot enter root's home
_STATUS_LINE = 7  # of postmaster.pid
_SOCKET = ".s.PGSQL.5432"
# A server that was killed takes a moment to end, and its children notice that a little later.
_IN_USE = ("already exists", "pre-existing shared memory block")


class EmbeddedPostgres:
    """Starts and ends the project's own server; what it stored outlives it."""

    def __init__(self, project: Project, guard: GuardClient) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self._project = project
        self._guard = guard

    @property
    def home(self) -> Path:
        """What belongs to the server's user."""
        return home_of(self._project)

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.home / "data"

    @property
    def sockets(self) -> Path:
        """The folder of its socket; short, since socket paths are limited."""
        return self._project.runtime_dir if postgres_cluster.service_user() is None else self.home

    @property
    def is_listening(self) -> bool:
        """Whether its socket is there; it cannot make another one while it runs."""
        return (self.sockets / _SOCKET).is_socket()

    @property
    def log_path(self) -> Path:
        """What it writes."""
        return self._project.service_log_path("postgres")

    @property
    def url(self) -> str:
        """For `pbus.connect`."""
        return f"postgresql://{postgres_cluster.ROLE}@/postgres?host={quote(str(self.sockets), safe='')}"

    async def start(self) -> str:
        """Start the server, again if it had ended, and wait until it answers.

        Returns:
            Its URL.

        Raises:
            BrokerStartError: It does not start, or is not installed.
        """
        await self.stop()  # what is left of the one before
        try:
            programs = await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise BrokerStartError(postgres_cluster.NAME, str(error)) from error
        self._guard.add_path(self.sockets / _SOCKET)
        self._guard.add_path(self.sockets / f"{_SOCKET}.lock")
        log_start = self._log_size()
        try:
            async with asyncio.timeout(START_S):
                while not await self._comes_up(programs):  # noqa: ASYNC110 - nobody tells us
                    await asyncio.sleep(_POLL_S)
        except EOFError:
            code = await self.wait()
            await self.stop()
            raise self._failure(f"it exited with code {code}", log_start) from None
        except TimeoutError:
            await self.stop()
            raise self._failure(f"no answer within {START_S:g} s", log_start) from None
        except BaseException:
            await self.stop()
            raise
        return self.url

    async def wait(self) -> int:
        """Wait until the server ended, and return its exit code."""
        if self.process is None:
            raise BrokerStartError(postgres_cluster.NAME, "start() was not called")
        return await self.process.wait()

    async def stop(self) -> None:
        """End the server, its data safe on disk; may be called at any time."""
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # "fast": clients are cut off
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            groups.send_signal(process.pid, signal.SIGKILL)
            await process.wait()
        self._guard.remove_group(process.pid)
        self.process = None

    def _prepare(self) -> Path:
        if postgres_cluster.service_user() is None:
            self._project.make_runtime_dir()
        else:
            _SERVICE_HOME.mkdir(parents=True, exist_ok=True)
            _SERVICE_HOME.chmod(0o755)  # whatever our umask is: the server's user has to pass
        postgres_cluster.own(self.home)
        programs = postgres_cluster.programs_for_service(self.home)
        if not self.data.exists():
            fresh = self.home / "fresh"  # what was begun and not finished is begun anew
            postgres_cluster.remove(fresh)
            postgres_cluster.init_cluster(programs, fresh)
            fresh.rename(self.data)
        if self._log_size() > _MAX_LOG_BYTES:
            self.log_path.replace(f"{self.log_path}.1")
        return programs

    async def _comes_up(self, programs: Path) -> bool:
        """Launch the server and wait until it answers; False: one before it is not quite gone."""
        postgres_cluster.forget_dead_server(self.data, self.sockets / f"{_SOCKET}.lock")
        log_start = self._log_size()
        self.process = await self._launch(programs)
        self._guard.add_group(self.process.pid)
        try:
            await self._wait_ready(self.process)
        except EOFError:
            said = "\n".join(self._log_lines(log_start))
            if not any(text in said for text in _IN_USE):
                raise
            await self.stop()
            return False
        return True

    async def _launch(self, programs: Path) -> asyncio.subprocess.Process:
        try:
            with self.log_path.open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    *postgres_cluster.server_arguments(programs, self.data, self.sockets),
                    user=postgres_cluster.service_user(),
                    group=postgres_cluster.service_group(),
                    extra_groups=None if postgres_cluster.service_user() is None else [],
                    cwd=self.home,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    env=server_environ(self._guard.token),
                    start_new_session=True,
                )
        except OSError as error:
            raise BrokerStartError(postgres_cluster.NAME, str(error)) from error

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        while not self._is_ready(process.pid):
            if process.returncode is not None:
                raise EOFError
            await asyncio.sleep(_POLL_S)

    def _is_ready(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            lines = safe_files.read(self.data, postgres_cluster.PID_FILE).split("\n")
            is_ours = lines[0] == str(pid)  # else it lies there since a kill -9
            return is_ours and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"
        return False

    def _failure(self, reason: str, log_start: int) -> BrokerStartError:
        shown = "".join(f"\n  {line}" for line in self._log_lines(log_start)[-_SHOWN_LINES:])
        return BrokerStartError(postgres_cluster.NAME, f"{reason} (log: {self.log_path}){shown}")

    def _log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def _log_lines(self, start: int) -> list[str]:
        with self.log_path.open("rb") as log:
            log.seek(start)
            return log.read(_MAX_LOG_BYTES).decode(errors="replace").splitlines()


def home_of(project: Project) -> Path:
    """Where a project's server has its data.

    Raises:
        BrokerStartError: We are root, and there is no user whom the server could run as.
    """
    if postgres_cluster.service_user() is None:
        return project.state_dir / "postgres"
    return _SERVICE_HOME / project.runtime_dir.name


def remove_service_home() -> None:
    """Remove the folder of all servers that root has started, if none has left anything there."""
    with contextlib.suppress(OSError):
        _SERVICE_HOME.rmdir()
