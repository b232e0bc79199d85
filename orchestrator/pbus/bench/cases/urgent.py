"""Urgent: the delay of a system message while data messages queue before a busy handler."""

import asyncio
import random
import time

from pbus.bench.bench_messages import BenchMessage, BenchUrgentMessage
from pbus.bench.meter import wait_complete_or_idle
from pbus.bench.processes.bus_handle import hosted
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import DelayResult, RoleConfig, SendResult, Stopwatch
from pbus.bench.results import CaseResult, Check, Percentiles, Plan, Row, ratio
from pbus.bus.base import WorkerBus
from pbus.messages import BusMessage

_COUNT = 20_000
_FACTOR = 10  # the second queue is so many times longer
_BUSY_S = 0.0002
_GAP_S = 0.02  # the longest time between two tries
_FEEDERS = 100  # tasks that wait in send(): the part of the queue the receiver does not hold yet
_AT_MOST_MS, _AT_MOST_MS_LONG = 5.0, 1.0  # behind the short queue, behind the long one
_NO_SLOWER = 1.3  # p50 behind the long queue, as a multiple of behind the short one
_STILL_S = 0.02  # the sender is held back once nothing was sent for so long
_FULL_S = 10.0


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it behind a queue and behind one ten times as long."""
    short = plan.count_or(_COUNT)
    rows, checks = [], []
    for backlog, most in ((short, _AT_MOST_MS), (short * _FACTOR, _AT_MOST_MS_LONG)):
        row, ahead = await _run(pool, plan, backlog)
        rows.append(row)
        checks += [
            Check.of(f"{row.name} p99", row.p99_ms or 0.0, at_most=most, unit="ms"),
            Check.of(f"{row.name}: queued at the last try", ahead, at_least=backlog),
        ]
    slower = ratio(rows[1].p50_ms, rows[0].p50_ms)
    checks.append(Check.of("urgent p50, long queue / short", slower, at_most=_NO_SLOWER))
    return CaseResult(rows=tuple(rows), checks=tuple(checks))


class BusyResult(DelayResult, frozen=True, kw_only=True):
    """The result of the busy receiver.

    Attributes:
        handled: Data messages.
        ahead: The least number of data messages unhandled when an urgent one was handled.
    """

    handled: int
    ahead: int


async def _run(pool: BenchProcesses, plan: Plan, backlog: int) -> tuple[Row, int]:
    """Measure it behind one queue.

    Returns:
        The row, and the length of the queue at the last try.
    """
    total = backlog + int(plan.tries * _GAP_S / _BUSY_S)  # so that the last try finds it, too
    bus = pool.new_bus()
    for_receiver = RoleConfig(
        bus=bus, name="receiver", count=total, tries=plan.tries, busy_s=_BUSY_S
    )
    for_sender = RoleConfig(
        bus=bus,
        name="sender",
        targets=("receiver",),
        count=total,
        size=plan.size,
        tries=plan.tries,
    )
    roles = (("urgent-receive", for_receiver), ("urgent-send", for_sender))
    async with pool.running(*roles) as (receiver, sender):
        sender.go()
        sent = await sender.result(SendResult)
        receiver.go()
        received = await receiver.result(BusyResult)
    brief = Percentiles.of_seconds(received.delays)
    row = Row(
        name=f"urgent behind {backlog:,}",
        count=len(received.delays),
        p50_ms=brief.p50_ms,
        p90_ms=brief.p90_ms,
        p99_ms=brief.p99_ms,
        sender_cpu_us=sent.cpu_s / total * 1e6,
        receiver_cpu_us=received.cpu_s / total * 1e6,
        lost=total - received.handled + plan.tries - len(received.delays),
    )
    return row, received.ahead


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: handle data slowly until the last urgent message came, then quickly."""
    delays: list[float] = []
    complete = asyncio.Event()
    handled = 0
    ahead = config.count

    async def handle(message: BusMessage) -> None:
        nonlocal handled, ahead
        if type(message) is BenchUrgentMessage:
            delays.append(time.monotonic() - message.sent_at)
            ahead = min(ahead, config.count - handled)
        elif type(message) is BenchMessage:
            if len(delays) < config.tries:
                _keep_busy(config.busy_s)
            handled += 1
        if (handled, len(delays)) == (config.count, config.tries):
            complete.set()

    async with hosted(config, handle):
        control.send_ready()
        watch = Stopwatch()
        await wait_complete_or_idle(control, complete, lambda: handled + len(delays))
        control.send(BusyResult(delays=delays, cpu_s=watch.cpu_s, handled=handled, ahead=ahead))


def _keep_busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: keep the receiver's queue full, and send an urgent message now and then."""
    target = config.targets[0]
    text = "x" * config.size
    numbers = iter(range(config.count))
    async with hosted(config) as (bus, send_one):

        async def feed() -> None:
            for number in numbers:
                await send_one(
                    BenchMessage(source=config.name, target=target, number=number, text=text)
                )

        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_FEEDERS):
                tasks.create_task(feed())
            await _until_held_back(bus)
            for _ in range(config.tries):
                await asyncio.sleep(random.uniform(0, _GAP_S))  # noqa: S311 - no secret
                sent_at = time.monotonic()
                await send_one(
                    BenchUrgentMessage(source=config.name, target=target, sent_at=sent_at)
                )
        await bus.stop()
        control.send(watch.sent(config.count))


async def _until_held_back(bus: WorkerBus) -> None:
    before = -1
    async with asyncio.timeout(_FULL_S):
        while bus.counters.sent != before:
            before = bus.counters.sent
            await asyncio.sleep(_STILL_S)
