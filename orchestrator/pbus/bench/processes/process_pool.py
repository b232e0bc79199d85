"""Where a measurement is played: its broker, its processes, their end."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec

from pbus.bench.processes.roles import MAX_LINE_BYTES, READY, RoleConfig
from pbus.errors import ProcessError
from pbus.ids import new_token

START_S = 30.0  # a fresh interpreter and its connections, on a machine under full load
ANSWER_S = 300.0  # the longest measurement on a slow machine
_END_S = 5.0
_SHOWN_BYTES = 2000

T = TypeVar("T")


class BenchProcess:
    """One process of a measurement, seen from the stage."""

    def __init__(
        self, role: str, process: asyncio.subprocess.Process, complaints: IO[bytes]
    ) -> None:
        self._role = role
        self._process = process
        self._complaints = complaints

    async def ready(self) -> None:
        """Wait until the player says that it is ready.

        Raises:
            ProcessError: It ended, or said nothing in time.
        """
        line = await self._line(START_S)
        if line.strip() != READY:
            raise self._failure(f"was to be ready and said {line!r}")

    async def answer(self, kind: type[T]) -> T:
        """Wait for what the player found.

        Raises:
            ProcessError: It ended, or said nothing in time.
        """
        return msgspec.json.decode(await self._line(ANSWER_S), type=kind)

    def cue(self) -> None:
        """Tell the player to go on."""
        self._write(b"go")

    def hand(self, part: RoleConfig) -> None:
        """Give the player its part."""
        self._write(msgspec.json.encode(part))

    async def end(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), _END_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._complaints.close()

    def _write(self, line: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line + b"\n")

    async def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - asked for at the start
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError:
            raise self._failure(f"said nothing for {timeout_s:g} s") from None
        if not line:
            raise self._failure("ended too early")
        return line

    def _failure(self, what: str) -> ProcessError:
        self._complaints.seek(0)
        said = self._complaints.read()[-_SHOWN_BYTES:].decode(errors="replace").strip()
        return ProcessError(f"the benchmark's {self._role!r} {what}", hint=said or None)


class BenchProcesses:
    """Starts players and ends them all.

    Args:
        url: The broker all of them use.

    Attributes:
        channels: Those that were used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.channels: list[str] = []
        self._players: list[BenchProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.clear()

    def new_channel(self) -> str:
        """A channel nobody else uses."""
        self.channels.append(f"pbus:bench:{new_token()}")
        return self.channels[-1]

    async def player(self, role: str, part: RoleConfig) -> BenchProcess:
        """Start a player and give it its part; `BenchProcess.ready` waits for it."""
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the player
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "pbus.bench.processes.process_main", role),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=8 * MAX_LINE_BYTES,
        )
        player = BenchProcess(role, process, complaints)
        self._players.append(player)
        player.hand(part)
        return player

    async def clear(self) -> None:
        """End all players."""
        players, self._players = self._players, []
        await asyncio.gather(*(player.end() for player in players))

    @contextlib.asynccontextmanager
    async def cast(self, *roles: tuple[str, RoleConfig]) -> AsyncIterator[list[BenchProcess]]:
        """Players that are ready, in the order given; all of them end with the block."""
        try:
            players = [await self.player(role, part) for role, part in roles]
            await asyncio.gather(*(player.ready() for player in players))
            yield players
        finally:
            await self.clear()


async def answers_of(players: Sequence[BenchProcess], kind: type[T]) -> list[T]:
    """What several players answer, in order."""
    return await asyncio.gather(*(player.answer(kind) for player in players))
