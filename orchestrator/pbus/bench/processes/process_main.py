"""One process of a measurement: ``python -P -m pbus.bench.processes.process_main ROLE``, its part on stdin."""

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import RoleConfig

Role = Callable[[RoleConfig, ControlPipe], Awaitable[None]]

# Each is loaded when played, so that no process carries another system's driver.
ROLES: Final = {
    "send": "pbus.bench.cases.one_way:send",
    "receive": "pbus.bench.cases.one_way:receive",
    "ping": "pbus.bench.cases.rtt:ping",
    "pong": "pbus.bench.cases.rtt:pong",
    "crowd": "pbus.bench.cases.urgent:crowd",
    "toil": "pbus.bench.cases.urgent:toil",
    "host": "pbus.bench.cases.inproc:host",
    "do-jobs": "pbus.bench.cases.job_round_trips:do_jobs",
    "ask-jobs": "pbus.bench.cases.job_round_trips:ask_jobs",
    "ask-many": "pbus.bench.cases.job_round_trips:ask_many",
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
    cues = await ControlPipe.open()
    with contextlib.suppress(EOFError):  # the stage is gone
        await act(msgspec.json.decode(await cues.next(), type=RoleConfig), cues)


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1]))
