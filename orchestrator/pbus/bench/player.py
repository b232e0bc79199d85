"""One process of a measurement: ``python -P -m pbus.bench.player ROLE``, its part on stdin."""

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from pbus.bench.cues import Cues
from pbus.bench.script import Part

Role = Callable[[Part, Cues], Awaitable[None]]

# Each is loaded when played, so that no process carries another system's driver.
ROLES: Final = {
    "send": "pbus.bench.flow:send",
    "receive": "pbus.bench.flow:receive",
    "ping": "pbus.bench.rtt:ping",
    "pong": "pbus.bench.rtt:pong",
    "crowd": "pbus.bench.urgent:crowd",
    "toil": "pbus.bench.urgent:toil",
    "host": "pbus.bench.inproc:host",
    "do-jobs": "pbus.bench.jobs:do_jobs",
    "ask-jobs": "pbus.bench.jobs:ask_jobs",
    "ask-many": "pbus.bench.jobs:ask_many",
    "redis-send": "pbus.bench.baseline:send",
    "redis-receive": "pbus.bench.baseline:receive",
    "redis-ping": "pbus.bench.baseline:ping",
    "redis-pong": "pbus.bench.baseline:pong",
    "redis-add": "pbus.bench.baseline:add",
    "redis-read": "pbus.bench.baseline:read",
    "pgmq-send": "pbus.bench.pgmq_client:send",
    "pgmq-receive": "pbus.bench.pgmq_client:receive",
    "pgmq-ping": "pbus.bench.pgmq_client:ping",
    "pgmq-pong": "pbus.bench.pgmq_client:pong",
}


async def play(role: str) -> None:
    """Read the part, play it, answer."""
    module, _, name = ROLES[role].partition(":")
    act: Role = getattr(importlib.import_module(module), name)
    cues = await Cues.open()
    with contextlib.suppress(EOFError):  # the stage is gone
        await act(msgspec.json.decode(await cues.next(), type=Part), cues)


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1]))
