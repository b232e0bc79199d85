"""Many messages in one direction: what throughput, fan-out and stall are made of."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.cases.concurrent_send import send_all
from pbus.bench.meter import SAMPLE_EVERY, Meter
from pbus.bench.processes.bus_handle import Handler, hosted
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses, answers_of
from pbus.bench.processes.roles import Received, RoleConfig, Sealing, Sent, Stopwatch
from pbus.bench.results import SHARE, Percentiles, Plan, Row, System
from pbus.messages import BusMessage

_ROLES: dict[System, tuple[str, str]] = {
    "pbus": ("send", "receive"),
    "redis-py": ("redis-send", "redis-receive"),
    "pgmq": ("pgmq-send", "pgmq-receive"),
}
_DURABLE_ROLES: dict[System, tuple[str, str]] = {**_ROLES, "redis-py": ("redis-add", "redis-read")}


class ThroughputCase(msgspec.Struct, frozen=True, kw_only=True):
    """One flow of messages.

    Attributes:
        count: Messages sent; a broadcast is handled by every receiver.
        pause_s: How long the receivers sleep in the middle.
        is_blocked: That sleep blocks the whole process, not only the handler.
        is_bare: Sender and receivers are not workers: the bus alone.
        is_durable: Messages are kept in the broker until handled.
        seal: What the bus does with a key, see RoleConfig.
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
    seal: Sealing = ""

    def for_system(self, system: System) -> "ThroughputCase":
        """As much of it as a system can do in about the same time."""
        return replace(self, count=max(self.receivers, int(self.count * SHARE[system])))

    @property
    def share(self) -> int:
        """Messages each receiver is to get."""
        return self.count if self.is_broadcast else self.count // self.receivers


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one flow was like."""

    sent: Sent
    received: list[Received]


async def measure_flow(stage: BenchProcesses, flow: ThroughputCase, plan: Plan) -> list[Row]:
    """Measure a flow, with the baseline in turn; a row for each system."""
    return await measure_flows(stage, [(flow, plan)], plan.rounds)


async def measure_flows(
    stage: BenchProcesses, flows: Sequence[tuple[ThroughputCase, Plan]], rounds: int
) -> list[Row]:
    """Measure flows in turn, so that a busy machine treats all alike; their rows one by one."""
    turns = [(flow, system) for flow, plan in flows for system in dict.fromkeys(plan.systems)]
    runs: list[list[Run]] = [[] for _ in turns]
    for _ in range(rounds):
        for (flow, system), done in zip(turns, runs, strict=True):
            done.append(await _run(stage, flow.for_system(system), system))
    return [flow_row(*turn, done) for turn, done in zip(turns, runs, strict=True)]


async def _run(stage: BenchProcesses, flow: ThroughputCase, system: System) -> Run:
    names = tuple(f"receiver{number}" for number in range(1, flow.receivers + 1))
    sending, receiving = (_DURABLE_ROLES if flow.is_durable else _ROLES)[system]
    part = RoleConfig(
        url=stage.url,
        channel=stage.new_channel(),
        size=flow.size,
        count=flow.share,
        pause_s=flow.pause_s,
        is_blocked=flow.is_blocked,
        is_bare=flow.is_bare,
        is_durable=flow.is_durable,
        seal=flow.seal,
    )
    for_sender = replace(
        part,
        name="sender",
        count=flow.share if flow.is_broadcast else flow.share * flow.receivers,
        targets=() if flow.is_broadcast else names,
    )
    for_receivers = [(receiving, replace(part, name=name)) for name in names]
    async with stage.cast(*for_receivers, (sending, for_sender)) as players:
        *receivers, sender = players
        sender.cue()
        sent = await sender.answer(Sent)
        for receiver in receivers:
            receiver.cue()
        return Run(sent=sent, received=await answers_of(receivers, Received))


def flow_row(flow: ThroughputCase, system: System, runs: list[Run]) -> Row:
    """Several runs of one flow in one row."""
    received = [one for run in runs for one in run.received]
    handled = sum(one.count for one in received)
    seconds = sum(_duration(run) for run in runs)
    rate = handled / seconds if seconds else None
    sent = sum(run.sent.count for run in runs)
    delays = _slowest(received)
    return Row(
        name=flow.name,
        system=system,
        count=handled,
        receivers=flow.receivers,
        messages_per_s=rate,
        megabytes_per_s=None if rate is None else rate * flow.size / 1e6,
        p50_ms=delays.p50_ms,
        p90_ms=delays.p90_ms,
        p99_ms=delays.p99_ms,
        sender_cpu_us=sum(run.sent.cpu_s for run in runs) / sent * 1e6,
        receiver_cpu_us=sum(one.cpu_s for one in received) / handled * 1e6 if handled else None,
        lost=sum(one.expected - one.count for one in received),
        misordered=sum(one.misordered for one in received),
        duplicates=sum(one.duplicates for one in received),
    )


def _duration(run: Run) -> float:
    heard = [one for one in run.received if one.count]
    if not heard:
        return 0.0
    return max(one.last for one in heard) - min(one.first for one in heard)


def _slowest(received: list[Received]) -> Percentiles:
    """The delays of the slowest receiver; the baseline's messages carry no time."""
    return max(
        (one.delays for one in received if one.delays.p99_ms is not None),
        key=lambda delays: delays.p99_ms or 0.0,
        default=Percentiles(),
    )


async def send(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: send as fast as the bus takes it."""
    text = "x" * part.size
    targets = part.targets or (None,)
    width = len(targets)
    async with hosted(part) as (bus, send_one):
        cues.say_ready()
        await cues.next()
        watch = Stopwatch()
        messages = (
            BenchMessage(
                source=part.name, target=targets[number % width], number=number // width, text=text
            )
            for number in range(part.count)
        )
        await send_all(bus, send_one, messages)
        await bus.stop()  # writes out what it took
        cues.say(watch.sent(part.count))


async def receive(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: count what arrives."""
    meter = Meter(part.count, pause_s=part.pause_s)
    handle = _sleepy(part, meter) if part.pause_s else _counting(meter)
    async with hosted(part, handle):
        cues.say_ready()
        cues.say(await meter.finished(cues))


def _counting(meter: Meter) -> Handler:
    async def handle(message: BusMessage) -> None:
        if type(message) is BenchMessage:
            meter.note(message.number)
            if not message.number % SAMPLE_EVERY:
                meter.note_delay(message.time)

    return handle


def _sleepy(part: RoleConfig, meter: Meter) -> Handler:
    count = _counting(meter)

    async def handle(message: BusMessage) -> None:
        await count(message)
        if meter.count == part.count // 2:
            if part.is_blocked:
                time.sleep(part.pause_s)  # noqa: ASYNC251 - that is the point
            else:
                await asyncio.sleep(part.pause_s)

    return handle
