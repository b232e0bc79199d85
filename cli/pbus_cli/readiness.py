"""Waiting until a project's workers are ready, or until one of them shows that they will not be."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.errors import BusUnavailableError, NothingRunningError, ProcessError
from pbus.observe import HostRecord, ProcessRecord, WorkerRow, merge_rows
from pbus.process.project.discovery import choose_project
from pbus.process.project.log_files import LogLine, read_lines
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.supervisor.restart_policy import describe_exit
from pbus.topology import Topology
from pbus.topology.model import WorkerInstance
from pbus_cli.attach import attachment_of, open_bus, read_facts

_POLL_S: Final = 0.2
_GRACE_S: Final = 2.0  # from the first failure until the verdict
_HINT: Final = "what else was started goes on running; `pbus down` stops it"
LAST_LINES: Final = 20  # of a failed worker's log: a traceback fits


class StartupError(ProcessError):
    """Workers failed before all were ready.

    Attributes:
        workers: Which.
    """

    def __init__(self, failed: Mapping[str, str], waiting: Mapping[str, str] | None = None) -> None:
        lines = [f"worker {name!r} failed: {why}" for name, why in failed.items()]
        lines += [f"worker {name!r} is not ready: {why}" for name, why in (waiting or {}).items()]
        super().__init__("\n".join(lines), hint=_HINT)
        self.workers = tuple(failed)


@dataclass
class Readiness:
    """What is known of the workers that are waited for.

    Attributes:
        ready_once: Those seen ready; what becomes of them later is no failed start.
        failed: Why some will not become ready, by name.
        waiting: What is known of the others that were not ready (nor done) at the last look.
    """

    instances: Sequence[WorkerInstance]
    ready_once: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Those not ready (nor done) when last looked at."""
        return [*self.failed, *self.waiting]

    def look(self, rows: Iterable[WorkerRow], hosts: Iterable[HostRecord]) -> list[str]:
        """Take in how things stand; returns who is ready for the first time."""
        states = {row.name: row.state for row in rows}
        processes = {one.name: one for host in hosts for one in host.processes}
        before = set(self.ready_once)
        self.failed, self.waiting = {}, {}
        for instance in self.instances:
            name, process = instance.name, processes.get(instance.name)
            if states.get(name) == "ready" or _is_done(process):
                self.ready_once.add(name)
            elif (why := self._why_failed(instance, process)) is not None:
                self.failed[name] = why
            else:
                self.waiting[name] = _why_waiting(process, states.get(name))
        return sorted(self.ready_once - before)

    def _why_failed(self, instance: WorkerInstance, process: ProcessRecord | None) -> str | None:
        if process is None:
            return None
        why, last = _exit_text(process), ""
        if process.error and process.error not in why:
            last = f"; last line: {process.error}"
        if process.state == "failed":
            return why + last
        if instance.name in self.ready_once:
            return None
        is_again = process.restarts > 0 and instance.spec.restart != "always"
        if process.exit_code not in {None, 0} or is_again:
            return f"{why} before it was ready{last}"
        return None


def _exit_text(process: ProcessRecord) -> str:
    if process.exit_code is None:
        return process.trouble or "was never started"
    return describe_exit(process.exit_code)


def _why_waiting(process: ProcessRecord | None, state: str | None) -> str:
    if process is None:
        return "not started yet"
    if process.trouble:
        return f"{process.state}, {process.trouble}"
    if process.pid is not None and process.joins and state == "starting":
        return "it runs, but has not said on the bus that it is ready"
    return state or process.state


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
    since: float,
    timeout_s: float,
    on_ready: Callable[[str], None],
) -> None:
    """Wait until all are ready or done.

    Args:
        topology: Whose supervisor was started.
        only: The names it was told to start; all when empty.
        since: When it was started, Unix seconds.
        timeout_s: How long to wait from now.
        on_ready: Told the name of each that is ready.

    Raises:
        StartupError: One will not become ready.
        TimeoutError: Some are not ready in time; names them.
    """
    readiness = Readiness(chosen_instances(topology, only))
    try:
        async with asyncio.timeout(timeout_s):
            await _wait(topology, readiness, on_ready)
    except TimeoutError:
        if readiness.failed:
            raise StartupError(readiness.failed, readiness.waiting) from None
        names = "; ".join(f"{name} ({why})" for name, why in readiness.waiting.items())
        problem = f"not ready within {timeout_s:g} s: {names or 'the supervisor'}"
        raise TimeoutError(problem) from None
    except NothingRunningError:
        _judge_ended(topology, readiness, since)


async def _wait(topology: Topology, readiness: Readiness, on_ready: Callable[[str], None]) -> None:
    record = choose_project(None, topology.file, topology.folder)
    while record.is_alive:
        with contextlib.suppress(BusUnavailableError):  # it ends, or the broker is restarted
            async with open_bus(attachment_of(record)) as bus:
                await _poll(record, bus, readiness, on_ready)
                return
        await asyncio.sleep(_POLL_S)
    raise NothingRunningError(f"is named {record.name!r} any more")


async def _poll(
    record: ProjectRecord, bus: WorkerBus, readiness: Readiness, on_ready: Callable[[str], None]
) -> None:
    """Look at the workers until all are ready.

    Where one fails, the others get a moment to become ready, or to fail as well.

    Raises:
        BusUnavailableError: The broker went away.
        StartupError: Some will not become ready.
    """
    failed_at = math.inf
    while record.is_alive:
        leases, hosts = await read_facts(bus)
        own = [host for host in hosts if host.session == record.session]
        for name in readiness.look(merge_rows(leases, own, time.time()), own):
            on_ready(name)
        if not readiness.missing:
            return
        now = time.monotonic()
        failed_at = min(failed_at, now) if readiness.failed else math.inf
        if readiness.failed and (not readiness.waiting or now - failed_at >= _GRACE_S):
            raise StartupError(readiness.failed, readiness.waiting)
        await asyncio.sleep(_POLL_S)
    raise NothingRunningError(f"is named {record.name!r} any more")


def lines_since(topology: Topology, worker: str, since: float) -> list[LogLine]:
    """The newest lines of a worker's log that are not older than this start."""
    path = Project.of(topology).log_path(worker)
    lines = read_lines({worker: path}, LAST_LINES)
    return [line for line in lines if line.time >= since]


def _judge_ended(topology: Topology, readiness: Readiness, since: float) -> None:
    """The supervisor is gone already: the logs tell whether all that it ran ended well.

    Raises:
        StartupError: A worker failed.
        ProcessError: It was stopped from elsewhere.
    """
    endings = {one.name: "never started" for one in readiness.instances}
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
