"""A project in a throw-away folder, driven by the command."""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pbus.bench.results import percentile
from pbus.errors import ProcessError
from pbus.topology.model import Loop

_TRIES = 5  # the median of so many commands
_SHOWN_CHARACTERS = 2000

_TOPOLOGY = """\
name: {name}
loop: {loop}
{bus}workers:
  idle:
    worker: pbus.bench.processes.idle:Idle
    replicas: {workers}
"""


class ListedWorker(msgspec.Struct):
    """A worker in the output of `pbus ps --json`."""

    pid: int


class _Listing(msgspec.Struct):
    workers: list[ListedWorker]


class BenchProject:
    """A project of idle workers.

    Args:
        command: The words that call `pbus`.
        folder: Of the project; its state goes there, too.
        timeout_s: Seconds for each command.
        loop: The event loop of its workers.
    """

    def __init__(
        self, command: tuple[str, ...], folder: Path, *, timeout_s: float, loop: Loop = "asyncio"
    ) -> None:
        self.file = folder / "topology.yaml"
        self._command = command
        self._timeout_s = timeout_s
        self._loop = loop
        self._environ: Mapping[str, str] = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}

    def write(self, name: str, workers: int, bus: Mapping[str, str] | None = None) -> None:
        """Write the topology.

        Args:
            name: Of the project.
            workers: The number of replicas.
            bus: Keys of its bus; None for a broker of its own.
        """
        lines = [
            f"  {key}: {msgspec.json.encode(value).decode()}\n"
            for key, value in (bus or {}).items()
        ]
        section = f"bus:\n{''.join(lines)}" if lines else ""
        self.file.write_text(
            _TOPOLOGY.format(name=name, workers=workers, bus=section, loop=self._loop)
        )

    async def worker_pids(self) -> list[int]:
        """The process ids of the workers."""
        listing = await self.run("ps", "--json", "-f", str(self.file))
        return [worker.pid for worker in msgspec.json.decode(listing, type=_Listing).workers]

    async def seconds(self, *arguments: str) -> float:
        """The time of a command, in seconds."""
        started = time.monotonic()
        await self.run(*arguments)
        return time.monotonic() - started

    async def median_s(self, *arguments: str) -> float:
        """The median time of a command, in seconds."""
        return percentile([await self.seconds(*arguments) for _ in range(_TRIES)], 50) or 0.0

    async def run(self, *arguments: str) -> bytes:
        """Run a command.

        Returns:
            Its output.

        Raises:
            ProcessError: It failed, or did not end in time.
        """
        process = await asyncio.create_subprocess_exec(
            *(*self._command, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ,
            cwd=self.file.parent,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                out, stderr = await process.communicate()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                problem = f"did not end within {self._timeout_s:g} s"
                raise _failure(arguments, problem, b"") from None
            raise
        if process.returncode:
            raise _failure(arguments, f"failed with code {process.returncode}", stderr)
        return out


def _failure(arguments: tuple[str, ...], problem: str, stderr: bytes) -> ProcessError:
    text = stderr.decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
    return ProcessError(f"`pbus {' '.join(arguments)}` {problem}", hint=text or None)
