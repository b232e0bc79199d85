"""Urgent: how soon a system message is handled while data messages queue before a busy handler."""

import asyncio
import random
import time

from pbus.bench.bench_messages import BenchMessage, BenchUrgentMessage
from pbus.bench.meter import all_or_quiet
from pbus.bench.processes.bus_handle import hosted
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import Delays, RoleConfig, Sent, Stopwatch
from pbus.bench.results import Check, Findings, Percentiles, Plan, Row, ratio
from pbus.bus.base import WorkerBus
from pbus.messages import BusMessage

_COUNT = 20_000
_FACTOR = 10  # the second queue is so many times longer
_BUSY_S = 0.0002
_GAP_S = 0.02  # the longest time between two tries
_FEEDERS = 100  # tasks that wait in send(): the part of the queue the receiver does not hold yet
_AT_MOST_MS = 5.0
_NO_SLOWER = 1.3  # p50 behind the long queue, as a multiple of behind the short one
_STILL_S = 0.02  # nothing more was taken for so long: the receiver holds what it can
_FULL_S = 10.0


async def measure(stage: BenchProcesses, plan: Plan) -> Findings:
    """Measure it behind a queue and behind one ten times as long."""
    short = plan.count_or(_COUNT)
    rows, checks = [], []
    for backlog in (short, short * _FACTOR):
        row, ahead = await _run(stage, plan, backlog)
        rows.append(row)
        checks += [
            Check.of(f"{row.name} p99", row.p99_ms or 0.0, at_most=_AT_MOST_MS, unit="ms"),
            Check.of(f"{row.name}: queued at the last try", ahead, at_least=backlog),
        ]
    slower = ratio(rows[1].p50_ms, rows[0].p50_ms)
    checks.append(Check.of("urgent p50, long queue / short", slower, at_most=_NO_SLOWER))
    return Findings(rows=tuple(rows), checks=tuple(checks))


class BusyResult(Delays, frozen=True, kw_only=True):
    """What the busy receiver answers.

    Attributes:
        ahead: The least number of data messages unhandled when an urgent one was.
    """

    handled: int
    ahead: int


async def _run(stage: BenchProcesses, plan: Plan, backlog: int) -> tuple[Row, int]:
    """Measure it behind one queue: the row, and how long the queue was at the last try."""
    total = backlog + int(plan.tries * _GAP_S / _BUSY_S)  # so that the last try finds it, too
    channel = stage.new_channel()
    toiler = RoleConfig(
        url=stage.url,
        channel=channel,
        name="toiler",
        count=total,
        tries=plan.tries,
        busy_s=_BUSY_S,
    )
    crowd = RoleConfig(
        url=stage.url,
        channel=channel,
        name="crowd",
        targets=("toiler",),
        count=total,
        size=plan.size,
        tries=plan.tries,
    )
    async with stage.cast(("toil", toiler), ("crowd", crowd)) as (receiver, sender):
        sender.cue()
        sent = await sender.answer(Sent)
        receiver.cue()
        toiled = await receiver.answer(BusyResult)
    brief = Percentiles.of_seconds(toiled.delays)
    row = Row(
        name=f"urgent behind {backlog:,}",
        count=len(toiled.delays),
        p50_ms=brief.p50_ms,
        p90_ms=brief.p90_ms,
        p99_ms=brief.p99_ms,
        sender_cpu_us=sent.cpu_s / total * 1e6,
        receiver_cpu_us=toiled.cpu_s / total * 1e6,
        lost=total - toiled.handled + plan.tries - len(toiled.delays),
    )
    return row, toiled.ahead


async def toil(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: handle data slowly until the last urgent message came, then quickly."""
    delays: list[float] = []
    complete = asyncio.Event()
    handled = 0
    ahead = part.count

    async def handle(message: BusMessage) -> None:
        nonlocal handled, ahead
        if type(message) is BenchUrgentMessage:
            delays.append(time.monotonic() - message.sent_at)
            ahead = min(ahead, part.count - handled)
        elif type(message) is BenchMessage:
            if len(delays) < part.tries:
                _keep_busy(part.busy_s)
            handled += 1
        if (handled, len(delays)) == (part.count, part.tries):
            complete.set()

    async with hosted(part, handle):
        cues.say_ready()
        watch = Stopwatch()
        await all_or_quiet(cues, complete, lambda: handled + len(delays))
        cues.say(BusyResult(delays=delays, cpu_s=watch.cpu_s, handled=handled, ahead=ahead))


def _keep_busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def crowd(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: keep the receiver's queue full, and send an urgent message now and then."""
    target = part.targets[0]
    text = "x" * part.size
    numbers = iter(range(part.count))
    async with hosted(part) as (bus, send):

        async def feed() -> None:
            for number in numbers:
                await send(BenchMessage(source=part.name, target=target, number=number, text=text))

        cues.say_ready()
        await cues.next()
        watch = Stopwatch()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_FEEDERS):
                tasks.create_task(feed())
            await _until_held_back(bus)
            for _ in range(part.tries):
                await asyncio.sleep(random.uniform(0, _GAP_S))  # noqa: S311 - no secret
                sent_at = time.monotonic()
                await send(BenchUrgentMessage(source=part.name, target=target, sent_at=sent_at))
        await bus.stop()
        cues.say(watch.sent(part.count))


async def _until_held_back(bus: WorkerBus) -> None:
    before = -1
    async with asyncio.timeout(_FULL_S):
        while bus.counters.sent != before:
            before = bus.counters.sent
            await asyncio.sleep(_STILL_S)
