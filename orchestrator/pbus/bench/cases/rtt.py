"""Round trip: one message there and one back, one at a time."""

import asyncio
import time
from typing import TypeVar

from pbus.bench.bench_messages import BenchEchoMessage, BenchMessage
from pbus.bench.processes.bus_handle import hosted
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import DelayResult, RoleConfig
from pbus.bench.results import SHARE, CaseResult, Check, Percentiles, Plan, Row, System, ratio
from pbus.messages import BusMessage
from pbus.settings import BusOptions, BusSettings

T = TypeVar("T")

_COUNT = 4_000
_WARM_UP = 50  # round trips before the clock starts
_ANSWER_S = 10.0
_AT_MOST: dict[System, float] = {
    "redis-py": 1.3,
    "pgmq": 1 / 30,
    "nats-py": 0.35,
}  # times that client
_DIRECT_AT_MOST = 0.65  # times the way by the broker
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("pong", "ping"),
    "redis-py": ("redis-pong", "redis-ping"),
    "pgmq": ("pgmq-pong", "pgmq-ping"),
    "nats-py": ("nats-pong", "nats-ping"),
}


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it, with the baseline in turn; ours by direct sockets, too, where the bus has them."""
    count = max(1, plan.count_or(_COUNT) // plan.rounds)
    runs: dict[System, list[DelayResult]] = {}
    direct: list[DelayResult] = []
    for system in plan.systems:
        share = max(1, int(count * SHARE[system]))
        bus = pool.new_bus().updated(BusOptions(direct=False))
        runs.setdefault(system, []).append(
            await run_round_trips(
                pool, _ROLES[system], DelayResult, count=share, size=plan.size, bus=bus
            )
        )
        if system == "pbus" and plan.baseline != "pgmq":
            bus = pool.new_bus().updated(BusOptions(direct=True))
            direct.append(
                await run_round_trips(
                    pool, _ROLES[system], DelayResult, count=share, size=plan.size, bus=bus
                )
            )
    rows = tuple(delay_row("rtt", system, runs[system]) for system in runs)
    ours, *others = rows
    best = delay_row("rtt: direct", "pbus", direct) if direct else ours
    checks = [
        _check(best if theirs.system == "nats-py" else ours, theirs, _AT_MOST[theirs.system])
        for theirs in others
    ]
    if direct:
        value = ratio(best.p50_ms, ours.p50_ms)
        checks.append(Check.of("rtt p50, direct / broker", value, at_most=_DIRECT_AT_MOST))
        rows = (ours, best, *others)
    return CaseResult(rows=rows, checks=tuple(checks))


def _check(ours: Row, theirs: Row, at_most: float) -> Check:
    value = ratio(ours.p50_ms, theirs.p50_ms)
    return Check.of(f"{ours.name} p50 / {theirs.system}", value, at_most=at_most)


async def run_round_trips(
    pool: BenchProcesses,
    roles: tuple[str, str],
    kind: type[T],
    *,
    count: int,
    size: int,
    bus: BusSettings | None = None,
) -> T:
    """Run two processes on a bus of their own.

    Args:
        pool: Starts them.
        roles: Of the one that answers and of the one that measures.
        kind: The result of the second one.
        count: Round trips.
        size: Bytes of text each.
        bus: The bus; None for the usual one.

    Returns:
        The result.
    """
    answering, requesting = roles
    bus = bus or pool.new_bus()
    pong = RoleConfig(bus=bus, name="pong", targets=("ping",))
    ping = RoleConfig(bus=bus, name="ping", targets=("pong",), count=count, size=size)
    async with pool.running((answering, pong), (requesting, ping)) as (_, requester):
        requester.go()
        return await requester.result(kind)


def delay_row(name: str, system: System, runs: list[DelayResult]) -> Row:
    """The row of round trips that were made one at a time."""
    delays = [delay for run in runs for delay in run.delays]
    brief = Percentiles.of_seconds(delays)
    return Row(
        name=name,
        system=system,
        count=len(delays),
        messages_per_s=len(delays) / sum(delays),
        p50_ms=brief.p50_ms,
        p90_ms=brief.p90_ms,
        p99_ms=brief.p99_ms,
        sender_cpu_us=sum(run.cpu_s for run in runs) / len(delays) * 1e6,
    )


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send, wait for the echo, again."""
    loop = asyncio.get_running_loop()
    echo: asyncio.Future[None] = loop.create_future()

    async def handle(message: BusMessage) -> None:
        if type(message) is BenchEchoMessage and not echo.done():
            echo.set_result(None)

    delays = []
    text = "x" * config.size
    async with hosted(config, handle) as (_, send):
        control.send_ready()
        await control.receive()
        for number in range(-_WARM_UP, config.count):
            if number == 0:
                cpu = time.process_time()
            started = time.perf_counter()
            await send(
                BenchMessage(source=config.name, target=config.targets[0], number=number, text=text)
            )
            async with asyncio.timeout(_ANSWER_S):
                await echo
            delays.append(time.perf_counter() - started)
            echo = loop.create_future()
        control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: answer each message, until the pool is gone."""

    async def handle(message: BusMessage) -> None:
        if type(message) is BenchMessage:
            await send(
                BenchEchoMessage(
                    source=config.name,
                    target=config.targets[0],
                    number=message.number,
                    text=message.text,
                )
            )

    async with hosted(config, handle) as (_, send):
        control.send_ready()
        await control.receive()
