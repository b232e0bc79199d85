"""Stored jobs: what is stored until it is done, beside systems made for that, on the same broker.

Ours are messages that a worker handles, and jobs that it answers; theirs are jobs, all at least once.
"""

from pbus.bench.cases.one_way import ThroughputCase, measure_case
from pbus.bench.cases.rtt import delay_row, run_round_trips
from pbus.bench.peers.left_behind import remove_left_behind
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import DelayResult
from pbus.bench.results import CaseResult, Check, Plan, Row, System, ratio

NAME = "stored-jobs"
ROUND_TRIP = f"{NAME}: there and back"
_COUNT = 100_000
_TRIPS = 500  # a round, at most
_MANY_FOR_A_TRIP = 20  # of the jobs without an answer
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("job-worker", "job-requester"),
    "taskiq": ("taskiq-pong", "taskiq-ping"),
    "arq": ("arq-pong", "arq-ping"),
    "dramatiq": ("dramatiq-pong", "dramatiq-ping"),
    "procrastinate": ("procrastinate-pong", "procrastinate-ping"),
}


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure jobs enqueued and done a second, then round trips, with the other systems in turn."""
    plan = plan.without_baseline
    case = ThroughputCase(name=NAME, count=plan.count_or(_COUNT), size=plan.size, is_durable=True)
    try:
        many = await measure_case(pool, case, plan)
        trips = await _round_trips(pool, plan)
    finally:
        if plan.peers:
            await remove_left_behind(pool.url, pool.channels)
    return CaseResult(rows=(*many, *trips), checks=_checks(many, trips))


async def _round_trips(pool: BenchProcesses, plan: Plan) -> list[Row]:
    runs: dict[System, list[DelayResult]] = {}
    for system in plan.systems:
        done = await run_round_trips(
            pool,
            _ROLES[system],
            DelayResult,
            bus=pool.new_bus().updated({"delivery": "at-least-once"}),
            count=max(1, min(_TRIPS, plan.count_or(_COUNT) // _MANY_FOR_A_TRIP)),
            size=plan.size,
        )
        runs.setdefault(system, []).append(done)
    return [delay_row(ROUND_TRIP, system, done) for system, done in runs.items()]


def _checks(many: list[Row], trips: list[Row]) -> tuple[Check, ...]:
    """The ratios to each of the other systems; nothing of ours may be lost."""
    ours, *others = many
    our_trip, *other_trips = trips
    rates = [
        Check.of(f"{NAME} / {one.system}", ratio(ours.messages_per_s, one.messages_per_s))
        for one in others
    ]
    delays = [
        Check.of(f"{NAME} p50 / {one.system}", ratio(our_trip.p50_ms, one.p50_ms))
        for one in other_trips
    ]
    return (*rates, *delays, Check.of(f"lost in {NAME}", ours.lost, at_most=0))
