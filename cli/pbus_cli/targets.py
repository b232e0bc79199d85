"""Whom a name means: a worker, or replicas of one; waited for until registered."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.errors import WorkerNotFoundError
from pbus.leases import Lease
from pbus.names import nearest_name, stands_for
from pbus.observe import decode_records

REGISTRATION_S: Final = 5.0
_POLL_S: Final = 0.1
_OUTSIDER: Final = (
    "{name} is a `command` that takes no part in the bus, so nothing reaches it; "
    "where the program does, say so in the topology: `joins: true`"
)


async def find_targets(
    bus: WorkerBus, name: str, *, within_s: float, usable_only: bool = True
) -> list[Lease]:
    """The ready workers that a name stands for; those merely registered when time is up.

    Args:
        bus: Whose registry is asked.
        name: A worker, or what replicas have in common.
        within_s: How long to wait.
        usable_only: Wait until one is ready (a replica: ready and active), and skip the others.

    Raises:
        WorkerNotFoundError: None was registered in time.
    """
    deadline = time.monotonic() + within_s
    while True:
        meant = [lease for lease in await bus.leases.leases() if stands_for(name, lease.name)]
        ready = [lease for lease in meant if is_usable(lease, name)] if usable_only else meant
        if ready:
            return ready
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(_POLL_S)
    if not meant:
        raise WorkerNotFoundError(name, within_s, await _what_is_known(bus, name))
    return meant


async def is_away_with_mail(bus: WorkerBus, name: str) -> bool:
    """Whether nobody of that name is there, and what is sent to it is kept all the same."""
    if bus.queues is None or not any(box.name == name for box in await bus.queues.stats()):
        return False
    return not any(stands_for(name, lease.name) for lease in await bus.leases.leases())


async def _what_is_known(bus: WorkerBus, name: str) -> str | None:
    """Why a worker may not be there: it is down, or its name is another one."""
    records = decode_records(await bus.leases.records())
    processes = {one.name: one for host in records for one in host.processes}
    meant = sorted(one for one in processes if stands_for(name, one))
    if meant:
        process = processes[meant[0]]
        if not process.joins:
            return _OUTSIDER.format(name=process.name)
        if process.state == "starting" and process.pid is not None:
            return f"{process.name} runs, but has not registered on the bus yet"
        state = f"{process.state} ({process.trouble})" if process.trouble else process.state
        return f"{process.name} is {state}; `pbus start {name}` starts it when it is down"
    near = nearest_name(name, {*processes, *(lease.name for lease in await bus.leases.leases())})
    return None if near is None else f"did you mean {near!r}?"


def is_usable(lease: Lease, name: str) -> bool:
    """Whether to send data and jobs there now; who is named exactly gets them inactive too."""
    return lease.state == "ready" and (lease.active or lease.name == name)


def in_turn(leases: Sequence[Lease]) -> Callable[[], Lease]:
    """One after the other, the one with the least waiting first."""
    ordered = sorted(leases, key=lambda lease: lease.queued)
    return itertools.cycle(ordered).__next__
