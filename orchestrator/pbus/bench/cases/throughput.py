"""Throughput: one process sends to another as fast as the bus takes it."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_case
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, System, ratio

NAME = "throughput"
_COUNT = 200_000
# Times the plain client.
_AT_LEAST: dict[System, tuple[str, float]] = {
    "redis-py": ("throughput / redis-py in pipelines of 100", 2.5),
    "pgmq": ("throughput / pgmq, one by one", 20.0),
}


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it between workers, and on the bus alone."""
    case = ThroughputCase(name=NAME, count=plan.count_or(_COUNT), size=plan.size)
    rows = await measure_case(pool, case, plan)
    checks: tuple[Check, ...] = ()
    if plan.has_baseline:
        ours, theirs = rows
        name, at_least = _AT_LEAST[plan.baseline]
        value = ratio(ours.messages_per_s, theirs.messages_per_s)
        checks = (Check.of(name, value, at_least=at_least),)
    bare = replace(case, name="throughput, bus only", is_bare=True)
    rows += await measure_case(pool, bare, plan.without_baseline)
    return CaseResult(rows=tuple(rows), checks=checks)
