"""The same work with plain redis-py, as its documentation shows it.

Payloads are raw bytes of the same size: the baseline neither encodes nor decodes messages, counts
no losses and has no flow control; on streams, nothing is retried or recognised as a copy.
"""

import asyncio
import time
from typing import Any

from msgspec.structs import asdict
from redis.asyncio import Redis

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import DelayResult, RoleConfig, SendResult, Stopwatch, StoredResult
from pbus.concurrency.background import running

PIPELINE = 100  # commands in one write
_WARM_UP = 50  # round trips before the clock starts
_GROUP = "bench"
_WAIT_MS = 200
_END_S = 5.0


def _client(config: RoleConfig) -> "Redis":
    return Redis.from_url(config.bus.url or "")


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: publish in pipelines."""
    payload = b"x" * config.size
    targets = [f"{config.bus.channel}:{name}" for name in config.targets or ("*",)]
    async with _client(config) as redis:
        await redis.ping()
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        for start in range(0, config.count, PIPELINE):
            pipe = redis.pipeline(transaction=False)
            for number in range(start, min(start + PIPELINE, config.count)):
                pipe.publish(targets[number % len(targets)], payload)
            await pipe.execute()
        control.send(watch.sent(config.count))


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the messages of a subscription."""
    meter = Meter(config.count)
    async with _client(config) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{config.bus.channel}:{config.name}", f"{config.bus.channel}:*")
        for _ in range(2):
            await _subscribed(pubsub)
        async with running(_count(pubsub, meter)):
            control.send_ready()
            received = await meter.result(control)
        control.send(received)


async def add(config: RoleConfig, control: ControlPipe) -> None:
    """Role: add to streams in pipelines."""
    async with _client(config) as redis:
        control.send(await _add(config, control, redis))


async def store(config: RoleConfig, control: ControlPipe) -> None:
    """Role: add to streams without a reader, in pipelines."""
    async with _client(config) as redis:
        sent = await _add(config, control, redis)
        streams = _streams(config)
        stored = sum([await redis.xlen(stream) for stream in streams])
        await redis.delete(*streams)
        control.send(StoredResult(**asdict(sent), stored=stored))


async def read(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the entries that a consumer of a group reads and acknowledges."""
    meter = Meter(config.count)
    stream = f"{config.bus.channel}:{config.name}"
    over = asyncio.Event()
    async with _client(config) as redis:
        await redis.xgroup_create(stream, _GROUP, mkstream=True)
        counting = asyncio.create_task(_count_entries(redis, stream, meter, over))
        control.send_ready()
        try:
            received = await meter.result(control)
        finally:
            over.set()  # cancelled in the middle of a read, the client reads on
            await asyncio.wait([counting], timeout=_END_S)
            await redis.delete(stream)
        control.send(received)


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: measure round trips, one at a time."""
    payload = b"x" * config.size
    async with _client(config) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{config.bus.channel}:{config.name}")
        await _subscribed(pubsub)
        answers = pubsub.listen()
        target = f"{config.bus.channel}:{config.targets[0]}"
        control.send_ready()
        await control.receive()
        delays = []
        for number in range(-_WARM_UP, config.count):
            if number == 0:
                cpu = time.process_time()
            started = time.perf_counter()
            await redis.publish(target, payload)
            await anext(answers)
            delays.append(time.perf_counter() - started)
        control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send messages back, until the pool is gone."""
    async with _client(config) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{config.bus.channel}:{config.name}")
        await _subscribed(pubsub)
        async with running(_echo(pubsub, redis, f"{config.bus.channel}:{config.targets[0]}")):
            control.send_ready()
            await control.receive()


def _streams(config: RoleConfig) -> list[str]:
    return [f"{config.bus.channel}:{name}" for name in config.targets]


async def _add(config: RoleConfig, control: ControlPipe, redis: "Redis") -> SendResult:
    payload, streams = b"x" * config.size, _streams(config)
    await redis.ping()
    control.send_ready()
    await control.receive()
    watch = Stopwatch()
    for start in range(0, config.count, PIPELINE):
        pipe = redis.pipeline(transaction=False)
        for number in range(start, min(start + PIPELINE, config.count)):
            pipe.xadd(streams[number % len(streams)], {"text": payload})
        await pipe.execute()
    return watch.sent(config.count)


async def stream_ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: measure round trips over streams, one at a time; entries are acknowledged between them."""
    payload = b"x" * config.size
    (target,), own = _streams(config), f"{config.bus.channel}:{config.name}"
    async with _client(config) as redis:
        await redis.xgroup_create(own, _GROUP, mkstream=True)
        control.send_ready()
        await control.receive()
        delays = []
        for number in range(-_WARM_UP, config.count):
            if number == 0:
                cpu = time.process_time()
            started = time.perf_counter()
            await redis.xadd(target, {"text": payload})
            ((entry, _),) = await _next_entries(redis, own)
            delays.append(time.perf_counter() - started)
            await redis.xack(own, _GROUP, entry)
        cpu_s = time.process_time() - cpu
        await redis.delete(own, target)
        control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=cpu_s))


async def stream_pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send entries back, until the pool is gone."""
    (target,), own = _streams(config), f"{config.bus.channel}:{config.name}"

    async def echo() -> None:
        while True:
            for entry, fields in await _next_entries(redis, own):
                await redis.xadd(target, fields)
                await redis.xack(own, _GROUP, entry)

    async with _client(config) as redis:
        await redis.xgroup_create(own, _GROUP, mkstream=True)
        async with running(echo()):
            control.send_ready()
            await control.receive()


async def _next_entries(redis: "Redis", stream: str) -> list[Any]:
    """The entries that a consumer reads next; empty when the stream was removed meanwhile."""
    found: Any = await redis.xreadgroup(_GROUP, "reader", {stream: ">"}, count=PIPELINE, block=0)
    return [entry for _, entries in found or () for entry in entries]


async def _count(pubsub: Any, meter: Meter) -> None:
    """Count until cancelled, or until the server cuts a reader off that is too slow."""
    number = 0
    async for message in pubsub.listen():
        if message["type"] == "message":
            meter.record(number)
            number += 1


async def _count_entries(redis: "Redis", stream: str, meter: Meter, over: asyncio.Event) -> None:
    number = 0
    while not over.is_set():
        found: Any = await redis.xreadgroup(
            _GROUP, "reader", {stream: ">"}, count=PIPELINE, block=_WAIT_MS
        )
        for _, entries in found or ():
            await redis.xack(stream, _GROUP, *(entry for entry, _ in entries))
            for _ in entries:
                meter.record(number)
                number += 1


async def _echo(pubsub: Any, redis: "Redis", target: str) -> None:
    async for message in pubsub.listen():
        await redis.publish(target, message["data"])


async def _subscribed(pubsub: Any) -> None:
    """Wait until the server confirmed one subscription."""
    while await pubsub.get_message(timeout=5.0) is None:
        pass
