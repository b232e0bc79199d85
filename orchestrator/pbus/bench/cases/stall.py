"""Stall: a receiver that sleeps in the middle of full speed; the sender waits, nothing is lost."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_case
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, Row

_COUNT = 200_000


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it with a handler that sleeps and with a process that is blocked."""
    rows: list[Row] = []
    alone = replace(plan, has_baseline=False)  # plain pub/sub is cut off here
    for name, is_blocked in (("stall, handler sleeps", False), ("stall, process blocked", True)):
        case = ThroughputCase(
            name=name,
            count=plan.count_or(_COUNT),
            size=plan.size,
            pause_s=plan.pause_s,
            is_blocked=is_blocked,
        )
        rows += await measure_case(pool, case, alone)
    checks = tuple(
        Check.of(f"lost in {row.name} {plan.pause_s:g} s", row.lost, at_most=0) for row in rows
    )
    return CaseResult(rows=tuple(rows), checks=checks)
