"""Waiting until workers are ready, or until one of them shows that it will not be."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.client.attachment import attachment_of, while_running
from pbus.client.status import read_facts
from pbus.errors import (
    BusUnavailableError,
    NothingRunningError,
    NotReadyError,
    ProcessError,
    StartupError,
)
from pbus.names import stands_for
from pbus.observe import HostRecord, ProcessRecord, WorkerRow, merge_rows
from pbus.process.project.discovery import choose_project
from pbus.process.project.log_files import LogLine
from pbus.process.project.log_reader import read_lines
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.supervisor.worker.restart_policy import describe_exit
from pbus.topology import Topology
from pbus.topology.model import WorkerInstance
from pbus.topology.policy.shared_process import process_names
from pbus.topology.selection import Selection, select

_POLL_S: Final = 0.2
_POLL_EACH_S: Final = 0.01  # for each worker that is missing: a look reads all of them
_MAX_POLL_S: Final = 2.0
_GRACE_S: Final = 2.0  # from the first failure until the verdict
LAST_LINES: Final = 20  # of a failed worker's log: a traceback fits


@dataclass
class Readiness:
    """The progress of the workers that are waited for.

    Attributes:
        may_restart: By the name of each worker: whether an exit before it is ready is no failure.
        ready_once: Those seen ready; what becomes of them later is no failed start.
        failed: Why some will not become ready, by name.
        waiting: The state of the others that were not ready (nor done) at the last look, by name.
    """

    may_restart: Mapping[str, bool]
    ready_once: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, instances: Iterable[WorkerInstance]) -> "Readiness":
        """Of workers that were just started for the first time."""
        return cls({one.name: one.spec.restart.policy == "always" for one in instances})

    @property
    def missing(self) -> list[str]:
        """Those not ready (nor done) when last looked at."""
        return [*self.failed, *self.waiting]

    def error(self) -> StartupError:
        """The failures; where nothing else was started, the project ends by itself."""
        goes_on = self.waiting or self.ready_once.difference(self.failed)
        return StartupError(self.failed, self.waiting if goes_on else None)

    def look(self, rows: Iterable[WorkerRow], hosts: Iterable[HostRecord]) -> list[str]:
        """Take in how things stand; returns who is ready for the first time."""
        states = {row.name: row.state for row in rows}
        processes = {one.name: one for host in hosts for one in host.processes}
        before = set(self.ready_once)
        self.failed, self.waiting = {}, {}
        for name, may_restart in self.may_restart.items():
            process = processes.get(name)
            if states.get(name) == "ready" or _is_done(process):
                self.ready_once.add(name)
            elif (why := self._why_failed(name, process, may_restart=may_restart)) is not None:
                self.failed[name] = why
            else:
                self.waiting[name] = _why_waiting(process, states.get(name))
        return sorted(self.ready_once - before)

    def _why_failed(
        self, name: str, process: ProcessRecord | None, *, may_restart: bool
    ) -> str | None:
        if process is None:
            return None
        why, last = _exit_text(process), ""
        if process.error and process.error not in why:
            last = f"; last line: {process.error}"
        if process.state == "failed":
            return why + last
        if name in self.ready_once:
            return None
        is_again = process.restarts > 0 and not may_restart
        if not process.has_succeeded and (process.exit_code not in {None, 0} or is_again):
            return f"{why} before it was ready{last}"
        return None


def _exit_text(process: ProcessRecord) -> str:
    if process.state in {"failed", "backoff"} and process.reason:
        return process.reason
    if process.exit_code is None:
        return process.last_end or process.trouble or "was never started"
    return describe_exit(process.exit_code)


def _why_waiting(process: ProcessRecord | None, state: str | None) -> str:
    if process is None:
        return state or "not started yet"
    if process.trouble:
        return process.described_state
    if process.pid is not None and process.joins and state == "starting":
        return "it runs, but has not said on the bus that it is ready"
    return state or process.state


def _is_done(process: ProcessRecord | None) -> bool:
    """A worker that did its work and left counts as ready."""
    return process is not None and process.has_succeeded


async def wait_ready(bus: WorkerBus, names: Sequence[str], timeout_s: float) -> list[str]:
    """Wait until workers are ready, however often they are restarted meanwhile.

    Args:
        bus: Started.
        names: Workers, or groups of which all replicas are meant; all of the channel when empty.
        timeout_s: Seconds to wait.

    Returns:
        The workers that are ready, or have done their work and left.

    Raises:
        StartupError: A supervisor has given one up.
        NotReadyError: Some are not ready in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        leases, hosts = await read_facts(bus)
        rows = merge_rows(leases, hosts, time.time())
        readiness = Readiness(dict.fromkeys(_meant(names, rows), True))
        readiness.ready_once.update(readiness.may_restart)  # an exit is no failure here
        readiness.look(rows, hosts)
        if readiness.failed:
            raise StartupError(readiness.failed, readiness.waiting)
        if readiness.may_restart and not readiness.waiting:
            return list(readiness.may_restart)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise NotReadyError(readiness.waiting, timeout_s)
        await asyncio.sleep(min(poll_pause_s(len(readiness.waiting)), left_s))


def _meant(names: Sequence[str], rows: Iterable[WorkerRow]) -> list[str]:
    known = [row.name for row in rows]
    if not names:
        return known
    meant = [(name, [one for one in known if stands_for(name, one)] or [name]) for name in names]
    return list(dict.fromkeys(one for _, found in meant for one in found))


async def wait_started(
    topology: Topology,
    selection: Selection,
    *,
    since: float,
    timeout_s: float,
    on_ready: Callable[[str], None],
) -> None:
    """Wait until all workers of a topology that was just started are ready or done.

    Args:
        topology: The supervisor's.
        selection: The processes that it was told to run.
        since: When it was started, Unix seconds.
        timeout_s: How long to wait from now.
        on_ready: Called with the name of each that is ready.

    Raises:
        StartupError: One will not become ready.
        NotReadyError: Some are not ready in time.
        ProcessError: The project was stopped meanwhile.
    """
    readiness = Readiness.of(select(topology, selection))
    try:
        async with asyncio.timeout(timeout_s):
            await _wait(topology, readiness, on_ready)
    except TimeoutError:
        if readiness.failed:
            raise readiness.error() from None
        raise NotReadyError(readiness.waiting, timeout_s) from None
    except NothingRunningError:
        _judge_ended(topology, readiness, since)


async def _wait(topology: Topology, readiness: Readiness, on_ready: Callable[[str], None]) -> None:
    """Look at the workers of a project until all are ready, or the project has ended.

    Raises:
        NothingRunningError: It has ended.
        StartupError: Some will not become ready.
    """
    record = choose_project(None, topology.file, topology.folder)
    await while_running(attachment_of(record), _poll(record, readiness, on_ready), _POLL_S)


async def _poll(
    record: ProjectRecord, readiness: Readiness, on_ready: Callable[[str], None]
) -> None:
    """Look at the workers until all are ready, also over a restart of the broker."""
    while True:
        with contextlib.suppress(BusUnavailableError):
            async with attachment_of(record).opened() as bus:
                await _watch(record.session, bus, readiness, on_ready)
                return
        await asyncio.sleep(_POLL_S)


async def _watch(
    session: str,
    bus: WorkerBus,
    readiness: Readiness,
    on_ready: Callable[[str], None],
) -> None:
    """Look at the workers until all are ready.

    Where one fails, the others get a moment to become ready, or to fail as well.

    Raises:
        BusUnavailableError: The broker went away.
        StartupError: Some will not become ready.
    """
    failed_at = math.inf
    while True:
        leases, hosts = await read_facts(bus)
        own = [host for host in hosts if host.session == session]
        for name in readiness.look(merge_rows(leases, own, time.time()), own):
            on_ready(name)
        if not readiness.missing:
            return
        now = time.monotonic()
        failed_at = min(failed_at, now) if readiness.failed else math.inf
        if readiness.failed and (not readiness.waiting or now - failed_at >= _GRACE_S):
            raise readiness.error()
        await asyncio.sleep(poll_pause_s(len(readiness.waiting)))


def poll_pause_s(missing: int) -> float:
    """Seconds until the next look, by the number of workers that are missing."""
    return max(_POLL_S, min(_MAX_POLL_S, missing * _POLL_EACH_S))


def lines_since(topology: Topology, worker: str, since: float) -> list[LogLine]:
    """The newest lines of a worker's log that are not older than this start."""
    path = Project.of(topology).log_path(process_names(topology).get(worker, worker))
    lines = read_lines({worker: path}, LAST_LINES)
    return [line for line in lines if line.time >= since]


def _judge_ended(topology: Topology, readiness: Readiness, since: float) -> None:
    """The supervisor is gone already: the logs tell whether all that it ran ended well.

    Raises:
        StartupError: A worker failed.
        ProcessError: It was stopped from elsewhere.
    """
    endings = dict.fromkeys(readiness.may_restart, "never started")
    for name in endings:
        for line in lines_since(topology, name, since):
            if line.stream == "pbus":
                endings[name] = line.text
    failed = {
        name: ending.removeprefix("failed: ")
        for name, ending in endings.items()
        if ending.startswith("failed: ")
    }
    if failed:
        raise StartupError(failed)
    for name, ending in endings.items():
        if ending != describe_exit(0):
            problem = f"{topology.name} was stopped before all were ready: {name} {ending}"
            raise ProcessError(problem)
