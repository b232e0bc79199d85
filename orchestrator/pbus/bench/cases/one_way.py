"""Many messages in one direction; throughput, fan-out and stall are such cases."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.meter import SAMPLE_EVERY, Meter
from pbus.bench.processes.bus_handle import Handler, hosted
from pbus.bench.processes.concurrent_send import send_all
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses, results_of
from pbus.bench.processes.roles import (
    FollowResult,
    ReceiveResult,
    RoleConfig,
    SendResult,
    Stopwatch,
)
from pbus.bench.results import SHARE, Percentiles, Plan, Row, System
from pbus.messages import BusMessage
from pbus.settings import BusOptions, BusSettings

Send = Callable[[BusMessage], Awaitable[object]]

_STEP_S = 0.005  # of a paced sender
_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("send", "receive"),
    "redis-py": ("redis-send", "redis-receive"),
    "pgmq": ("pgmq-send", "pgmq-receive"),
    "nats-py": ("nats-send", "nats-receive"),
    "pipecat": ("pipecat-send", "pipecat-receive"),
    "taskiq": ("taskiq-send", "taskiq-receive"),
    "arq": ("arq-send", "arq-receive"),
    "dramatiq": ("dramatiq-send", "dramatiq-receive"),
    "procrastinate": ("procrastinate-send", "procrastinate-receive"),
}
_DURABLE_ROLES: dict[System, tuple[str, str]] = {**_ROLES, "redis-py": ("redis-add", "redis-read")}


class ThroughputCase(msgspec.Struct, frozen=True, kw_only=True):
    """Messages from one sender to one or more receivers.

    Attributes:
        count: Messages sent; a broadcast is handled by every receiver.
        pause_s: How long the receivers sleep in the middle.
        is_blocked: That sleep blocks the whole process, not only the handler.
        is_bare: Sender and receivers are not workers: the bus alone.
        is_durable: Messages are stored in the broker until handled.
        rate: Messages a second that are sent; 0 for as many as the bus takes.
        is_followed: One more process follows the messages, and shows one of ten.
        bus: More settings of the bus.
    """

    name: str
    count: int
    size: int
    receivers: int = 1
    is_broadcast: bool = False
    pause_s: float = 0.0
    is_blocked: bool = False
    is_bare: bool = False
    is_durable: bool = False
    rate: int = 0
    is_followed: bool = False
    bus: BusOptions = msgspec.field(default_factory=BusOptions)

    def for_system(self, system: System) -> "ThroughputCase":
        """As much of this case as a system can do in about the same time."""
        return replace(self, count=max(self.receivers, int(self.count * SHARE[system])))

    @property
    def share(self) -> int:
        """The messages that each receiver is to get."""
        return self.count if self.is_broadcast else self.count // self.receivers


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one run of a case."""

    sent: SendResult
    received: list[ReceiveResult]
    followed: list[FollowResult] = []


async def measure_case(pool: BenchProcesses, case: ThroughputCase, plan: Plan) -> list[Row]:
    """Measure a case, with the baseline in turn.

    Returns:
        A row for each system.
    """
    return await measure_cases(pool, [(case, plan)], plan.rounds)


async def measure_cases(
    pool: BenchProcesses, cases: Sequence[tuple[ThroughputCase, Plan]], rounds: int
) -> list[Row]:
    """Measure cases in turn, so that a busy machine treats all alike.

    Returns:
        A row for each case and system.
    """
    turns = [(case, system) for case, plan in cases for system in dict.fromkeys(plan.systems)]
    runs: list[list[Run]] = [[] for _ in turns]
    for _ in range(rounds):
        for (case, system), done in zip(turns, runs, strict=True):
            done.append(await run_case(pool, case.for_system(system), system))
    return [case_row(*turn, done) for turn, done in zip(turns, runs, strict=True)]


async def run_case(pool: BenchProcesses, case: ThroughputCase, system: System) -> Run:
    """Run a case once, with processes of its own."""
    names = tuple(f"receiver{number}" for number in range(1, case.receivers + 1))
    sending, receiving = (_DURABLE_ROLES if case.is_durable else _ROLES)[system]
    config = RoleConfig(
        bus=_bus(pool, case),
        size=case.size,
        count=case.share,
        pause_s=case.pause_s,
        is_blocked=case.is_blocked,
        is_bare=case.is_bare,
        rate=case.rate,
    )
    for_sender = replace(
        config,
        name="sender",
        count=case.share if case.is_broadcast else case.share * case.receivers,
        targets=() if case.is_broadcast else names,
    )
    for_receivers = [(receiving, replace(config, name=name)) for name in names]
    followers = [("follow", replace(config, name=names[0]))] if case.is_followed else []
    async with pool.running(*for_receivers, *followers, (sending, for_sender)) as processes:
        *readers, sender = processes
        sender.go()
        sent = await sender.result(SendResult)
        for reader in readers:
            reader.go()
        return Run(
            sent=sent,
            received=await results_of(readers[: case.receivers], ReceiveResult),
            followed=await results_of(readers[case.receivers :], FollowResult),
        )


def _bus(pool: BenchProcesses, case: ThroughputCase) -> BusSettings:
    options: BusOptions = {"delivery": "at-least-once"} if case.is_durable else {}
    return pool.new_bus().updated({**case.bus, **options})


def case_row(case: ThroughputCase, system: System, runs: list[Run]) -> Row:
    """The row of a case, from several runs."""
    received = [one for run in runs for one in run.received]
    handled, sent = _sum("count", received), _sum("count", [run.sent for run in runs])
    seconds = sum(map(_duration, runs))
    rate = handled / seconds if seconds else None
    delays = _slowest(received)
    return Row(
        name=case.name,
        system=system,
        count=handled,
        receivers=case.receivers,
        messages_per_s=rate,
        megabytes_per_s=None if rate is None else rate * case.size / 1e6,
        p50_ms=delays.p50_ms,
        p90_ms=delays.p90_ms,
        p99_ms=delays.p99_ms,
        sender_cpu_us=_sum("cpu_s", [run.sent for run in runs]) / sent * 1e6,
        receiver_cpu_us=_sum("cpu_s", received) / handled * 1e6 if handled else None,
        lost=_sum("expected", received) - handled,
        misordered=_sum("misordered", received),
        duplicates=_sum("duplicates", received),
    )


def _sum(field: str, results: Sequence[SendResult | ReceiveResult]) -> Any:
    return sum(getattr(result, field) for result in results)


def _duration(run: Run) -> float:
    reached = [one for one in run.received if one.count]
    if not reached:
        return 0.0
    return max(one.last for one in reached) - min(one.first for one in reached)


def _slowest(received: list[ReceiveResult]) -> Percentiles:
    """The delays of the slowest receiver; the baseline's messages carry no time."""
    return max(
        (one.delays for one in received if one.delays.p99_ms is not None),
        key=lambda delays: delays.p99_ms or 0.0,
        default=Percentiles(),
    )


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send as fast as the bus takes it."""
    text = "x" * config.size
    targets = config.targets or (None,)
    width = len(targets)
    async with hosted(config) as (bus, send_one):
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        messages = (
            BenchMessage(
                source=config.name,
                target=targets[number % width],
                number=number // width,
                text=text,
            )
            for number in range(config.count)
        )
        await send_all(bus, paced(send_one, config.rate), messages)
        await bus.stop()  # writes out its send buffer
        control.send(watch.sent(config.count))


def paced(send_one: Send, rate: int) -> Send:
    """A function that sends at a rate: each 5 ms what is due by then; 0 for as fast as it can."""
    if not rate:
        return send_one
    sent = 0
    began: float | None = None

    async def send_in_time(message: BusMessage) -> object:
        nonlocal sent, began
        now = asyncio.get_running_loop().time()
        began = now if began is None else began
        ahead_s = sent / rate - (now - began)
        if ahead_s > _STEP_S:
            await asyncio.sleep(ahead_s)
        sent += 1
        return await send_one(message)

    return send_in_time


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the messages that arrive."""
    meter = Meter(config.count, pause_s=config.pause_s)
    handle = _sleeping(config, meter) if config.pause_s else _counting(meter)
    async with hosted(config, handle):
        control.send_ready()
        control.send(await meter.result(control))


def _counting(meter: Meter) -> Handler:
    async def handle(message: BusMessage) -> None:
        if type(message) is BenchMessage:
            meter.record(message.number)
            if not message.number % SAMPLE_EVERY:
                meter.record_delay(message.time)

    return handle


def _sleeping(config: RoleConfig, meter: Meter) -> Handler:
    count = _counting(meter)

    async def handle(message: BusMessage) -> None:
        await count(message)
        if meter.count == config.count // 2:
            if config.is_blocked:
                time.sleep(config.pause_s)  # noqa: ASYNC251 - that is the point
            else:
                await asyncio.sleep(config.pause_s)

    return handle
