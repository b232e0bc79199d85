"""The price of the counts by edge: throughput with them, beside throughput without."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_cases
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, ratio
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
    value = ratio(rows[1].messages_per_s, rows[0].messages_per_s)
    check = Check.of("throughput with counts / without", value, at_least=_AT_LEAST)
    return CaseResult(rows=tuple(rows), checks=(check,))
