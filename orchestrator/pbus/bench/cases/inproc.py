"""In process: the cost of a message to one worker when many others are on the bus."""

import asyncio

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import RoleConfig, SendResult, Stopwatch
from pbus.bench.results import CaseResult, Check, Plan, Row, percentile, ratio
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusMessage

_COUNT = 100_000
_FEW = 1
_MANY = 1_000
_ROUNDS = 45  # short ones, in turn: what else the machine does meets both sides of a pair
_AT_LEAST = 0.9
_DONE_S = 120.0


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure it with one worker and with a thousand."""
    count = max(1, plan.count_or(_COUNT) // _ROUNDS)
    runs: dict[int, list[SendResult]] = {_FEW: [], _MANY: []}
    configs = [RoleConfig(count=count, size=plan.size, workers=workers) for workers in runs]
    async with pool.running(*(("host", config) for config in configs)) as processes:
        for _ in range(_ROUNDS):
            for process, workers in zip(processes, runs, strict=True):
                process.go()
                runs[workers].append(await process.result(SendResult))
    rows = tuple(_row(workers, runs[workers]) for workers in runs)
    pairs = zip(runs[_FEW], runs[_MANY], strict=True)
    value = percentile([ratio(few.cpu_s, many.cpu_s) for few, many in pairs], 50) or 0.0
    name = f"in process, {_MANY:,} workers / {_FEW}"
    return CaseResult(rows=rows, checks=(Check.of(name, value, at_least=_AT_LEAST),))


def _row(workers: int, runs: list[SendResult]) -> Row:
    """Rate by the clock, cost by processor time, which other processes disturb less."""
    return Row(
        name=f"in process, {workers:,} workers" if workers > 1 else "in process, 1 worker",
        count=sum(run.count for run in runs),
        receivers=workers,
        messages_per_s=percentile([run.count / run.seconds for run in runs], 50),
        receiver_cpu_us=percentile([run.cpu_s / run.count * 1e6 for run in runs], 50),
    )


class _Counter(BusSubscriber):
    """Counts messages, and tells when all of them came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = 0
        self.done = asyncio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        del message
        self.left -= 1
        if self.left == 0:
            self.done.set()


async def host(config: RoleConfig, control: ControlPipe) -> None:
    """Role: host subscribers; at each order send to the last of them and return the cost."""
    counters = [_Counter(f"worker{number}") for number in range(config.workers)]
    async with AsyncQueueBus(channel="bench") as bus:
        for counter in counters:
            await bus.subscribe(counter)
        await _exchange(bus, counters[-1], config)  # warms up
        control.send_ready()
        while True:
            await control.receive()
            control.send(await _exchange(bus, counters[-1], config))


async def _exchange(bus: AsyncQueueBus, counter: _Counter, config: RoleConfig) -> SendResult:
    counter.left = config.count
    counter.done.clear()
    text = "x" * config.size
    watch = Stopwatch()
    for number in range(config.count):
        await bus.send(BenchMessage(source="bench", target=counter.name, number=number, text=text))
    async with asyncio.timeout(_DONE_S):
        await counter.done.wait()
    return watch.sent(config.count)
