"""The price of a follower: 20,000 messages a second with one that filters, beside the same without."""

import asyncio
import time

from msgspec.structs import replace

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.cases.one_way import Run, ThroughputCase, case_row, run_case
from pbus.bench.meter import IDLE_S, wait_complete_or_idle
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import CHOSEN_EVERY, FollowResult, RoleConfig
from pbus.bench.results import CaseResult, Check, Plan, Row, ratio
from pbus.bus.connect import make_bus
from pbus.client.project_client import Client

NAME = "follow"
RATE = 20_000  # messages a second
_COUNT = 100_000
_CHOSEN = r'"number":\d*0[,}]'  # one of CHOSEN_EVERY
_AT_LEAST = 0.90  # of the throughput without a follower


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure both in turn."""
    alone = ThroughputCase(
        name="follow: no follower", count=plan.count_or(_COUNT), size=plan.size, rate=RATE
    )
    cases = (alone, replace(alone, name="follow: one that filters", is_followed=True))
    runs: list[list[Run]] = [[], []]
    for _ in range(plan.rounds):
        for case, done in zip(cases, runs, strict=True):
            done.append(await run_case(pool, case, "pbus"))
    rows = [case_row(case, "pbus", done) for case, done in zip(cases, runs, strict=True)]
    return CaseResult(rows=(*rows, _follower_row(rows[1], runs[1])), checks=_checks(rows, runs[1]))


def _follower_row(beside: Row, runs: list[Run]) -> Row:
    """The follower's own row: its processor time is for each message that passed."""
    follows = [one for run in runs for one in run.followed]
    cpu_s = sum(one.cpu_s for one in follows)
    return Row(
        name="follow: the follower",
        count=sum(one.count for one in follows),
        receiver_cpu_us=cpu_s / beside.count * 1e6 if beside.count else None,
    )


def _checks(rows: list[Row], runs: list[Run]) -> tuple[Check, ...]:
    alone, beside = rows
    handled = sum(one.chosen for run in runs for one in run.received)
    follows = [one for run in runs for one in run.followed]
    return (
        Check.of(
            "throughput with a follower / without",
            ratio(beside.messages_per_s, alone.messages_per_s),
            at_least=_AT_LEAST,
        ),
        Check.of(
            "counted otherwise by follower than by worker: lost",
            abs(sum(one.count for one in follows) - handled),
            at_most=0,
        ),
        Check.of("lost to the follower", sum(one.missed for one in follows), at_most=0),
    )


async def follow(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the messages that a filter chooses, by target, type and text."""
    count, complete = 0, asyncio.Event()
    expected = -(-config.count // CHOSEN_EVERY)
    cpu_s = 0.0

    async def read() -> None:
        nonlocal count, cpu_s
        async for _ in tail:
            count += 1
            cpu_s = time.process_time() - began
            if count == expected:
                complete.set()

    async with (
        Client(make_bus(config.bus)) as client,
        client.tail(target=config.name, type=BenchMessage.__name__, pattern=_CHOSEN) as tail,
        asyncio.TaskGroup() as group,
    ):
        began = time.process_time()
        reading = group.create_task(read())
        control.send_ready()
        await wait_complete_or_idle(control, complete, lambda: count, IDLE_S)
        reading.cancel()
        control.send(FollowResult(count=count, missed=tail.missed, cpu_s=cpu_s))
