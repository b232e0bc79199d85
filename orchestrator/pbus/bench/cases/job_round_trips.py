"""Jobs: there and back one at a time, beside plain redis-py, then many at once for long."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import Delays, RoleConfig
from pbus.bench.results import SHARE, Check, Findings, Percentiles, Plan, Row, System, ratio
from pbus.handlers import job
from pbus.messages import BusJobRequestMessage
from pbus.runner import WorkerRunner
from pbus.workers.base import BaseWorker

SEQUENTIAL = "jobs, one at a time"
CONCURRENT = "jobs, 100 in flight"
_IN_FLIGHT = 100
_COUNT = 100_000
_SEQUENTIAL_COUNT = 4_000
_MORE_ROUNDS = 3  # times the plan's: where the processes run differs, and with it every trip
_WARM_UP = 50  # before the clock starts
_TENTHS = 10
_READY_S = 20.0
_JOB_S = 60.0
# Per baseline: round trips of jobs as a multiple of its own, and jobs a second.
_WANTED: dict[System, tuple[float, float | None]] = {
    "redis-py": (1.3, 12_000.0),
    "pgmq": (1 / 30, None),
}
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("do-jobs", "ask-jobs"),
    "redis-py": ("redis-pong", "redis-ping"),
    "pgmq": ("pgmq-pong", "pgmq-ping"),
}
_FLAT_AT_LEAST = 0.95


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """What a player that asks many at once answers.

    Attributes:
        marks: When the clock started, and when each tenth of the jobs was done; seconds.
        cpu_s: Of the requester.
        delays: From asking to the answer.
    """

    marks: list[float]
    cpu_s: float
    delays: Percentiles

    @property
    def rates(self) -> list[float]:
        """By tenth, as a share of all jobs a second."""
        return [0.1 / max(1e-9, after - before) for before, after in pairwise(self.marks)]


async def measure(stage: BenchProcesses, plan: Plan) -> Findings:
    """Measure both; the plain ping-pong takes turns with the jobs, whatever the plan says."""
    count = max(1, plan.count_or(_COUNT))
    rounds = plan.rounds * _MORE_ROUNDS
    several = max(1, min(count, _SEQUENTIAL_COUNT) // rounds)
    runs: dict[System, list[Delays]] = {"pbus": [], plan.baseline: []}
    for _ in range(rounds):
        for system, found in runs.items():
            share = max(1, int(several * SHARE[system]))
            found.append(await _one_at_a_time(stage, system, share, plan.size))
    flood = await _many_at_once(stage, count, plan.size)
    rows = (*(_sequential_row(system, runs[system]) for system in runs), _flood_row(flood, count))
    ours, theirs, many = rows
    at_most, at_least = _WANTED[plan.baseline]
    return Findings(
        rows=rows,
        checks=(
            Check.of(
                f"sequential job p50 / {plan.baseline} ping-pong",
                ratio(ours.p50_ms, theirs.p50_ms),
                at_most=at_most,
            ),
            Check.of(CONCURRENT, many.messages_per_s or 0.0, at_least=at_least, unit="jobs/s"),
            Check.of(
                "last tenth / first tenth of the jobs",
                ratio(flood.rates[-1], flood.rates[0]),
                at_least=_FLAT_AT_LEAST,
            ),
        ),
    )


async def _one_at_a_time(stage: BenchProcesses, system: System, count: int, size: int) -> Delays:
    answering, asking = _ROLES[system]
    async with stage.cast(*_parts(stage, answering, asking, count, size)) as (_, asker):
        asker.cue()
        return await asker.answer(Delays)


async def _many_at_once(stage: BenchProcesses, count: int, size: int) -> Flood:
    async with stage.cast(*_parts(stage, "do-jobs", "ask-many", count, size)) as (_, asker):
        asker.cue()
        return await asker.answer(Flood)


def _parts(
    stage: BenchProcesses, answering: str, asking: str, count: int, size: int
) -> Sequence[tuple[str, RoleConfig]]:
    channel = stage.new_channel()
    doer = RoleConfig(url=stage.url, channel=channel, name="doer", targets=("asker",))
    asker = RoleConfig(
        url=stage.url, channel=channel, name="asker", targets=("doer",), count=count, size=size
    )
    return (answering, doer), (asking, asker)


def _sequential_row(system: System, runs: list[Delays]) -> Row:
    delays = [delay for run in runs for delay in run.delays]
    brief = Percentiles.of_seconds(delays)
    return Row(
        name=SEQUENTIAL,
        system=system,
        count=len(delays),
        messages_per_s=len(delays) / sum(delays),
        p50_ms=brief.p50_ms,
        p90_ms=brief.p90_ms,
        p99_ms=brief.p99_ms,
        sender_cpu_us=sum(run.cpu_s for run in runs) / len(delays) * 1e6,
    )


def _flood_row(flood: Flood, count: int) -> Row:
    return Row(
        name=CONCURRENT,
        count=count,
        messages_per_s=count / (flood.marks[-1] - flood.marks[0]),
        p50_ms=flood.delays.p50_ms,
        p90_ms=flood.delays.p90_ms,
        p99_ms=flood.delays.p99_ms,
        sender_cpu_us=flood.cpu_s / count * 1e6,
    )


class _Doer(BaseWorker):
    """Answers with what it is asked."""

    @job(name="echo")
    async def echo(self, request: BusJobRequestMessage) -> dict[str, Any] | None:
        """Send it back."""
        return request.payload


@contextlib.asynccontextmanager
async def _hosted(part: RoleConfig, worker: BaseWorker) -> AsyncIterator[WorkerRunner]:
    """A worker on a runner, ready."""
    runner = WorkerRunner(bus=part.connect(), handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run(), name="bench runner")
    try:
        await runner.registry.wait_ready(part.name, _READY_S)
        yield runner
    finally:
        await runner.cancel("the measurement is over")
        await asyncio.wait({running}, timeout=_READY_S)


async def do_jobs(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: do jobs, until the stage is gone."""
    async with _hosted(part, _Doer(part.name)):
        cues.say_ready()
        await cues.next()


async def ask_jobs(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: ask for one job after another."""
    worker = BaseWorker(part.name)
    payload = {"text": "x" * part.size}
    delays = []
    async with _hosted(part, worker) as runner:
        await runner.registry.wait_ready(part.targets[0], _READY_S)
        cues.say_ready()
        await cues.next()
        cpu = time.process_time()
        for number in range(-_WARM_UP, part.count):
            if number == 0:
                cpu = time.process_time()
            delays.append(await _ask(worker, part.targets[0], payload))
        cues.say(Delays(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def ask_many(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: keep many jobs in flight."""
    worker = BaseWorker(part.name)
    payload = {"text": "x" * part.size}
    async with _hosted(part, worker) as runner:
        await runner.registry.wait_ready(part.targets[0], _READY_S)
        cues.say_ready()
        await cues.next()
        for _ in range(_WARM_UP):
            await _ask(worker, part.targets[0], payload)
        cues.say(await _flood(worker, part, payload))


async def _flood(worker: BaseWorker, part: RoleConfig, payload: dict[str, Any]) -> Flood:
    ends = iter(_ends_of_tenths(part.count))
    numbers = iter(range(1, part.count + 1))
    delays: list[float] = []
    marks: list[float] = []
    next_end = next(ends)

    async def keep_asking() -> None:
        nonlocal next_end
        for _ in numbers:
            delays.append(await _ask(worker, part.targets[0], payload))
            while len(delays) == next_end:
                marks.append(time.perf_counter())
                next_end = next(ends, 0)

    cpu, begun = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(_IN_FLIGHT, part.count)):
            group.create_task(keep_asking())
    cpu = time.process_time() - cpu
    return Flood(marks=[begun, *marks], cpu_s=cpu, delays=Percentiles.of_seconds(delays))


def _ends_of_tenths(count: int) -> list[int]:
    """After how many jobs each tenth is over; of fewer than ten jobs some tenths are empty."""
    return [max(1, round(count * tenth / _TENTHS)) for tenth in range(1, _TENTHS + 1)]


async def _ask(worker: BaseWorker, target: str, payload: dict[str, Any]) -> float:
    """Ask for a job and wait; how long it took, seconds."""
    begun = time.perf_counter()
    async with worker.job(target, name="echo", payload=payload, timeout=_JOB_S) as asked:
        pass
    took = time.perf_counter() - begun
    if asked.response.get("text") != payload["text"]:
        raise ValueError(f"job {asked.job_id} was answered with something else")
    return took
