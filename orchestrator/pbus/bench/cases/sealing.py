"""The price of a key: throughput of sealed and of encrypted payloads, beside plain ones."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_cases
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, ratio
from pbus.settings import BusOptions

NAME = "key"
_KEY = "the-key-of-a-measurement"
_COUNT = 200_000  # a round
_MORE_ROUNDS = 3  # times the plan's: the difference is small
_AT_LEAST = 0.95  # of the throughput without a key


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure all in turn."""
    plain = ThroughputCase(name="key: none", count=plan.count_or(_COUNT), size=plan.size)
    cases = [
        plain,
        replace(plain, name="key: sealed", bus=BusOptions(key=_KEY)),
        replace(plain, name="key: encrypted", bus=BusOptions(key=_KEY, encrypt=True)),
    ]
    alone = plan.without_baseline
    rows = await measure_cases(pool, [(case, alone) for case in cases], plan.rounds * _MORE_ROUNDS)
    value = ratio(rows[1].messages_per_s, rows[0].messages_per_s)
    check = Check.of("throughput with a key / without", value, at_least=_AT_LEAST)
    return CaseResult(rows=tuple(rows), checks=(check,))
