"""The stacks of workers on this machine, as `pbus stack` shows them."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

from pbus.client.attachment import Attachment, find_project
from pbus.client.status import read_facts
from pbus.errors import BusUnavailableError, StacksUnavailableError, UnseenProjectError
from pbus.leases import Lease
from pbus.names import stands_for, unknown_name
from pbus.observe import HostRecord
from pbus.process.system.stack_request import first_answer
from pbus.settings import STATE_VARIABLE
from pbus.stack_values import ProcessStacks

_TASK = "pbus worker "  # begins the name of the task that runs a worker


class WorkerStacks(msgspec.Struct, frozen=True, kw_only=True):
    """The stacks of the process of one worker.

    Attributes:
        host: Where it runs.
        stacks: None where they cannot be had.
        error: Why they cannot.
        hint: What to do then.
    """

    worker: str
    pid: int | None
    host: str | None
    stacks: ProcessStacks | None = None
    error: str | None = None
    hint: str | None = None


async def stacks_of(
    name: str, project: str | None = None, files: Sequence[Path] | None = None
) -> list[WorkerStacks]:
    """Ask the processes of a worker, or of all replicas of a group, for their stacks.

    Args:
        name: The worker's or the group's.
        project: As of `find_project`.
        files: Likewise.

    Raises:
        UnknownNameError: The project has no such worker.
        NothingRunningError: There is no such project.
        BusUnavailableError: The broker, which knows the processes, is not reached.
    """
    try:
        attachment = find_project(project, files)
    except UnseenProjectError as error:
        return [await _within(name, error.pid)]
    try:
        places = await _places(attachment, name)
    except BusUnavailableError:
        places = await asyncio.to_thread(_marked, attachment, name)
        if not places:
            raise
    return list(await asyncio.gather(*(_asked(worker, *place) for worker, place in places.items())))


async def _within(name: str, pid: int) -> WorkerStacks:
    """Of a project without a broker: all its workers are in one process."""
    found = await _asked(name, socket.gethostname(), [pid])
    tasks = found.stacks.tasks if found.stacks else None
    workers = [one.name.removeprefix(_TASK) for one in tasks or () if one.name.startswith(_TASK)]
    if workers and not any(stands_for(name, worker) for worker in workers):
        raise unknown_name("worker", name, workers)
    return found


Places = dict[str, tuple[str, list[int]]]  # by worker: its host, and processes that it may be


async def _places(attachment: Attachment, name: str) -> Places:
    async with attachment.opened() as bus:
        leases, hosts = await read_facts(bus)
    found = {
        worker: place for worker, place in _known(leases, hosts).items() if stands_for(name, worker)
    }
    if not found:
        raise unknown_name("worker", name, _known(leases, hosts))
    return found


def _known(leases: Iterable[Lease], hosts: Iterable[HostRecord]) -> Places:
    """All workers; the process in a lease is the worker's own, that of a record may be a shell."""
    places: Places = {}
    for host in hosts:
        for one in host.processes:
            places[one.name] = (host.host, [] if one.pid is None else [one.pid])
    for lease in leases:
        places[lease.name] = (lease.host, [lease.pid])
    return places


def _marked(attachment: Attachment, name: str) -> Places:
    """The processes that a supervisor on this machine has given the name: the broker is away."""
    places: Places = {}
    state = attachment.record.state if attachment.record else None
    for process in psutil.process_iter():
        try:
            environ = process.environ()
        except (psutil.Error, OSError):
            continue
        worker = environ.get("PBUS_WORKER", "")
        if state and environ.get(STATE_VARIABLE) == state and stands_for(name, worker):
            places.setdefault(worker, (socket.gethostname(), []))[1].append(process.pid)
    return places


async def _asked(worker: str, host: str, pids: Sequence[int]) -> WorkerStacks:
    pid = pids[0] if pids else None
    if host != socket.gethostname():
        return WorkerStacks(
            worker=worker, pid=pid, host=host,
            error=f"it runs on {host}, and stacks are read on the same machine",
            hint=f"`pbus stack {worker}` there",
        )  # fmt: skip
    if pid is None:
        return WorkerStacks(worker=worker, pid=None, host=host, error="it has no process now")
    try:
        stacks = await asyncio.to_thread(first_answer, pids)
    except StacksUnavailableError as error:
        return WorkerStacks(
            worker=worker, pid=error.pid, host=host, error=error.message, hint=error.hint
        )
    return WorkerStacks(worker=worker, pid=stacks.pid, host=host, stacks=stacks)
