"""Waiting until a project's workers are ready, or until one of them shows that they will not be."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.errors import BusError, NothingRunningError, ProcessError
from pbus.leases import Lease
from pbus.observe import HostRecord, ProcessRecord, WorkerRow, merge_rows
from pbus.process.logs import read_lines
from pbus.process.project import Project
from pbus.process.projects import choose_project
from pbus.process.record import ProjectRecord
from pbus.process.restart import describe_exit
from pbus.topology import Topology
from pbus.topology.model import WorkerInstance
from pbus_cli.attach import attachment_of, open_bus, read_facts

_POLL_S: Final = 0.2
LAST_LINES: Final = 20  # of a failed worker's log: a traceback fits


class StartupError(ProcessError):
    """A worker failed before all were ready.

    Attributes:
        worker: Which.
    """

    def __init__(self, worker: str, why: str) -> None:
        super().__init__(f"worker {worker!r} failed: {why}")
        self.worker = worker


@dataclass
class Readiness:
    """What is known of the workers that are waited for.

    Attributes:
        ready_once: Those seen ready; what becomes of them later is no failed start.
    """

    instances: Sequence[WorkerInstance]
    ready_once: set[str] = field(default_factory=set)
    _missing: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Those not ready (nor done) when last looked at."""
        return self._missing

    def look(self, rows: Iterable[WorkerRow], hosts: Iterable[HostRecord]) -> list[str]:
        """Take in how things stand; returns who is ready for the first time.

        Raises:
            StartupError: One will not become ready.
        """
        states = {row.name: row.state for row in rows}
        processes = {one.name: one for host in hosts for one in host.processes}
        before = set(self.ready_once)
        self._missing = []
        for instance in self.instances:
            process = processes.get(instance.name)
            if states.get(instance.name) == "ready" or _is_done(process):
                self.ready_once.add(instance.name)
            else:
                self._missing.append(instance.name)
                self._refuse_failed(instance, process)
        return sorted(self.ready_once - before)

    def _refuse_failed(self, instance: WorkerInstance, process: ProcessRecord | None) -> None:
        if process is None:
            return
        why = process.error or _exit_text(process.exit_code)
        if process.state == "failed":
            raise StartupError(instance.name, why)
        if instance.name in self.ready_once:
            return
        is_again = process.restarts > 0 and instance.spec.restart != "always"
        if process.exit_code not in {None, 0} or is_again:
            raise StartupError(instance.name, f"{why} before it was ready")


def _exit_text(code: int | None) -> str:
    return "was never started" if code is None else describe_exit(code)


def _is_done(process: ProcessRecord | None) -> bool:
    """A worker that did its work and left counts as ready."""
    return process is not None and process.state == "exited" and process.exit_code == 0


def chosen_instances(topology: Topology, only: Iterable[str]) -> list[WorkerInstance]:
    """The processes that `--only` leaves."""
    wanted = set(only)
    return [one for one in topology.instances() if not wanted or wanted & {one.name, one.spec.name}]


async def wait_ready(
    topology: Topology,
    only: Sequence[str],
    *,
    timeout_s: float,
    on_ready: Callable[[str], None],
) -> None:
    """Wait until all are ready or done.

    Raises:
        StartupError: One will not become ready.
        TimeoutError: Some are not ready in time; names them.
    """
    readiness = Readiness(chosen_instances(topology, only))
    try:
        async with asyncio.timeout(timeout_s):
            await _wait(topology, readiness, on_ready)
    except TimeoutError:
        names = ", ".join(readiness.missing) or "the supervisor"
        problem = f"not ready within {timeout_s:g} s: {names}"
        raise TimeoutError(problem) from None
    except NothingRunningError:
        _judge_ended(topology, readiness)


async def _wait(topology: Topology, readiness: Readiness, on_ready: Callable[[str], None]) -> None:
    record = choose_project(None, topology.file, Path.cwd())
    async with open_bus(attachment_of(record)) as bus:
        while True:
            leases, hosts = await _facts(record, bus)
            for name in readiness.look(merge_rows(leases, hosts, time.time()), hosts):
                on_ready(name)
            if not readiness.missing:
                return
            await asyncio.sleep(_POLL_S)


async def _facts(record: ProjectRecord, bus: WorkerBus) -> tuple[list[Lease], list[HostRecord]]:
    """What is known now; nothing while the broker is away.

    Raises:
        NothingRunningError: The supervisor ended.
    """
    if not record.is_alive:
        raise NothingRunningError(f"is named {record.name!r} any more")
    try:
        return await read_facts(bus)
    except BusError:
        return [], []


def _judge_ended(topology: Topology, readiness: Readiness) -> None:
    """The supervisor is gone already: the logs tell whether all that it ran ended well.

    Raises:
        StartupError: A worker failed.
        ProcessError: It was stopped from elsewhere.
    """
    paths = Project.of(topology).log_paths()
    for instance in readiness.instances:
        if instance.name not in paths:
            continue
        lines = read_lines({instance.name: paths[instance.name]}, LAST_LINES)
        remarks = [line.text for line in lines if line.stream == "pbus"]
        last = remarks[-1] if remarks else ""
        if last.startswith("failed: "):
            raise StartupError(instance.name, last.removeprefix("failed: "))
        if last != describe_exit(0):
            problem = f"{topology.name} was stopped before all were ready: {instance.name} {last}"
            raise ProcessError(problem)
