"""The same work with nats-py, as its documentation shows it.

Payloads are raw bytes of the same size: messages are neither encoded nor decoded.
"""

import time

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import DelayResult, RoleConfig, Stopwatch

_WARM_UP = 50  # round trips before the clock starts
_ANSWER_S = 10.0
_NO_LIMIT = 0  # of messages and bytes that wait for the callback: a full buffer would drop them


async def _connect(config: RoleConfig) -> Client:
    return await nats.connect(config.peer_url)


def _subject(config: RoleConfig, name: str) -> str:
    return f"{config.bus.channel.replace(':', '.')}.{name}"


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: publish, one after the other."""
    payload = b"x" * config.size
    subjects = [_subject(config, name) for name in config.targets]
    client = await _connect(config)
    control.send_ready()
    await control.receive()
    watch = Stopwatch()
    for number in range(config.count):
        await client.publish(subjects[number % len(subjects)], payload)
    await client.flush()
    control.send(watch.sent(config.count))
    await client.close()


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the messages of a subscription."""
    meter = Meter(config.count)
    number = 0

    async def count(_: Msg) -> None:
        nonlocal number
        meter.record(number)
        number += 1

    client = await _connect(config)
    await client.subscribe(
        _subject(config, config.name),
        cb=count,
        pending_msgs_limit=_NO_LIMIT,
        pending_bytes_limit=_NO_LIMIT,
    )
    await client.flush()
    control.send_ready()
    control.send(await meter.result(control))
    await client.close()


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: measure requests, one at a time."""
    payload, subject = b"x" * config.size, _subject(config, config.targets[0])
    client = await _connect(config)
    control.send_ready()
    await control.receive()
    delays = []
    for number in range(-_WARM_UP, config.count):
        if number == 0:
            cpu = time.process_time()
        started = time.perf_counter()
        await client.request(subject, payload, timeout=_ANSWER_S)
        delays.append(time.perf_counter() - started)
    control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))
    await client.close()


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: answer each request, until the pool is gone."""

    async def answer(message: Msg) -> None:
        await message.respond(message.data)

    client = await _connect(config)
    await client.subscribe(_subject(config, config.name), cb=answer)
    await client.flush()
    control.send_ready()
    try:
        await control.receive()
    finally:
        await client.close()
