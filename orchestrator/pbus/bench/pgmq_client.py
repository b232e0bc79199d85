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
from pbus.bench.processes.roles import Delays, RoleConfig, Stopwatch

_WARM_UP = 5  # round trips before the clock starts
_READ_AT_ONCE = 10
_POLL_S = 0.1  # how often read_with_poll looks
_ON_DISK = {"synchronous_commit": "on", "application_name": "pbus bench, plain client"}


async def send(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: send one message after another."""
    queues = [_queue(part, name) for name in part.targets]
    async with _client(part) as client:
        cues.say_ready()
        await cues.next()
        watch = Stopwatch()
        for number in range(part.count):
            await client.send(queues[number % len(queues)], {"text": "x" * part.size})
        cues.say(watch.sent(part.count))


async def receive(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: count what polling yields."""
    meter = Meter(part.count)
    async with _client(part) as client, _own_queue(part, client) as queue:
        counting = asyncio.create_task(_count(client, queue, meter))
        cues.say_ready()
        received = await meter.finished(cues)
        counting.cancel()
        await asyncio.wait([counting])
        cues.say(received)


async def ping(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: there and back, one at a time."""
    target = _queue(part, part.targets[0])
    async with _client(part) as client, _own_queue(part, client) as queue:
        cues.say_ready()
        await cues.next()
        delays = []
        for number in range(-_WARM_UP, part.count):
            if number == 0:
                cpu = time.process_time()
            await asyncio.sleep(random.uniform(0.0, _POLL_S))  # noqa: S311 - at any phase
            begun = time.perf_counter()
            await client.send(target, {"text": "x" * part.size})
            await _take_one(client, queue)
            delays.append(time.perf_counter() - begun)
        cues.say(Delays(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: send back what comes; ended by the stage."""
    async with _client(part) as client, _own_queue(part, client) as queue:
        echoing = asyncio.create_task(_echo(client, queue, _queue(part, part.targets[0])))
        cues.say_ready()
        try:
            await cues.next()
        finally:
            echoing.cancel()
            await asyncio.wait([echoing])


@contextlib.asynccontextmanager
async def _client(part: RoleConfig) -> AsyncIterator[PGMQueue]:
    async with asyncpg.create_pool(
        part.url, min_size=1, max_size=2, server_settings=_ON_DISK
    ) as pool:
        client = PGMQueue(pool=pool, init_extension=False)
        await client.init()
        yield client


@contextlib.asynccontextmanager
async def _own_queue(part: RoleConfig, client: PGMQueue) -> AsyncIterator[str]:
    queue = _queue(part, part.name)
    await client.create_queue(queue)
    try:
        yield queue
    finally:
        await client.drop_queue(queue)


def _queue(part: RoleConfig, name: str) -> str:
    """A name of the letters that PGMQ takes, and short enough."""
    return f"bench_{hashlib.sha256(f'{part.channel} {name}'.encode()).hexdigest()[:24]}"


async def _count(client: PGMQueue, queue: str, meter: Meter) -> None:
    number = 0
    while True:
        for message in await client.read_with_poll(queue, qty=_READ_AT_ONCE):
            await client.delete(queue, message.msg_id)
            meter.note(number)
            number += 1


async def _take_one(client: PGMQueue, queue: str) -> None:
    while True:
        for message in await client.read_with_poll(queue):
            await client.delete(queue, message.msg_id)
            return


async def _echo(client: PGMQueue, queue: str, target: str) -> None:
    while True:
        for message in await client.read_with_poll(queue):
            await client.send(target, message.message)
            await client.delete(queue, message.msg_id)
