"""The workers that a name stands for: one worker, or the replicas of a group."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.errors import BusUnavailableError, WorkerNotFoundError
from pbus.leases import Lease
from pbus.names import nearest_name, stands_for
from pbus.observe import ProcessRecord, decode_records

FIND_S: Final = 5.0
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
        bus: The bus whose registry is asked.
        name: The name of a worker or of a group of replicas.
        within_s: Seconds to wait.
        usable_only: Wait until one is ready (a replica: ready and active), and skip the others.

    Raises:
        WorkerNotFoundError: None was registered in time.
    """
    deadline = time.monotonic() + within_s
    while True:
        meant = [lease for lease in await bus.leases.leases() if stands_for(name, lease.name)]
        ready = [lease for lease in meant if _is_usable(lease, name)] if usable_only else meant
        if ready:
            return ready
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(_POLL_S)
    if not meant:
        raise await not_found(bus, name, within_s)
    return meant


async def wait_registered(bus: WorkerBus, name: str, within_s: float) -> None:
    """Wait until a worker that a name stands for is registered, ready or not.

    Raises:
        WorkerNotFoundError: None was in time.
        BusUnavailableError: The broker does not answer.
    """
    deadline = time.monotonic() + within_s
    while True:
        is_late = time.monotonic() >= deadline
        try:
            if any(stands_for(name, lease.name) for lease in await bus.leases.leases()):
                return
        except BusUnavailableError:  # the broker may be back in time
            if is_late:
                raise
        if is_late:
            raise await not_found(bus, name, within_s)
        await asyncio.sleep(_POLL_S)


async def not_found(bus: WorkerBus, name: str, waited_s: float) -> WorkerNotFoundError:
    """The error of a worker that is not there, with the reason as far as it is known."""
    return WorkerNotFoundError(name, waited_s, await _why_absent(bus, name))


async def is_away_with_queue(bus: WorkerBus, name: str) -> bool:
    """Whether no worker of that name is there, and messages to it are stored all the same."""
    if bus.queues is None or not any(box.name == name for box in await bus.queues.stats()):
        return False
    return not any(stands_for(name, lease.name) for lease in await bus.leases.leases())


async def _why_absent(bus: WorkerBus, name: str) -> str | None:
    """Explain why a worker may be absent: it is down, or its name is another one."""
    records = decode_records(await bus.leases.records())
    processes = {one.name: one for host in records for one in host.processes}
    meant = sorted(one for one in processes if stands_for(name, one))
    if meant:
        return _state_text(processes[meant[0]], name)
    registered = {lease.name for lease in await bus.leases.leases()}
    near = nearest_name(name, {*processes, *registered})
    return None if near is None else f"did you mean {near!r}?"


def _state_text(process: ProcessRecord, name: str) -> str:
    if not process.joins:
        return _OUTSIDER.format(name=process.name)
    if process.state == "starting" and process.pid is not None:
        return f"{process.name} runs, but has not registered on the bus yet"
    if process.state in {"exited", "failed"}:
        why = f" ({process.trouble})" if process.trouble else ""
        return f"{process.name} has {process.state}{why}; `pbus start {name}` starts it"
    return f"{process.name} is {process.described_state}"


def _is_usable(lease: Lease, name: str) -> bool:
    """Whether to send data there now; a worker that is named exactly gets it inactive, too."""
    return lease.state == "ready" and (lease.active or lease.name == name)


def in_turn(leases: Sequence[Lease]) -> Callable[[], Lease]:
    """One after the other, the one with the least waiting first."""
    ordered = sorted(leases, key=lambda lease: lease.queued)
    return itertools.cycle(ordered).__next__
