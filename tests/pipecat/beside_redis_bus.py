"""Pipecat's own RedisBus and PbusBus in turn, on one server: `.venv-pipecat/bin/python tests/pipecat/beside_redis_bus.py`.

Two processes; round trips are jobs, one at a time; the throughput is of targeted messages of 20 ms of audio,
from the first send to the last receipt, and the processor time of both for a frame: on a busy machine that
is what can be compared. `queue` is Pipecat's own bus within one process, where nothing is encoded or sent: what
its workers, jobs and queues take themselves, and so the floor of what any bus between processes may take.
`direct` is PbusBus with the sockets of `bus.direct` between the two. The last lines hold the ratios of the medians
against what is wanted.
"""

import asyncio
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipecat.bus import BusFrameMessage
from pipecat.bus.network.redis import RedisBus
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.pipeline.job_context import JobParams
from pipecat.pipeline.job_decorator import job
from pipecat.processors.frame_processor import FrameDirection
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner
from redis.asyncio import Redis

from pbus.compat.pipecat import PbusBus
from support.valkey import Valkey

ROUND_TRIPS = 2_000
FRAMES = 20_000
KINDS = ("redis", "pbus", "direct", "queue")
TURNS = 3
THROUGHPUT, ROUND_TRIP = 20, 0.8  # wanted, as multiples of RedisBus'


class Far(BaseWorker):
    """Counts frames and answers jobs."""

    def __init__(self, name):
        super().__init__(name)
        self.count = 0
        self.began = 0.0
        self.full = asyncio.Event()

    async def on_bus_message(self, message):
        if isinstance(message, BusFrameMessage) and message.target == self.name:
            self.count += 1
            if self.count == 1:
                self.began = time.process_time()
            if self.count == FRAMES:
                self.full.set()
        else:
            await super().on_bus_message(message)

    @job(name="echo")
    async def echo(self, message):
        await self.send_job_response(message.job_id, message.payload)

    @job(name="full")
    async def on_full(self, message):
        await self.full.wait()
        await self.send_job_response(
            message.job_id, {"at": time.time(), "cpu": time.process_time() - self.began}
        )


def make_bus(kind, url, channel):
    """One of the kinds; None for that of the process."""
    if kind in {"pbus", "direct"}:
        return PbusBus(url, channel=channel, direct=kind == "direct")
    if kind == "queue":
        return None
    return RedisBus(redis=Redis.from_url(url), channel=channel)


async def far(kind, url, channel):
    """The other process."""
    runner = WorkerRunner(bus=make_bus(kind, url, channel))
    await runner.add_workers(Far("far"))
    await runner.run()


async def ask(worker, name):
    """One job there and back."""
    async with worker.job(
        "far", params=JobParams(name=name, payload={"n": 1}, timeout=60)
    ) as asked:
        pass
    return asked.response


async def near(kind, url, channel):
    """Measure one bus: seconds of a round trip, frames a second, seconds of CPU a frame at both ends."""
    runner = WorkerRunner(bus=make_bus(kind, url, channel))
    worker = BaseWorker("near")
    await runner.add_workers(worker, *([Far("far")] if kind == "queue" else []))
    running = asyncio.create_task(runner.run())
    for _ in range(100):
        await ask(worker, "echo")
    delays = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        await ask(worker, "echo")
        delays.append(time.perf_counter() - began)
    frame = InputAudioRawFrame(audio=bytes(640), sample_rate=16000, num_channels=1)
    messages = [
        BusFrameMessage(
            source="near", target="far", frame=frame, direction=FrameDirection.DOWNSTREAM
        )
        for _ in range(FRAMES)
    ]
    began, began_cpu = time.time(), time.process_time()
    for message in messages:
        await runner.bus.send(message)
    full = await ask(worker, "full")
    took, cpu = full["at"] - began, time.process_time() - began_cpu
    await worker.cancel()
    await asyncio.wait({running}, timeout=10)
    p50, p99 = statistics.median(delays), statistics.quantiles(delays, n=100)[98]
    rate, own, other = FRAMES / took, cpu / FRAMES, full["cpu"] / FRAMES
    text = f"{own * 1e6:.0f}" if kind == "queue" else f"{own * 1e6:.0f} + {other * 1e6:.0f}"
    print(
        f"{kind:6}  round trip p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms;  {rate:,.0f} frames/s,"
        f" {text} us of CPU each",
        flush=True,
    )
    return p50, rate, max(own, 0 if kind == "queue" else other)


def compare(figures):
    """Print the ratios, and how far the bounds can be met at all."""
    middle = {
        kind: [statistics.median(column) for column in zip(*rows, strict=True)]
        for kind, rows in figures.items()
    }
    trip, rate, cpu = middle["redis"]
    for kind in KINDS[1:]:
        trips, rates, ends = middle[kind][0] / trip, middle[kind][1] / rate, cpu / middle[kind][2]
        print(
            f"{kind:6}  {rates:.1f} x the throughput of RedisBus, {ends:.1f} x by the CPU of the busier end"
            f" (wanted >= {THROUGHPUT}: {'met' if rates >= THROUGHPUT else 'not met'});"
            f" {trips:.2f} x its round trip (wanted <= {ROUND_TRIP}: {'met' if trips <= ROUND_TRIP else 'not met'})"
        )
    within = middle["queue"][1] / rate
    print(
        f"floor   Pipecat's bus within one process makes {within:.1f} x the throughput of RedisBus, and"
        f" {middle['queue'][0] / trip:.2f} x its round trip"
    )


def main():
    """All in turn, several times."""
    if len(sys.argv) > 1:
        asyncio.run(far(*sys.argv[1:]))
        return
    figures = {kind: [] for kind in KINDS}
    with Valkey(tcp=True) as server:
        for kind in KINDS * TURNS:
            channel = f"bench:{uuid.uuid4().hex}"
            figures[kind].append(measure(kind, server.tcp_url, channel))
    compare(figures)


def measure(kind, url, channel):
    """One turn of one kind."""
    if kind == "queue":
        return asyncio.run(near(kind, url, channel))
    arguments = [sys.executable, __file__, kind, url, channel]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as other:
        found = asyncio.run(near(kind, url, channel))
        other.wait(20)
    return found


if __name__ == "__main__":
    from loguru import logger

    logger.remove()
    main()
