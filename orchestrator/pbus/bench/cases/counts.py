"""The price of the counts by edge: throughput with them, beside throughput without."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_cases
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, Row, ratio
from pbus.settings import BusOptions

NAME = "counts"
_COUNT = 400_000  # a round
_MORE_ROUNDS = 2  # times the plan's: the difference is small
_AT_LEAST = 0.97  # of the throughput without counts


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure both in turn."""
    without = ThroughputCase(
        name="counts: off",
        count=plan.count_or(_COUNT),
        size=plan.size,
        bus=BusOptions(stats=False),
    )
    counted = replace(without, name="counts: on", bus=BusOptions(stats=True))
    alone = plan.without_baseline
    rounds = plan.rounds * _MORE_ROUNDS
    rows = await measure_cases(pool, [(without, alone), (counted, alone)], rounds)
    off, on = rows
    checks = (
        Check.of(
            "throughput with counts / without",
            ratio(on.messages_per_s, off.messages_per_s),
            at_least=_AT_LEAST,
        ),
        Check.of(
            "processor time without counts / with",
            ratio(_cpu_us(off), _cpu_us(on)),
            at_least=_AT_LEAST,
        ),
    )
    return CaseResult(rows=tuple(rows), checks=checks)


def _cpu_us(row: Row) -> float:
    """Processor time a message, of sender and receiver: what others do on the machine counts less."""
    return (row.sender_cpu_us or 0.0) + (row.receiver_cpu_us or 0.0)
