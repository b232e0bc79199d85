"""Start: the time of commands and until workers are ready, and the cost of an idle worker."""

import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from pbus.bench.processes.bench_project import BenchProject
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan

_WORKERS = 10
_COMMAND_S = 60.0
_HELP_AT_MOST_S = 0.3
_PS_AT_MOST_S = 0.5
_READY_AT_MOST_S = 6.0
_IDLE_AT_MOST_MB = 45.0
_IDLE_AT_MOST_PERCENT = 0.5


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it with the command, on a project of its own."""
    del pool  # the project has its own broker, as `pbus up` starts it
    if not plan.command:
        return CaseResult()
    with tempfile.TemporaryDirectory(prefix="pbus-bench-") as folder:
        project = BenchProject(plan.command, Path(folder), timeout_s=_COMMAND_S, loop=plan.loop)
        project.write("bench-start", _WORKERS)
        return CaseResult(checks=await _checks(project, plan))


async def _checks(project: BenchProject, plan: Plan) -> tuple[Check, ...]:
    help_s = await project.median_s("--help")
    ready_s = await project.seconds("up", "-d", "--wait", str(project.file))
    try:
        ps_s = await project.median_s("ps", "-f", str(project.file))
        megabytes, percent = await _idle(await project.worker_pids(), plan.pause_s)
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
