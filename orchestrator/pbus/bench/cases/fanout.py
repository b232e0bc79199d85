"""Fan-out: one process sends to several, in turn and to all at once, and to one beside that."""

from msgspec.structs import replace

from pbus.bench.cases.one_way import ThroughputCase, measure_cases
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Check, Plan, Row, System, ratio

TO_ONE = "one-to-one"
IN_TURN = "fanout"
TO_ALL = "broadcast"
_COUNT = 200_000  # a round
_MORE_ROUNDS = 2  # times the plan's: many processes on few cores, no two runs are alike
_AT_LEAST = 0.8  # times one-to-one: messages handled, all receivers together
# Times another system doing the same; to many only those that are wanted there.
_AT_LEAST_PEER: dict[tuple[str, System], float] = {
    (TO_ONE, "nats-py"): 2.0,
    (IN_TURN, "nats-py"): 1.4,
    (TO_ONE, "pipecat"): 80.0,
}


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
    in_turn_peers = tuple(peer for peer in plan.peers if (IN_TURN, peer) in _AT_LEAST_PEER)
    cases = [
        (to_one, plan.without_baseline),
        (in_turn, replace(plan, peers=in_turn_peers)),
        (to_all, plan_all),
    ]
    rows = await measure_cases(pool, cases, plan.rounds * _MORE_ROUNDS)
    return CaseResult(rows=tuple(rows), checks=(*_own_checks(rows), *_peer_checks(rows, plan)))


def _own_checks(rows: list[Row]) -> list[Check]:
    one, *many = (row for row in rows if row.system == "pbus")
    return [_check(row, one) for row in many]


def _peer_checks(rows: list[Row], plan: Plan) -> list[Check]:
    ours = {row.name: row for row in rows if row.system == "pbus"}
    return [_check_peer(ours[row.name], row) for row in rows if row.system in plan.peers]


def _check_peer(ours: Row, theirs: Row) -> Check:
    name = ours.name if ours.receivers == 1 else f"{ours.name} to {ours.receivers}"
    return Check.of(
        f"{name} / {theirs.system}",
        ratio(ours.messages_per_s, theirs.messages_per_s),
        at_least=_AT_LEAST_PEER[ours.name, theirs.system],
    )


def _check(row: Row, one: Row) -> Check:
    """The rate as a share of the one-to-one rate."""
    return Check.of(
        f"{row.name} to {row.receivers} / {TO_ONE}",
        ratio(row.messages_per_s, one.messages_per_s),
        at_least=_AT_LEAST,
    )
