"""The same jobs with arq, whose workers and results are polled.

Both look every millisecond, instead of every 500, its default; jobs whose result is not asked for
keep none. 100 jobs run at once, as with the other systems.
"""

import asyncio
import contextlib
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from arq import func
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import ResultNotFound
from arq.worker import Worker

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


def _settings(url: str) -> RedisSettings:
    """Read a URL; its own reader takes the path of a socket for a number."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return RedisSettings(unix_socket_path=unquote(parts.path))
    return RedisSettings.from_dsn(url)


async def _pool(config: RoleConfig, name: str) -> ArqRedis:
    return await create_pool(
        _settings(config.bus.url or ""), default_queue_name=f"{config.bus.channel}:{name}"
    )


def _worker(pool: ArqRedis, function: Any, keep_result: float) -> Any:
    name = function.__name__.strip("_")
    return Worker(
        functions=[func(function, name=name, keep_result=keep_result)],
        queue_name=None,  # the pool's
        redis_pool=pool,
        handle_signals=False,
        max_jobs=_AT_ONCE,
        poll_delay=_LOOK_S,
        log_results=False,
    )


def _job_id(config: RoleConfig, number: int) -> str:
    """An id with the channel in it, so that what is left of the job can be found and removed."""
    return f"{config.bus.channel}:{number}"


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue jobs."""
    pool = await _pool(config, config.targets[0])
    text, numbers = "x" * config.size, iter(range(config.count))

    async def enqueue() -> None:
        for number in numbers:
            await pool.enqueue_job("count", number, text, _job_id=_job_id(config, number))

    control.send_ready()
    await control.receive()
    watch = Stopwatch()
    async with asyncio.TaskGroup() as senders:
        for _ in range(_SENDERS):
            senders.create_task(enqueue())
    control.send(watch.sent(config.count))
    await pool.aclose()


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, and count them."""
    meter = Meter(config.count)

    async def count(_: Any, number: int, text: str) -> None:
        del text
        meter.record(number)

    worker = _worker(await _pool(config, config.name), count, keep_result=0)
    async with running(worker.main()):
        control.send_ready()
        control.send(await meter.result(control))
    await worker.close()


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue one job after another, and wait for its result."""
    pool = await _pool(config, config.targets[0])
    text, delays = "x" * config.size, []
    control.send_ready()
    await control.receive()
    cpu = time.process_time()
    for number in range(-_WARM_UP, config.count):
        if number == 0:
            cpu = time.process_time()
        started = time.perf_counter()
        job = await pool.enqueue_job("echo", text, _job_id=_job_id(config, number))
        await _result(job)
        delays.append(time.perf_counter() - started)
    control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))
    await pool.aclose()


async def _result(job: Any) -> None:
    """Wait for a result; a job done between its looks for result and queue is not found at first."""
    with contextlib.suppress(ResultNotFound):
        await job.result(timeout=_ANSWER_S, poll_delay=_LOOK_S)
        return
    await job.result(timeout=_ANSWER_S, poll_delay=_LOOK_S)


async def _echo(_: Any, text: str) -> str:
    return text


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, until the pool is gone."""
    worker = _worker(await _pool(config, config.name), _echo, keep_result=_RESULT_S)
    try:
        async with running(worker.main()):
            control.send_ready()
            await control.receive()
    finally:
        await worker.close()
