"""Held: durable messages flow while another session of the database holds an old snapshot.

A report, a dump or an idle transaction does that; the server can remove no dead row meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import replace

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.processes.bus_handle import hosted
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcess, BenchProcesses
from pbus.bench.processes.roles import RoleConfig, SendResult, Stopwatch
from pbus.bench.results import CaseResult, Check, Plan, Row, ratio
from pbus.errors import PbusError
from pbus.messages import BusMessage
from pbus.urls import BACKEND_OF_SCHEME, url_scheme

NAME = "held"
_SENDERS = 64  # tasks that each wait for the broker: entries of some dozens
_RECOVERY_WINDOWS = 3  # after the snapshot has gone
_DRAIN_S = 60.0
_POLL_S = 0.2
_LEAST_HELD, _LEAST_AFTER = 0.6, 0.95
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_catalog.pg_class LIMIT 1"


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """The number of messages handled until a time, in monotonic seconds."""

    count: int
    time: float


class FlowResult(SendResult, frozen=True, kw_only=True):
    """A sender's result; sends that failed are in `errors` and not in `count`."""

    errors: int


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure throughput before, at the end of and after a snapshot; on PGMQ only."""
    if BACKEND_OF_SCHEME.get(url_scheme(pool.url)) != "pgmq":
        return CaseResult()
    bus = pool.new_bus().updated({"delivery": "at-least-once"})
    receiving = RoleConfig(bus=bus, name="receiver", size=plan.size)
    sending = replace(receiving, name="sender", targets=("receiver",))
    async with pool.running(("flow-receive", receiving), ("flow-send", sending)) as processes:
        receiver, sender = processes
        sender.go()
        await _rate(receiver, plan.window_s / 2)  # until it flows
        before = await _rate(receiver, plan.window_s)
        async with _snapshot(pool.url):
            await asyncio.sleep(max(0.0, plan.held_s - plan.window_s))
            held = await _rate(receiver, plan.window_s)
        after = [await _rate(receiver, plan.window_s / 2) for _ in range(_RECOVERY_WINDOWS)]
        sender.go()
        sent = await sender.result(FlowResult)
        lost = sent.count - await _drained(receiver, sent.count)
    return CaseResult(rows=_rows(before, held, max(after), sent), checks=_checks(
        ratio(held, before), ratio(max(after), before), plan, sent.errors, lost))  # fmt: skip


def _rows(before: float, held: float, after: float, sent: FlowResult) -> tuple[Row, ...]:
    rates = {"before a held snapshot": before, "at its end": held, "after it": after}
    return tuple(
        Row(name=f"{NAME}: {name}", count=sent.count, messages_per_s=rate)
        for name, rate in rates.items()
    )


def _checks(held: float, after: float, plan: Plan, errors: int, lost: int) -> tuple[Check, ...]:
    name = f"throughput after {plan.held_s:g} s of a held snapshot / before"
    return (
        Check.of(name, held, at_least=_LEAST_HELD),
        Check.of("throughput after the snapshot / before", after, at_least=_LEAST_AFTER),
        Check.of(f"errors in {NAME}", errors, at_most=0),
        Check.of(f"lost in {NAME}", lost, at_most=0),
    )


@contextlib.asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[None]:
    """Hold a snapshot of the database within the block."""
    import asyncpg  # noqa: PLC0415 - only with PGMQ

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_SNAPSHOT)
        yield
    finally:
        await connection.close()


async def _counted(receiver: BenchProcess) -> Counted:
    receiver.go()
    return await receiver.result(Counted)


async def _rate(receiver: BenchProcess, seconds: float) -> float:
    """Messages a second that are handled in the next seconds."""
    first = await _counted(receiver)
    await asyncio.sleep(seconds)
    last = await _counted(receiver)
    return (last.count - first.count) / (last.time - first.time)


async def _drained(receiver: BenchProcess, count: int) -> int:
    """The number of messages handled, once all were or time is up."""
    ends_at = time.monotonic() + _DRAIN_S
    while (now := await _counted(receiver)).count < count and now.time < ends_at:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(_POLL_S)
    return now.count


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send until told to end, by tasks that each wait for the broker."""
    text, count, errors = "x" * config.size, 0, 0
    is_over = asyncio.Event()

    async def send_some() -> None:
        nonlocal count, errors
        while not is_over.is_set():
            message = BenchMessage(
                source=config.name, target=config.targets[0], number=count, text=text
            )
            try:
                await send_one(message)
            except PbusError:
                errors += 1
                await asyncio.sleep(_POLL_S)
            else:
                count += 1

    async with hosted(config) as (_, send_one):
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        async with asyncio.TaskGroup() as senders:
            for _ in range(_SENDERS):
                senders.create_task(send_some())
            await control.receive()
            is_over.set()
        sent = watch.sent(count)
        control.send(FlowResult(**msgspec.structs.asdict(sent), errors=errors))
        await control.receive()


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count messages, and tell how many there were each time that is asked."""
    count = 0

    async def handle(message: BusMessage) -> None:
        nonlocal count
        count += type(message) is BenchMessage

    async with hosted(config, handle):
        control.send_ready()
        while True:
            await control.receive()
            control.send(Counted(count=count, time=time.monotonic()))
