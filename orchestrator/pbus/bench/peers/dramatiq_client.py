"""The same jobs with dramatiq on Redis: threads instead of tasks, results in Redis.

One worker process with eight threads, its default; one thread enqueues.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import DelayResult, RoleConfig, Stopwatch

_WARM_UP = 20  # jobs before the clock starts
_WAKE_MS = 100  # how often an idle worker looks whether it is to end
_ANSWER_MS = 10_000


def _job(config: RoleConfig, name: str, function: Callable[..., Any]) -> Any:
    """The job of a queue, with a broker of its own."""
    broker = RedisBroker(url=config.bus.url, namespace=config.bus.channel)
    keeps = function is _echo
    if keeps:
        results = RedisBackend(
            url=config.bus.url, namespace=config.bus.channel, use_namespace_prefix_keys=True
        )
        broker.add_middleware(Results(backend=results))
    options = {"store_results": True} if keeps else {}
    return dramatiq.actor(function, actor_name="job", queue_name=name, broker=broker, **options)


def _count(number: int, text: str) -> None:
    """Stand for the worker's function in the process that enqueues."""


def _echo(text: str) -> str:
    return text


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue jobs."""
    job, text = _job(config, config.targets[0], _count), "x" * config.size

    def enqueue() -> None:
        for number in range(config.count):
            job.send(number, text)

    control.send_ready()
    await control.receive()
    watch = Stopwatch()
    await asyncio.to_thread(enqueue)
    control.send(watch.sent(config.count))


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, and count them."""
    meter, loop = Meter(config.count), asyncio.get_running_loop()

    def count(number: int, text: str) -> None:
        del text
        loop.call_soon_threadsafe(meter.record, number)

    worker = dramatiq.Worker(_job(config, config.name, count).broker, worker_timeout=_WAKE_MS)
    worker.start()
    control.send_ready()
    control.send(await meter.result(control))
    await asyncio.to_thread(worker.stop)


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue one job after another, and wait for its result."""
    job, text = _job(config, config.targets[0], _echo), "x" * config.size

    def measure() -> DelayResult:
        delays, cpu = [], time.process_time()
        for number in range(-_WARM_UP, config.count):
            if number == 0:
                cpu = time.process_time()
            started = time.perf_counter()
            job.send(text).get_result(block=True, timeout=_ANSWER_MS)
            delays.append(time.perf_counter() - started)
        return DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu)

    control.send_ready()
    await control.receive()
    dramatiq.set_broker(job.broker)  # where a result looks for its backend
    control.send(await asyncio.to_thread(measure))


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, until the pool is gone."""
    worker = dramatiq.Worker(_job(config, config.name, _echo).broker, worker_timeout=_WAKE_MS)
    worker.start()
    control.send_ready()
    try:
        await control.receive()
    finally:
        await asyncio.to_thread(worker.stop)
