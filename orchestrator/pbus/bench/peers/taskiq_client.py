"""The same jobs with taskiq and taskiq-redis: a stream with acknowledgements, results in Redis.

Jobs are enqueued by as many tasks as its pool has connections. It looks every millisecond whether
a result is there, instead of every 200, its default.
"""

import asyncio
import time
from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import DelayResult, RoleConfig, Stopwatch
from pbus.concurrency.background import running

_WARM_UP = 20  # jobs before the clock starts
_SENDERS = 50
_AT_ONCE = 100
_LOOK_S = 0.001
_ANSWER_S = 10.0
_RESULT_S = 60  # after which a result expires


def _broker(config: RoleConfig, name: str) -> Any:
    return RedisStreamBroker(
        config.bus.url, queue_name=f"{config.bus.channel}:{name}", xread_count=_AT_ONCE
    )


def _broker_with_results(config: RoleConfig, name: str) -> Any:
    results = RedisAsyncResultBackend(
        config.bus.url, prefix_str=config.bus.channel, result_ex_time=_RESULT_S
    )
    return _broker(config, name).with_result_backend(results)


async def _count(number: int, text: str) -> None:
    """Stand for the worker's task in the process that enqueues."""


async def _echo(text: str) -> str:
    return text


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue jobs."""
    broker = _broker(config, config.targets[0])
    task = broker.register_task(_count, task_name="count")
    await broker.startup()
    text, numbers = "x" * config.size, iter(range(config.count))

    async def enqueue() -> None:
        for number in numbers:
            await task.kiq(number, text)

    control.send_ready()
    await control.receive()
    watch = Stopwatch()
    async with asyncio.TaskGroup() as senders:
        for _ in range(_SENDERS):
            senders.create_task(enqueue())
    control.send(watch.sent(config.count))
    await broker.shutdown()


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, and count them."""
    meter = Meter(config.count)

    async def count(number: int, text: str) -> None:
        del text
        meter.record(number)

    broker = _broker(config, config.name)
    broker.register_task(count, task_name="count")
    await broker.startup()
    async with running(run_receiver_task(broker, max_async_tasks=_AT_ONCE)):
        control.send_ready()
        control.send(await meter.result(control))
    await broker.shutdown()


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue one job after another, and wait for its result."""
    broker = _broker_with_results(config, config.targets[0])
    task = broker.register_task(_echo, task_name="echo")
    await broker.startup()
    text, delays = "x" * config.size, []
    control.send_ready()
    await control.receive()
    cpu = time.process_time()
    for number in range(-_WARM_UP, config.count):
        if number == 0:
            cpu = time.process_time()
        started = time.perf_counter()
        sent = await task.kiq(text)
        await sent.wait_result(check_interval=_LOOK_S, timeout=_ANSWER_S)
        delays.append(time.perf_counter() - started)
    control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))
    await broker.shutdown()


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, until the pool is gone."""
    broker = _broker_with_results(config, config.name)
    broker.register_task(_echo, task_name="echo")
    await broker.startup()
    try:
        async with running(run_receiver_task(broker, max_async_tasks=_AT_ONCE)):
            control.send_ready()
            await control.receive()
    finally:
        await broker.shutdown()
