"""The same work with the plain pgmq client, as its documentation shows it.

One `send` a message, `read_with_poll` looking every 100 ms, one `delete` a message; confirmed only
when it is on disk. Payloads are text of the same size, without a bus around them. Two readers in turn
could fall into step, each looking just before the other has sent: so a round trip begins at any time
between two looks, and takes what it takes on average.
"""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator

import asyncpg
from pgmq.async_queue import PGMQueue

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import DelayResult, RoleConfig, Stopwatch
from pbus.concurrency.background import running

_WARM_UP = 5  # round trips before the clock starts
_READ_AT_ONCE = 10
_POLL_S = 0.1  # how often read_with_poll looks
_ON_DISK = {"synchronous_commit": "on", "application_name": "pbus bench, plain client"}


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send one message after another."""
    queues = [_queue(config, name) for name in config.targets]
    async with _client(config) as client:
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        for number in range(config.count):
            await client.send(queues[number % len(queues)], {"text": "x" * config.size})
        control.send(watch.sent(config.count))


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the messages that polling returns."""
    meter = Meter(config.count)
    async with _client(config) as client, _own_queue(config, client) as queue:
        async with running(_count(client, queue, meter)):
            control.send_ready()
            received = await meter.result(control)
        control.send(received)


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: measure round trips, one at a time."""
    target = _queue(config, config.targets[0])
    async with _client(config) as client, _own_queue(config, client) as queue:
        control.send_ready()
        await control.receive()
        delays = []
        for number in range(-_WARM_UP, config.count):
            if number == 0:
                cpu = time.process_time()
            await asyncio.sleep(random.uniform(0.0, _POLL_S))  # noqa: S311 - at any phase
            started = time.perf_counter()
            await client.send(target, {"text": "x" * config.size})
            await _read_one(client, queue)
            delays.append(time.perf_counter() - started)
        control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send messages back, until the pool is gone."""
    target = _queue(config, config.targets[0])
    async with (
        _client(config) as client,
        _own_queue(config, client) as queue,
        running(_echo(client, queue, target)),
    ):
        control.send_ready()
        await control.receive()


@contextlib.asynccontextmanager
async def _client(config: RoleConfig) -> AsyncIterator[PGMQueue]:
    async with asyncpg.create_pool(
        config.bus.url, min_size=1, max_size=2, server_settings=_ON_DISK
    ) as pool:
        client = PGMQueue(pool=pool, init_extension=False)
        await client.init()
        yield client


@contextlib.asynccontextmanager
async def _own_queue(config: RoleConfig, client: PGMQueue) -> AsyncIterator[str]:
    queue = _queue(config, config.name)
    await client.create_queue(queue)
    try:
        yield queue
    finally:
        await client.drop_queue(queue)


def _queue(config: RoleConfig, name: str) -> str:
    """The name of a queue, within what PGMQ accepts."""
    return f"bench_{hashlib.sha256(f'{config.bus.channel} {name}'.encode()).hexdigest()[:24]}"


async def _count(client: PGMQueue, queue: str, meter: Meter) -> None:
    number = 0
    while True:
        for message in await client.read_with_poll(queue, qty=_READ_AT_ONCE):
            await client.delete(queue, message.msg_id)
            meter.record(number)
            number += 1


async def _read_one(client: PGMQueue, queue: str) -> None:
    while True:
        for message in await client.read_with_poll(queue):
            await client.delete(queue, message.msg_id)
            return


async def _echo(client: PGMQueue, queue: str, target: str) -> None:
    while True:
        for message in await client.read_with_poll(queue):
            await client.send(target, message.message)
            await client.delete(queue, message.msg_id)
