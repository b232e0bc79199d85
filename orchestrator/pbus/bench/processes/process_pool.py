"""The processes of a measurement: started, configured, told to go on, and ended."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec
from msgspec.structs import replace

from pbus.bench.processes.roles import MAX_LINE_BYTES, READY, SEND_TIMEOUT_S, RoleConfig
from pbus.errors import ProcessError
from pbus.ids import new_token
from pbus.settings import BusSettings
from pbus.topology.model import Loop

START_S = 30.0  # a fresh interpreter and its connections, on a machine under full load
RESULT_S = 300.0  # the longest measurement on a slow machine
_END_S = 5.0
_SHOWN_BYTES = 2000

T = TypeVar("T")


class BenchProcess:
    """One process of a measurement, seen from the pool."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, stderr: IO[bytes]) -> None:
        self._role = role
        self._process = process
        self._stderr = stderr

    async def wait_ready(self) -> None:
        """Wait until the process tells that it is ready.

        Raises:
            ProcessError: It ended, or wrote nothing in time.
        """
        line = await self._line(START_S)
        if line.strip() != READY:
            raise self._failure(f"should be ready and wrote {line!r}")

    async def result(self, kind: type[T]) -> T:
        """Wait for the result of the process.

        Raises:
            ProcessError: It ended, or wrote nothing in time.
        """
        return msgspec.json.decode(await self._line(RESULT_S), type=kind)

    def go(self) -> None:
        """Tell the process to go on."""
        self._write(b"go")

    def configure(self, config: RoleConfig) -> None:
        """Send the process its configuration."""
        self._write(msgspec.json.encode(config))

    async def stop(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), _END_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):  # it has ended just now
                    self._process.kill()
                await self._process.wait()
        self._stderr.close()

    def _write(self, line: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line + b"\n")

    async def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - asked for at the start
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError:
            raise self._failure(f"wrote nothing for {timeout_s:g} s") from None
        if not line:
            raise self._failure("ended too early")
        return line

    def _failure(self, problem: str) -> ProcessError:
        self._stderr.seek(0)
        written = self._stderr.read()[-_SHOWN_BYTES:].decode(errors="replace").strip()
        return ProcessError(f"the benchmark's {self._role!r} {problem}", hint=written or None)


class BenchProcesses:
    """Starts processes and ends all of them.

    Args:
        url: The broker that all of them use.
        peer_url: The server of another system, where one is measured.
        loop: The event loop of the processes.
        direct: Whether they use direct sockets; None: as a bus does where nothing is said.

    Attributes:
        channels: The channels used so far.
    """

    def __init__(
        self,
        url: str,
        peer_url: str = "",
        loop: Loop = "asyncio",
        *,
        direct: bool | None = None,
    ) -> None:
        self.url = url
        self._direct = direct
        self._loop = loop
        self._peer_url = peer_url
        self.channels: list[str] = []
        self._processes: list[BenchProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop_all()

    def new_bus(self) -> BusSettings:
        """The settings of a bus on a channel of its own."""
        self.channels.append(f"pbus:bench:{new_token()}")
        keys = {"url": self.url, "channel": self.channels[-1], "send_timeout": SEND_TIMEOUT_S}
        return BusSettings.from_keys({**keys, "direct": self._direct})

    async def start(self, role: str, config: RoleConfig) -> BenchProcess:
        """Start a process and configure it; `BenchProcess.wait_ready` waits for it."""
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "pbus.bench.processes.process_main", role, self._loop),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=8 * MAX_LINE_BYTES,
        )
        started = BenchProcess(role, process, stderr)
        self._processes.append(started)
        started.configure(replace(config, peer_url=self._peer_url))
        return started

    async def stop_all(self) -> None:
        """End all processes."""
        processes, self._processes = self._processes, []
        await asyncio.gather(*(process.stop() for process in processes))

    @contextlib.asynccontextmanager
    async def running(self, *roles: tuple[str, RoleConfig]) -> AsyncIterator[list[BenchProcess]]:
        """Processes that are ready, in the order given; all of them end with the block."""
        try:
            processes = [await self.start(role, config) for role, config in roles]
            await asyncio.gather(*(process.wait_ready() for process in processes))
            yield processes
        finally:
            await self.stop_all()


async def results_of(processes: Sequence[BenchProcess], kind: type[T]) -> list[T]:
    """The results of several processes, in order."""
    return await asyncio.gather(*(process.result(kind) for process in processes))
