"""Durable round trip: there and back, one at a time, each message stored until it is handled."""

from pbus.bench.cases.rtt import delay_row, run_round_trips
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import DelayResult
from pbus.bench.results import CaseResult, Check, Plan, System, ratio

NAME = "durable-rtt"
_COUNT = 2_000
_AT_MOST = 1.4  # times plain streams
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("pong", "ping"),
    "redis-py": ("redis-stream-pong", "redis-stream-ping"),
}


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it on Redis, with the baseline in turn; on Postgres `rtt` does."""
    if plan.baseline not in _ROLES:
        return CaseResult()
    count = max(1, plan.count_or(_COUNT) // plan.rounds)
    runs: dict[System, list[DelayResult]] = {}
    for system in plan.systems:
        bus = pool.new_bus().updated({"delivery": "at-least-once"})
        done = await run_round_trips(
            pool, _ROLES[system], DelayResult, bus=bus, count=count, size=plan.size
        )
        runs.setdefault(system, []).append(done)
    rows = tuple(delay_row(NAME, system, done) for system, done in runs.items())
    ours, *plain = rows
    checks = tuple(
        Check.of(f"{NAME} p50 / redis-py streams", ratio(ours.p50_ms, one.p50_ms), at_most=_AT_MOST)
        for one in plain
    )
    return CaseResult(rows=rows, checks=checks)
