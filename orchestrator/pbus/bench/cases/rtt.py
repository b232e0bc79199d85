"""Round trip: one message there and one back, one at a time."""

import asyncio
import time

from pbus.bench.bench_messages import BenchEchoMessage, BenchMessage
from pbus.bench.processes.bus_handle import hosted
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import Delays, RoleConfig
from pbus.bench.results import SHARE, Check, Findings, Percentiles, Plan, Row, System, ratio
from pbus.messages import BusMessage

_COUNT = 4_000
_WARM_UP = 50  # round trips before the clock starts
_ANSWER_S = 10.0
_AT_MOST: dict[System, float] = {"redis-py": 1.3, "pgmq": 1 / 30}  # times that client
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("pong", "ping"),
    "redis-py": ("redis-pong", "redis-ping"),
    "pgmq": ("pgmq-pong", "pgmq-ping"),
}


async def measure(stage: BenchProcesses, plan: Plan) -> Findings:
    """Measure it, with the baseline in turn."""
    count = max(1, plan.count_or(_COUNT) // plan.rounds)
    runs: dict[System, list[Delays]] = {}
    for system in plan.systems:
        share = max(1, int(count * SHARE[system]))
        runs.setdefault(system, []).append(await _run(stage, system, share, plan.size))
    rows = tuple(_row(system, runs[system]) for system in runs)
    checks: tuple[Check, ...] = ()
    if plan.has_baseline:
        ours, theirs = rows
        value = ratio(ours.p50_ms, theirs.p50_ms)
        name = f"rtt p50 / {plan.baseline}"
        checks = (Check.of(name, value, at_most=_AT_MOST[plan.baseline]),)
    return Findings(rows=rows, checks=checks)


async def _run(stage: BenchProcesses, system: System, count: int, size: int) -> Delays:
    answering, asking = _ROLES[system]
    channel = stage.new_channel()
    pong = RoleConfig(url=stage.url, channel=channel, name="pong", targets=("ping",))
    ping = RoleConfig(
        url=stage.url, channel=channel, name="ping", targets=("pong",), count=count, size=size
    )
    async with stage.cast((answering, pong), (asking, ping)) as (_, asker):
        asker.cue()
        return await asker.answer(Delays)


def _row(system: System, runs: list[Delays]) -> Row:
    delays = [delay for run in runs for delay in run.delays]
    brief = Percentiles.of_seconds(delays)
    return Row(
        name="rtt",
        system=system,
        count=len(delays),
        messages_per_s=len(delays) / sum(delays),
        p50_ms=brief.p50_ms,
        p90_ms=brief.p90_ms,
        p99_ms=brief.p99_ms,
        sender_cpu_us=sum(run.cpu_s for run in runs) / len(delays) * 1e6,
    )


async def ping(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: send, wait for the echo, again."""
    loop = asyncio.get_running_loop()
    echo: asyncio.Future[None] = loop.create_future()

    async def handle(message: BusMessage) -> None:
        if type(message) is BenchEchoMessage and not echo.done():
            echo.set_result(None)

    delays = []
    text = "x" * part.size
    async with hosted(part, handle) as (_, send):
        cues.say_ready()
        await cues.next()
        for number in range(-_WARM_UP, part.count):
            if number == 0:
                cpu = time.process_time()
            begun = time.perf_counter()
            await send(
                BenchMessage(source=part.name, target=part.targets[0], number=number, text=text)
            )
            async with asyncio.timeout(_ANSWER_S):
                await echo
            delays.append(time.perf_counter() - begun)
            echo = loop.create_future()
        cues.say(Delays(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: answer each message, until the stage is gone."""

    async def handle(message: BusMessage) -> None:
        if type(message) is BenchMessage:
            await send(
                BenchEchoMessage(
                    source=part.name,
                    target=part.targets[0],
                    number=message.number,
                    text=message.text,
                )
            )

    async with hosted(part, handle) as (_, send):
        cues.say_ready()
        await cues.next()
