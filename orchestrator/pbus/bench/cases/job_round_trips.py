"""Jobs: round trips one at a time, beside the plain client, then many in flight."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import msgspec

from pbus.bench.cases.rtt import delay_row, run_round_trips
from pbus.bench.processes.bus_handle import READY_S, running
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import DelayResult, RoleConfig
from pbus.bench.results import SHARE, CaseResult, Check, Percentiles, Plan, Row, System, ratio
from pbus.handlers import job
from pbus.messages import BusJobRequestMessage
from pbus.workers.base_worker import BaseWorker

SEQUENTIAL = "jobs, one at a time"
CONCURRENT = "jobs, 100 in flight"
_IN_FLIGHT = 100
_COUNT = 100_000
_SEQUENTIAL_COUNT = 4_000
_MORE_ROUNDS = 3  # times the plan's: where the processes run differs, and with it every trip
_WARM_UP = 50  # before the clock starts
_TENTHS = 10
_JOB_S = 60.0
# Per baseline: round trips of jobs as a multiple of its own, and jobs a second.
_WANTED: dict[System, tuple[float, float | None]] = {
    "redis-py": (1.3, 12_000.0),
    "pgmq": (1 / 30, None),
}
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("job-worker", "job-requester"),
    "redis-py": ("redis-pong", "redis-ping"),
    "pgmq": ("pgmq-pong", "pgmq-ping"),
}
_CONCURRENT_ROLES = ("job-worker", "concurrent-job-requester")
_FLAT_AT_LEAST = 0.95


class ConcurrentResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a process that has many jobs in flight.

    Attributes:
        marks: When the clock started, and when each tenth of the jobs was done; seconds.
        cpu_s: Of the requester.
        delays: From the request to the response.
    """

    marks: list[float]
    cpu_s: float
    delays: Percentiles

    @property
    def rates(self) -> list[float]:
        """Jobs a second in each tenth, as a share of all jobs."""
        return [0.1 / max(1e-9, after - before) for before, after in pairwise(self.marks)]


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure both; the plain ping-pong takes turns with the jobs, whatever the plan says."""
    count = max(1, plan.count_or(_COUNT))
    rounds = plan.rounds * _MORE_ROUNDS
    share = max(1, min(count, _SEQUENTIAL_COUNT) // rounds)
    runs: dict[System, list[DelayResult]] = {"pbus": [], plan.baseline: []}
    for _ in range(rounds):
        for system, found in runs.items():
            trips = max(1, int(share * SHARE[system]))
            result = await run_round_trips(
                pool, _ROLES[system], DelayResult, count=trips, size=plan.size
            )
            found.append(result)
    concurrent = await run_round_trips(
        pool, _CONCURRENT_ROLES, ConcurrentResult, count=count, size=plan.size
    )
    rows = (
        *(delay_row(SEQUENTIAL, system, runs[system]) for system in runs),
        _concurrent_row(concurrent, count),
    )
    ours, theirs, many = rows
    at_most, at_least = _WANTED[plan.baseline]
    return CaseResult(
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
                ratio(concurrent.rates[-1], concurrent.rates[0]),
                at_least=_FLAT_AT_LEAST,
            ),
        ),
    )


def _concurrent_row(concurrent: ConcurrentResult, count: int) -> Row:
    return Row(
        name=CONCURRENT,
        count=count,
        messages_per_s=count / (concurrent.marks[-1] - concurrent.marks[0]),
        p50_ms=concurrent.delays.p50_ms,
        p90_ms=concurrent.delays.p90_ms,
        p99_ms=concurrent.delays.p99_ms,
        sender_cpu_us=concurrent.cpu_s / count * 1e6,
    )


class _EchoWorker(BaseWorker):
    """Answers each job with its payload."""

    @job(name="echo")
    async def echo(self, request: BusJobRequestMessage) -> dict[str, Any] | None:
        """Return the payload."""
        return request.payload


async def work(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, until the pool is gone."""
    async with running(config, _EchoWorker(config.name)):
        control.send_ready()
        await control.receive()


async def request_one_by_one(config: RoleConfig, control: ControlPipe) -> None:
    """Role: request one job after another."""
    worker = BaseWorker(config.name)
    payload = {"text": "x" * config.size}
    delays = []
    async with running(config, worker) as runner:
        await runner.registry.wait_ready(config.targets[0], READY_S)
        control.send_ready()
        await control.receive()
        cpu = time.process_time()
        for number in range(-_WARM_UP, config.count):
            if number == 0:
                cpu = time.process_time()
            delays.append(await _request(worker, config.targets[0], payload))
        control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def request_concurrently(config: RoleConfig, control: ControlPipe) -> None:
    """Role: keep many jobs in flight."""
    worker = BaseWorker(config.name)
    payload = {"text": "x" * config.size}
    async with running(config, worker) as runner:
        await runner.registry.wait_ready(config.targets[0], READY_S)
        control.send_ready()
        await control.receive()
        for _ in range(_WARM_UP):
            await _request(worker, config.targets[0], payload)
        control.send(await _request_all(worker, config, payload))


async def _request_all(
    worker: BaseWorker, config: RoleConfig, payload: dict[str, Any]
) -> ConcurrentResult:
    ends = iter(_ends_of_tenths(config.count))
    numbers = iter(range(1, config.count + 1))
    delays: list[float] = []
    marks: list[float] = []
    next_end = next(ends)

    async def keep_requesting() -> None:
        nonlocal next_end
        for _ in numbers:
            delays.append(await _request(worker, config.targets[0], payload))
            while len(delays) == next_end:
                marks.append(time.perf_counter())
                next_end = next(ends, 0)

    cpu, started = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(_IN_FLIGHT, config.count)):
            group.create_task(keep_requesting())
    cpu = time.process_time() - cpu
    return ConcurrentResult(
        marks=[started, *marks], cpu_s=cpu, delays=Percentiles.of_seconds(delays)
    )


def _ends_of_tenths(count: int) -> list[int]:
    """The number of jobs at the end of each tenth; of fewer than ten jobs some are empty."""
    return [max(1, round(count * tenth / _TENTHS)) for tenth in range(1, _TENTHS + 1)]


async def _request(worker: BaseWorker, target: str, payload: dict[str, Any]) -> float:
    """Request a job and wait for its response.

    Returns:
        Seconds.
    """
    started = time.perf_counter()
    async with worker.job(target, name="echo", payload=payload, timeout=_JOB_S) as request:
        pass
    seconds = time.perf_counter() - started
    if request.response.get("text") != payload["text"]:
        raise ValueError(f"job {request.job_id} was answered with something else")
    return seconds
