"""Scale: what many idle workers cost, as processes of a project or within one process."""

import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path

import msgspec
import psutil
import redis.asyncio

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.processes.bench_project import BenchProject
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.idle import Idle
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import RoleConfig, Stopwatch
from pbus.bench.results import CaseResult, Check, Plan
from pbus.bus.connect import make_bus
from pbus.bus.memory import AsyncQueueBus
from pbus.messages import BusMessage
from pbus.runner.runner import WorkerRunner
from pbus.urls import BACKEND_OF_SCHEME, url_scheme

_COMMAND_S = 600.0  # for 1,000 processes on a slow machine
_WAIT_S = 500.0  # of it for them to become ready
_READY_S = 300.0
_MESSAGES = 20_000  # to a worker among many

_READY_AT_MOST_S = 0.04  # a worker
_PS_AT_MOST_S = 1.0
_DOWN_AT_MOST_S = 10.0
_BROKER_AT_MOST_PERCENT = 10.0
_SUPERVISOR_AT_MOST_PERCENT = 5.0
_PSS_AT_MOST_MB = 15.0
_EACH_AT_MOST_KB = 12.0


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it with as many workers as the plan has."""
    if plan.is_in_process:
        return await _in_process(pool, plan.many)
    if not plan.command:
        return CaseResult()
    with tempfile.TemporaryDirectory(prefix="pbus-bench-") as folder:
        project = BenchProject(plan.command, Path(folder), timeout_s=_COMMAND_S, loop=plan.loop)
        bus = pool.new_bus()
        keys = {
            "backend": BACKEND_OF_SCHEME[url_scheme(pool.url)],
            "url": pool.url,
            "channel": bus.channel,
        }
        project.write("bench-scale", plan.many, keys)
        return CaseResult(checks=tuple(await _checks(project, plan, pool.url)))


# As processes


class BrokerFigures(msgspec.Struct, frozen=True):
    """The work of a broker so far.

    Attributes:
        out_mb: Megabytes that it has written.
        cpu_s: Processor seconds.
    """

    out_mb: float = 0.0
    cpu_s: float = 0.0


async def broker_figures(url: str) -> BrokerFigures | None:
    """The figures of a server of Redis' kind; None of others."""
    if BACKEND_OF_SCHEME.get(url_scheme(url)) != "redis":
        return None
    client = redis.asyncio.Redis.from_url(url)
    try:
        facts = await client.info("all")
    finally:
        await client.aclose()
    cpu_s = facts["used_cpu_user"] + facts["used_cpu_sys"]
    return BrokerFigures(out_mb=facts["total_net_output_bytes"] / 1e6, cpu_s=cpu_s)


async def _checks(project: BenchProject, plan: Plan, url: str) -> list[Check]:
    file, count = str(project.file), f"{plan.many:,} workers"
    before = await broker_figures(url)
    ready_s, most_s = (
        await project.seconds("up", "-d", "--wait", "--timeout", f"{_WAIT_S:g}", file),
        plan.many * _READY_AT_MOST_S,
    )
    found = [Check.of(f"{count}, ready", ready_s, at_most=most_s, unit="s")]
    try:
        after = await broker_figures(url)
        if before and after:
            found.append(
                Check.of(
                    f"{count}, out of the broker at start", after.out_mb - before.out_mb, unit="MB"
                )
            )
        pids = await project.worker_pids()
        pss = sum(map(_pss_mb, pids)) / len(pids)
        found.append(
            Check.of(f"{count}, memory (PSS) each", pss, at_most=_PSS_AT_MOST_MB, unit="MB")
        )
        found += await _idle(url, psutil.Process(pids[0]).parent(), plan.pause_s, count)
        ps_s = await project.median_s("ps", "-f", file)
        found.append(Check.of(f"{count}, pbus ps", ps_s, at_most=_PS_AT_MOST_S, unit="s"))
    finally:
        down_s = await project.seconds("down", "-f", file)
    return [*found, Check.of(f"{count}, pbus down", down_s, at_most=_DOWN_AT_MOST_S, unit="s")]


async def _idle(
    url: str, supervisor: psutil.Process | None, pause_s: float, count: str
) -> list[Check]:
    """The shares of a core that the broker and the supervisor of idle workers take."""
    started, before = time.monotonic(), await broker_figures(url)
    used = 0.0 if supervisor is None else _cpu_s(supervisor)
    await asyncio.sleep(pause_s)
    seconds, after, found = time.monotonic() - started, await broker_figures(url), []
    if before and after:
        share = (after.cpu_s - before.cpu_s) / seconds * 100
        name = f"{count} idle, broker"
        found.append(Check.of(name, share, at_most=_BROKER_AT_MOST_PERCENT, unit="%"))
    if supervisor is not None:
        share = (_cpu_s(supervisor) - used) / seconds * 100
        name = f"{count} idle, supervisor"
        found.append(Check.of(name, share, at_most=_SUPERVISOR_AT_MOST_PERCENT, unit="%"))
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _pss_mb(pid: int) -> float:
    """Its share of memory, or all that it has where the system does not tell."""
    try:
        return float(psutil.Process(pid).memory_full_info().pss) / 1e6
    except (AttributeError, psutil.AccessDenied):
        return float(psutil.Process(pid).memory_info().rss) / 1e6


# Within one process


class ManyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of workers in one process.

    Attributes:
        ready_s: Seconds until all were ready.
        end_s: Seconds until all had ended.
        each_kb: Memory that one more took.
        message_us: Processor time of a message to one of them.
    """

    ready_s: float
    end_s: float
    each_kb: float
    message_us: float


async def _in_process(pool: BenchProcesses, count: int) -> CaseResult:
    found: list[Check] = []
    for where, role in (("in memory", "many-in-memory"), ("on the broker", "many-on-broker")):
        config = RoleConfig(bus=pool.new_bus(), workers=count, count=_MESSAGES)
        async with pool.running((role, config)) as (process,):
            one = await process.result(ManyResult)
        name = f"{count:,} workers in one process, {where}"
        found += [
            Check.of(f"{name}, ready", one.ready_s, unit="s"),
            Check.of(f"{name}, each", one.each_kb, at_most=_EACH_AT_MOST_KB, unit="KB"),
            Check.of(f"{name}, a message", one.message_us, unit="us"),
            Check.of(f"{name}, ended", one.end_s, unit="s"),
        ]
    return CaseResult(checks=tuple(found))


class _Last(Idle):
    """Counts messages, and tells when all of them came."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.left = 0
        self.done = asyncio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BenchMessage):
            self.left -= 1
            if self.left == 0:
                self.done.set()


async def host_in_memory(config: RoleConfig, control: ControlPipe) -> None:
    """Role: many workers on a bus of their process."""
    await _host(WorkerRunner(bus=AsyncQueueBus()), config, control)


async def host_on_broker(config: RoleConfig, control: ControlPipe) -> None:
    """Role: many workers of one process on the broker."""
    await _host(WorkerRunner(bus=make_bus(config.bus)), config, control)


async def _host(runner: WorkerRunner, config: RoleConfig, control: ControlPipe) -> None:
    control.send_ready()
    last = _Last("last")
    await runner.add_workers(last)
    running = asyncio.create_task(runner.run(auto_end=False))
    try:
        await runner.registry.wait_ready("last", _READY_S)
        memory, started = _rss_kb(), time.monotonic()
        names = [f"idle{number}" for number in range(1, config.workers)]
        await runner.add_workers(*map(Idle, names))
        for name in names:
            await runner.registry.wait_ready(name, _READY_S)
        ready_s, each_kb = time.monotonic() - started, (_rss_kb() - memory) / config.workers
        message_us = await _exchange(runner, last, config.count)
        started = time.monotonic()
    finally:
        await runner.end()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    end_s = time.monotonic() - started
    control.send(ManyResult(ready_s=ready_s, end_s=end_s, each_kb=each_kb, message_us=message_us))


async def _exchange(runner: WorkerRunner, last: _Last, count: int) -> float:
    last.left = count
    watch = Stopwatch()
    for number in range(count):
        await runner.bus.send(
            BenchMessage(source=runner.name, target="last", number=number, text="")
        )
    async with asyncio.timeout(_READY_S):
        await last.done.wait()
    return watch.cpu_s / count * 1e6


def _rss_kb() -> float:
    return float(psutil.Process(os.getpid()).memory_info().rss) / 1024
