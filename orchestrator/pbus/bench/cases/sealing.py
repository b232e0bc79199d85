"""The price of a key: throughput with sealed and with encrypted payloads, beside plain ones."""

import importlib.util

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_flows
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import Check, Findings, Plan, ratio

NAME = "key"
_COUNT = 100_000  # a round
_MORE_ROUNDS = 3  # times the plan's: the difference is small
_AT_LEAST = 0.95  # of the throughput without a key


async def measure(stage: BenchProcesses, plan: Plan) -> Findings:
    """Measure all in turn."""
    plain = ThroughputCase(name="key: none", count=plan.count_or(_COUNT), size=plan.size)
    flows = [plain, replace(plain, name="key: sealed", seal="key")]
    if importlib.util.find_spec("cryptography") is not None:
        flows.append(replace(plain, name="key: encrypted", seal="encrypt"))
    alone = plan.without_baseline
    rows = await measure_flows(stage, [(flow, alone) for flow in flows], plan.rounds * _MORE_ROUNDS)
    value = ratio(rows[1].messages_per_s, rows[0].messages_per_s)
    check = Check.of("throughput with a key / without", value, at_least=_AT_LEAST)
    return Findings(rows=tuple(rows), checks=(check,))
