"""A benchmark process: ``python -P -m pbus.bench.processes.process_main ROLE LOOP``, configured on stdin."""

import contextlib
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import RoleConfig
from pbus.process.system.event_loop import run_on
from pbus.topology.model import Loop

Role = Callable[[RoleConfig, ControlPipe], Awaitable[None]]

_JOB_SYSTEMS: Final = {
    f"{system}-{role}": f"pbus.bench.peers.{system}_client:{role}"
    for system in ("taskiq", "arq", "dramatiq", "procrastinate")
    for role in ("send", "receive", "ping", "pong")
}

# Each is loaded when it runs, so that no process loads another system's driver.
ROLES: Final = {
    "send": "pbus.bench.cases.one_way:send",
    "receive": "pbus.bench.cases.one_way:receive",
    "follow": "pbus.bench.cases.follow:follow",
    "ping": "pbus.bench.cases.rtt:ping",
    "pong": "pbus.bench.cases.rtt:pong",
    "urgent-send": "pbus.bench.cases.urgent:send",
    "urgent-receive": "pbus.bench.cases.urgent:receive",
    "flow-send": "pbus.bench.cases.held:send",
    "flow-receive": "pbus.bench.cases.held:receive",
    "host": "pbus.bench.cases.inproc:host",
    "many-in-memory": "pbus.bench.cases.scale:host_in_memory",
    "many-on-broker": "pbus.bench.cases.scale:host_on_broker",
    "job-worker": "pbus.bench.cases.job_round_trips:work",
    "job-requester": "pbus.bench.cases.job_round_trips:request_one_by_one",
    "concurrent-job-requester": "pbus.bench.cases.job_round_trips:request_concurrently",
    "redis-send": "pbus.bench.baseline:send",
    "redis-receive": "pbus.bench.baseline:receive",
    "redis-ping": "pbus.bench.baseline:ping",
    "redis-pong": "pbus.bench.baseline:pong",
    "batch-send": "pbus.bench.cases.stored.batch_sends:send",
    "backlog": "pbus.bench.cases.stored.backlog:hold",
    "redis-store": "pbus.bench.baseline:store",
    "redis-stream-ping": "pbus.bench.baseline:stream_ping",
    "redis-stream-pong": "pbus.bench.baseline:stream_pong",
    "redis-add": "pbus.bench.baseline:add",
    "redis-read": "pbus.bench.baseline:read",
    "nats-server": "pbus.bench.peers.nats_server:serve",
    "nats-send": "pbus.bench.peers.nats_client:send",
    "nats-receive": "pbus.bench.peers.nats_client:receive",
    "nats-ping": "pbus.bench.peers.nats_client:ping",
    "nats-pong": "pbus.bench.peers.nats_client:pong",
    "pipecat-send": "pbus.bench.peers.pipecat_client:send",
    "pipecat-receive": "pbus.bench.peers.pipecat_client:receive",
    **_JOB_SYSTEMS,
    "pgmq-send": "pbus.bench.pgmq_client:send",
    "pgmq-receive": "pbus.bench.pgmq_client:receive",
    "pgmq-ping": "pbus.bench.pgmq_client:ping",
    "pgmq-pong": "pbus.bench.pgmq_client:pong",
}


async def run_role(name: str) -> None:
    """Read the configuration and run a role until its end, or until the pool is gone."""
    module, _, function = ROLES[name].partition(":")
    role: Role = getattr(importlib.import_module(module), function)
    control = await ControlPipe.open()
    with contextlib.suppress(EOFError):  # the pool is gone
        await role(msgspec.json.decode(await control.receive(), type=RoleConfig), control)


if __name__ == "__main__":
    loop: Loop = "uvloop" if sys.argv[2] == "uvloop" else "asyncio"
    run_on(loop, run_role(sys.argv[1]))
