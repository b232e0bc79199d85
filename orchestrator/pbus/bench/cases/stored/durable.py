"""Durable throughput: one process sends to another, the broker stores each message until handled."""

from pbus.bench.cases.one_way import ThroughputCase, measure_case
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, System, ratio

NAME = "durable"
_COUNT = 100_000
# Times the plain client.
_AT_LEAST: dict[System, tuple[str, float]] = {
    "redis-py": ("durable throughput / redis-py streams", 1.0),
    "pgmq": ("durable throughput / pgmq, one by one", 20.0),
}


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it between workers, with a thousand senders that each wait for the broker."""
    case = ThroughputCase(name=NAME, count=plan.count_or(_COUNT), size=plan.size, is_durable=True)
    rows = await measure_case(pool, case, plan)
    ours = rows[0]
    checks = [
        Check.of(f"lost in {NAME}", ours.lost, at_most=0),
        Check.of(f"handled twice in {NAME}", ours.duplicates, at_most=0),
    ]
    if plan.has_baseline:
        name, at_least = _AT_LEAST[plan.baseline]
        value = ratio(ours.messages_per_s, rows[1].messages_per_s)
        checks.insert(0, Check.of(name, value, at_least=at_least))
    return CaseResult(rows=tuple(rows), checks=tuple(checks))
