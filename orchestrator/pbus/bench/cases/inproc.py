"""In process: what a message to one worker costs when many others are on the bus."""

import asyncio

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import RoleConfig, Sent, Stopwatch
from pbus.bench.results import Check, Findings, Plan, Row, percentile, ratio
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusMessage

_COUNT = 100_000
_FEW = 1
_MANY = 1_000
_ROUNDS = 45  # short ones, in turn: what else the machine does meets both sides of a pair
_AT_LEAST = 0.9
_DONE_S = 120.0


async def measure(stage: BenchProcesses, plan: Plan) -> Findings:
    """Measure it with one worker and with a thousand."""
    count = max(1, plan.count_or(_COUNT) // _ROUNDS)
    runs: dict[int, list[Sent]] = {_FEW: [], _MANY: []}
    parts = [RoleConfig(count=count, size=plan.size, workers=workers) for workers in runs]
    async with stage.cast(*(("host", part) for part in parts)) as players:
        for _ in range(_ROUNDS):
            for player, workers in zip(players, runs, strict=True):
                player.cue()
                runs[workers].append(await player.answer(Sent))
    rows = tuple(_row(workers, runs[workers]) for workers in runs)
    pairs = zip(runs[_FEW], runs[_MANY], strict=True)
    value = percentile([ratio(few.cpu_s, many.cpu_s) for few, many in pairs], 50) or 0.0
    name = f"in process, {_MANY:,} workers / {_FEW}"
    return Findings(rows=rows, checks=(Check.of(name, value, at_least=_AT_LEAST),))


def _row(workers: int, runs: list[Sent]) -> Row:
    """Rate by the clock, cost by processor time, which other processes disturb less."""
    return Row(
        name=f"in process, {workers:,} workers" if workers > 1 else "in process, 1 worker",
        count=sum(run.count for run in runs),
        receivers=workers,
        messages_per_s=percentile([run.count / run.seconds for run in runs], 50),
        receiver_cpu_us=percentile([run.cpu_s / run.count * 1e6 for run in runs], 50),
    )


class _Counter(BusSubscriber):
    """Counts, and says when all came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = 0
        self.done = asyncio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        del message
        self.left -= 1
        if self.left == 0:
            self.done.set()


async def host(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: hold workers; at each cue send to the last of them and say what it took."""
    counters = [_Counter(f"worker{number}") for number in range(part.workers)]
    async with AsyncQueueBus(channel="bench") as bus:
        for counter in counters:
            await bus.subscribe(counter)
        await _exchange(bus, counters[-1], part)  # warms up
        cues.say_ready()
        while True:
            await cues.next()
            cues.say(await _exchange(bus, counters[-1], part))


async def _exchange(bus: AsyncQueueBus, counter: _Counter, part: RoleConfig) -> Sent:
    counter.left = part.count
    counter.done.clear()
    text = "x" * part.size
    watch = Stopwatch()
    for number in range(part.count):
        await bus.send(BenchMessage(source="bench", target=counter.name, number=number, text=text))
    async with asyncio.timeout(_DONE_S):
        await counter.done.wait()
    return watch.sent(part.count)
