"""Start: the time of commands and until workers are ready, and the cost of an idle worker."""

import asyncio
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil

from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, percentile
from pbus.errors import ProcessError

_WORKERS = 10
_TRIES = 5  # the median of so many commands
_COMMAND_S = 60.0
_HELP_AT_MOST_S = 0.3
_PS_AT_MOST_S = 0.5
_READY_AT_MOST_S = 6.0
_IDLE_AT_MOST_MB = 45.0
_IDLE_AT_MOST_PERCENT = 0.5
_SHOWN_CHARACTERS = 2000

_TOPOLOGY = """\
name: bench-start
workers:
  idle:
    worker: pbus.bench.processes.idle:Idle
    replicas: {workers}
"""


class _Worker(msgspec.Struct):
    pid: int


class _Listing(msgspec.Struct):
    workers: list[_Worker]


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it with the command, on a project of its own."""
    del pool  # the project has its own broker, as `pbus up` starts it
    if not plan.command:
        return CaseResult()
    with tempfile.TemporaryDirectory(prefix="pbus-bench-") as folder:
        project = _Project(plan.command, Path(folder))
        project.write(_WORKERS)
        return CaseResult(checks=await _checks(project, plan))


async def _checks(project: "_Project", plan: Plan) -> tuple[Check, ...]:
    help_s = await project.median_s("--help")
    started = time.monotonic()
    await project.run("up", "-d", "--wait", str(project.file))
    ready_s = time.monotonic() - started
    try:
        ps_s = await project.median_s("ps", "-f", str(project.file))
        listing = await project.run("ps", "--json", "-f", str(project.file))
        workers = msgspec.json.decode(listing, type=_Listing).workers
        megabytes, percent = await _idle([worker.pid for worker in workers], plan.pause_s)
    finally:
        await project.run("down", "-f", str(project.file))
    return (
        Check.of("pbus --help", help_s, at_most=_HELP_AT_MOST_S, unit="s"),
        Check.of("pbus ps", ps_s, at_most=_PS_AT_MOST_S, unit="s"),
        Check.of(f"{_WORKERS} workers ready", ready_s, at_most=_READY_AT_MOST_S, unit="s"),
        Check.of("idle worker, memory", megabytes, at_most=_IDLE_AT_MOST_MB, unit="MB"),
        Check.of("idle worker, processor", percent, at_most=_IDLE_AT_MOST_PERCENT, unit="%"),
    )


async def _idle(pids: list[int], seconds: float) -> tuple[float, float]:
    """The largest memory of any worker, and their average share of a core over some seconds."""
    processes = [psutil.Process(pid) for pid in pids]
    started, before = time.monotonic(), _cpu_s(processes)
    await asyncio.sleep(seconds)
    used = (_cpu_s(processes) - before) / len(processes) / (time.monotonic() - started)
    return max(process.memory_info().rss for process in processes) / 1e6, used * 100


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


class _Project:
    """A project in a throw-away folder, driven by the command."""

    def __init__(self, command: tuple[str, ...], folder: Path) -> None:
        self.file = folder / "topology.yaml"
        self._command = command
        self._environ: Mapping[str, str] = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}

    def write(self, workers: int) -> None:
        """Write the topology."""
        self.file.write_text(_TOPOLOGY.format(workers=workers))

    async def median_s(self, *arguments: str) -> float:
        """The median time of a command, in seconds."""
        taken = []
        for _ in range(_TRIES):
            started = time.monotonic()
            await self.run(*arguments)
            taken.append(time.monotonic() - started)
        return percentile(taken, 50) or 0.0

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
            async with asyncio.timeout(_COMMAND_S):
                out, stderr = await process.communicate()
        except BaseException as error:
            process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise _failure(arguments, f"did not end within {_COMMAND_S:g} s", b"") from None
            raise
        if process.returncode:
            raise _failure(arguments, f"failed with code {process.returncode}", stderr)
        return out


def _failure(arguments: tuple[str, ...], problem: str, stderr: bytes) -> ProcessError:
    text = stderr.decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
    return ProcessError(f"`pbus {' '.join(arguments)}` {problem}", hint=text or None)
