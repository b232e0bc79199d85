"""Throughput: one process sends to another as fast as the bus takes it."""

from msgspec.structs import replace

from pbus.bench.figures import Check, Findings, Plan, ratio
from pbus.bench.flow import Flow, measure_flow
from pbus.bench.stage import Stage

NAME = "throughput"
_COUNT = 200_000
_AT_LEAST = 2.5  # times redis-py


async def measure(stage: Stage, plan: Plan) -> Findings:
    """Measure it between workers, and on the bus alone."""
    flow = Flow(name=NAME, count=plan.count_or(_COUNT), size=plan.size)
    rows = await measure_flow(stage, flow, plan)
    checks: tuple[Check, ...] = ()
    if plan.has_baseline:
        ours, theirs = rows
        checks = (
            Check.of(
                "throughput / redis-py in pipelines of 100",
                ratio(ours.messages_per_s, theirs.messages_per_s),
                at_least=_AT_LEAST,
            ),
        )
    bare = replace(flow, name="throughput, bus only", is_bare=True)
    rows += await measure_flow(stage, bare, replace(plan, has_baseline=False))
    return Findings(rows=tuple(rows), checks=checks)
