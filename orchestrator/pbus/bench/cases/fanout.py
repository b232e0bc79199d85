"""Fan-out: one process sends to several, in turn and to all at once, and to one beside that."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_cases
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, Row, ratio

TO_ONE = "one-to-one"
IN_TURN = "fanout"
TO_ALL = "broadcast"
_COUNT = 200_000  # a round
_MORE_ROUNDS = 2  # times the plan's: many processes on few cores, no two runs are alike
_AT_LEAST = 0.8  # times one-to-one: messages handled, all receivers together
_AT_LEAST_PEER = {TO_ONE: 2.0, IN_TURN: 1.4}  # times another system doing the same


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure all three in turn."""
    count = max(plan.workers, plan.count_or(_COUNT) // _MORE_ROUNDS)
    to_one = ThroughputCase(name=TO_ONE, count=count, size=plan.size)
    in_turn = ThroughputCase(name=IN_TURN, count=count, size=plan.size, receivers=plan.workers)
    to_all = ThroughputCase(
        name=TO_ALL,
        count=count // plan.workers,
        size=plan.size,
        receivers=plan.workers,
        is_broadcast=True,
    )
    can_compare = plan.baseline != "pgmq"  # whose queues know no "everyone"
    plan_all = replace(plan if can_compare else plan.without_baseline, peers=())
    cases = [(to_one, plan.without_baseline), (in_turn, plan), (to_all, plan_all)]
    rows = await measure_cases(pool, cases, plan.rounds * _MORE_ROUNDS)
    one, *many = (row for row in rows if row.system == "pbus")
    checks = [_check(row, one) for row in many]
    for theirs in (row for row in rows if row.system in plan.peers):
        ours = next(row for row in rows if (row.name, row.system) == (theirs.name, "pbus"))
        checks.append(_check_peer(ours, theirs))
    return CaseResult(rows=tuple(rows), checks=tuple(checks))


def _check_peer(ours: Row, theirs: Row) -> Check:
    name = ours.name if ours.receivers == 1 else f"{ours.name} to {ours.receivers}"
    return Check.of(
        f"{name} / {theirs.system}",
        ratio(ours.messages_per_s, theirs.messages_per_s),
        at_least=_AT_LEAST_PEER[ours.name],
    )


def _check(row: Row, one: Row) -> Check:
    """The rate as a share of the one-to-one rate."""
    return Check.of(
        f"{row.name} to {row.receivers} / {TO_ONE}",
        ratio(row.messages_per_s, one.messages_per_s),
        at_least=_AT_LEAST,
    )
