"""The same work with plain redis-py, as its documentation shows it.

Payloads are raw bytes of the same size: the baseline neither encodes nor decodes messages, counts
no losses and keeps nobody from being drowned; on streams, nothing is tried again or recognised as a
copy.
"""

import asyncio
import time
from typing import Any

from redis.asyncio import Redis

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import Delays, RoleConfig, Stopwatch

PIPELINE = 100  # commands in one write
_WARM_UP = 50  # round trips before the clock starts
_GROUP = "bench"
_WAIT_MS = 200
_END_S = 5.0


async def send(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: publish in pipelines."""
    payload = b"x" * part.size
    targets = [f"{part.channel}:{name}" for name in part.targets or ("*",)]
    async with Redis.from_url(part.url) as redis:
        await redis.ping()
        cues.say_ready()
        await cues.next()
        watch = Stopwatch()
        for start in range(0, part.count, PIPELINE):
            pipe = redis.pipeline(transaction=False)
            for number in range(start, min(start + PIPELINE, part.count)):
                pipe.publish(targets[number % len(targets)], payload)
            await pipe.execute()
        cues.say(watch.sent(part.count))


async def receive(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: count what a subscription yields."""
    meter = Meter(part.count)
    async with Redis.from_url(part.url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{part.channel}:{part.name}", f"{part.channel}:*")
        for _ in range(2):
            await _subscribed(pubsub)
        counting = asyncio.create_task(_count(pubsub, meter))
        cues.say_ready()
        received = await meter.finished(cues)
        counting.cancel()
        await asyncio.wait([counting])
        cues.say(received)


async def add(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: add to streams in pipelines."""
    payload = b"x" * part.size
    streams = [f"{part.channel}:{name}" for name in part.targets]
    async with Redis.from_url(part.url) as redis:
        await redis.ping()
        cues.say_ready()
        await cues.next()
        watch = Stopwatch()
        for start in range(0, part.count, PIPELINE):
            pipe = redis.pipeline(transaction=False)
            for number in range(start, min(start + PIPELINE, part.count)):
                pipe.xadd(streams[number % len(streams)], {"text": payload})
            await pipe.execute()
        cues.say(watch.sent(part.count))


async def read(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: count what a group's consumer reads and acknowledges."""
    meter = Meter(part.count)
    stream = f"{part.channel}:{part.name}"
    over = asyncio.Event()
    async with Redis.from_url(part.url) as redis:
        await redis.xgroup_create(stream, _GROUP, mkstream=True)
        counting = asyncio.create_task(_count_kept(redis, stream, meter, over))
        cues.say_ready()
        try:
            received = await meter.finished(cues)
        finally:
            over.set()  # cancelled in the middle of a read, the client reads on
            await asyncio.wait([counting], timeout=_END_S)
            await redis.delete(stream)
        cues.say(received)


async def ping(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: there and back, one at a time."""
    payload = b"x" * part.size
    async with Redis.from_url(part.url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{part.channel}:{part.name}")
        await _subscribed(pubsub)
        answers = pubsub.listen()
        target = f"{part.channel}:{part.targets[0]}"
        cues.say_ready()
        await cues.next()
        delays = []
        for number in range(-_WARM_UP, part.count):
            if number == 0:
                cpu = time.process_time()
            begun = time.perf_counter()
            await redis.publish(target, payload)
            await anext(answers)
            delays.append(time.perf_counter() - begun)
        cues.say(Delays(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(part: RoleConfig, cues: ControlPipe) -> None:
    """Role: send back what comes; ended by the stage."""
    async with Redis.from_url(part.url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{part.channel}:{part.name}")
        await _subscribed(pubsub)
        echoing = asyncio.create_task(_echo(pubsub, redis, f"{part.channel}:{part.targets[0]}"))
        cues.say_ready()
        try:
            await cues.next()
        finally:
            echoing.cancel()
            await asyncio.wait([echoing])


async def _count(pubsub: Any, meter: Meter) -> None:
    """Count until cancelled, or until the server cuts a reader off that is too slow."""
    number = 0
    async for message in pubsub.listen():
        if message["type"] == "message":
            meter.note(number)
            number += 1


async def _count_kept(redis: "Redis", stream: str, meter: Meter, over: asyncio.Event) -> None:
    number = 0
    while not over.is_set():
        found: Any = await redis.xreadgroup(
            _GROUP, "reader", {stream: ">"}, count=PIPELINE, block=_WAIT_MS
        )
        for _, entries in found or ():
            await redis.xack(stream, _GROUP, *(entry for entry, _ in entries))
            for _ in entries:
                meter.note(number)
                number += 1


async def _echo(pubsub: Any, redis: "Redis", target: str) -> None:
    async for message in pubsub.listen():
        await redis.publish(target, message["data"])


async def _subscribed(pubsub: Any) -> None:
    """Wait until the server confirmed one subscription."""
    while await pubsub.get_message(timeout=5.0) is None:
        pass
