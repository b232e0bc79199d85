"""Fan-out: one process sends to several, in turn and to all at once."""

from pbus.bench.figures import Check, Findings, Plan, Row, ratio
from pbus.bench.flow import Flow, measure_flow
from pbus.bench.stage import Stage

IN_TURN = "fanout"
TO_ALL = "broadcast"
_COUNT = 200_000
AT_LEAST = 0.8  # times one-to-one: messages handled, all receivers together


async def measure(stage: Stage, plan: Plan) -> Findings:
    """Measure both."""
    count = max(plan.workers, plan.count_or(_COUNT))
    in_turn = Flow(name=IN_TURN, count=count, size=plan.size, receivers=plan.workers)
    to_all = Flow(
        name=TO_ALL,
        count=count // plan.workers,
        size=plan.size,
        receivers=plan.workers,
        is_broadcast=True,
    )
    rows: list[Row] = []
    rows += await measure_flow(stage, in_turn, plan)
    can_compare = plan.baseline != "pgmq"  # whose queues know no "everyone"
    rows += await measure_flow(stage, to_all, plan if can_compare else plan.without_baseline)
    return Findings(rows=tuple(rows))


def against_one(rows: Findings, one_to_one: Row) -> tuple[Check, ...]:
    """How much of the one-to-one rate is left."""
    return tuple(
        Check.of(
            f"{name} to {row.receivers} / one-to-one",
            ratio(row.messages_per_s, one_to_one.messages_per_s),
            at_least=AT_LEAST,
        )
        for name in (IN_TURN, TO_ALL)
        if (row := rows.row(name)) is not None
    )
