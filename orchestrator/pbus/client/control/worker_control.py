"""Starting, stopping and restarting workers, on whichever host they run."""

import asyncio
import fnmatch
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.client.control.control_requester import ControlRequester, ControlResult, OnResult, Plan
from pbus.client.control.project_changes import PlannedChanges, request_plan
from pbus.client.status import read_facts
from pbus.errors import (
    ControlError,
    ControlRefusedError,
    NothingRunningError,
    UnknownNameError,
    UnsupervisedWorkerError,
)
from pbus.ids import new_id
from pbus.leases import Lease
from pbus.messages import ControlAction
from pbus.names import names_of, stands_for, unknown_name
from pbus.observe import HostRecord
from pbus.process.supervisor.changes.wanted import UpRequest, write_request

DEFAULT_TIMEOUT_S: Final = 60.0
CUT_OFF_S: Final = 10.0  # in which a worker is ended whose time to end by itself is over
_RECORD_S: Final = 2.0  # a supervisor that has just started, or got its broker back, needs one
_LOOK_S: Final = 0.1
_PAST: Final = {
    "start": "started", "stop": "stopped", "restart": "restarted", "roll": "restarted",
    "apply": "applied",
    "scale": "scaled",
}  # fmt: skip


class Control:
    """Starts, stops and restarts workers, on whichever host they run.

    Each method takes names of workers, of groups of replicas, or patterns with ``*`` and ``?``, and
    returns when all are as asked for. A supervisor goes on with what is not done in time.

    Args:
        bus: Started by the time of the first call.
        new_name: Makes an address.
        session: The supervisor on this machine; its record is waited for.
    """

    def __init__(
        self, bus: WorkerBus, new_name: Callable[[], str], session: str | None = None
    ) -> None:
        self._bus = bus
        self._new_name = new_name
        self._session = session

    async def restart(
        self,
        *workers: str,
        timeout: float | None = None,  # noqa: ASYNC109 - raises an error of its own
        on_result: OnResult | None = None,
        rolling: bool = False,
    ) -> list[ControlResult]:
        """Stop workers and start them again; returns when they are ready.

        Args:
            workers: Names or patterns.
            timeout: Seconds until giving up; jobs in hand get as many to end. None: 60, and jobs
                in hand get what the supervisor gives them.
            rolling: One after the other: of replicas the next is ready before an old one drains,
                and where it does not become ready the others are left as they were. `timeout` is
                that of each.
            on_result: Called with each result as it comes.

        Raises:
            UnknownNameError: A name stands for no worker.
            UnsupervisedWorkerError: No supervisor started a worker.
            ControlError: Some are not as asked for; has all results.
            ControlTimeoutError: Some were not done in time.
            NothingRunningError: There is no supervisor.
            ProcessError: A supervisor ended meanwhile.
        """
        return await self.run("roll" if rolling else "restart", workers, timeout, on_result)

    async def stop(
        self,
        *workers: str,
        timeout: float | None = None,  # noqa: ASYNC109 - raises an error of its own
        on_result: OnResult | None = None,
    ) -> list[ControlResult]:
        """Stop workers; they stay stopped until they are started. Arguments and errors as restart()."""
        return await self.run("stop", workers, timeout, on_result)

    async def start(
        self,
        *workers: str,
        timeout: float | None = None,  # noqa: ASYNC109 - raises an error of its own
        on_result: OnResult | None = None,
    ) -> list[ControlResult]:
        """Start workers that do not run; returns when they are ready. Arguments and errors as restart()."""
        return await self.run("start", workers, timeout, on_result)

    async def run(
        self,
        action: ControlAction,
        workers: Sequence[str],
        timeout_s: float | None,
        on_result: OnResult | None = None,
    ) -> list[ControlResult]:
        """Do one of the three. Arguments and errors as restart()."""
        leases, hosts = await self._facts()
        if not hosts:
            raise NothingRunningError(f"has a supervisor on {self._bus.channel}")
        plan = choose_workers(workers, hosts, leases)
        requester = ControlRequester(self._bus, self._new_name(), action, plan, given_s=timeout_s)
        limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        if action == "stop" and timeout_s is not None:
            limit_s += CUT_OFF_S
        elif action == "roll":
            limit_s = (limit_s + CUT_OFF_S) * (1 + sum(map(len, plan.values())))
        await self._bus.subscribe(requester)
        try:
            results = await requester.run(limit_s, on_result or (lambda _: None))
        finally:
            await self._bus.unsubscribe(requester)
        check_results(action, results)
        return results

    async def plan_up(self, request: UpRequest, state_dir: Path) -> PlannedChanges:
        """Plan the changes that lead from what runs on this machine to an edited topology.

        Args:
            request: What is wanted.
            state_dir: The project's state folder.

        Raises:
            TopologyError: The file has problems.
            ControlRefusedError: The supervisor refuses.
            ProcessError: It does not answer.
        """
        _, hosts = await self._facts()
        address = next((one.address for one in hosts if one.session == self._session), None)
        if address is None:
            raise NothingRunningError(f"has a supervisor of this machine on {self._bus.channel}")
        request_id = new_id()
        path = write_request(state_dir, request_id, request)
        try:
            return await request_plan(self._bus, self._new_name, address, request_id)
        finally:
            path.unlink(missing_ok=True)

    async def plan_scale(self, counts: Mapping[str, int]) -> PlannedChanges:
        """Plan other numbers of replicas, which hold until the next `pbus up`.

        Args:
            counts: The numbers by the name of the worker.

        Raises:
            UnknownNameError: A name stands for no worker.
            UnsupervisedWorkerError: No supervisor started a worker.
            ControlRefusedError: A worker has no replicas, or a number is out of bounds.
            ProcessError: The supervisor does not answer.
        """
        leases, hosts = await self._facts()
        if not hosts:
            raise NothingRunningError(f"has a supervisor on {self._bus.channel}")
        addresses = list(choose_workers([*counts], hosts, leases))
        if len(addresses) > 1:
            raise ControlRefusedError(
                f"{', '.join(counts)} run under several supervisors", hint="scale one at a time"
            )
        return await request_plan(self._bus, self._new_name, addresses[0], new_id(), counts)

    async def scale(
        self,
        counts: Mapping[str, int],
        *,
        timeout: float = DEFAULT_TIMEOUT_S,  # noqa: ASYNC109 - raises an error of its own
        on_result: OnResult | None = None,
    ) -> list[ControlResult]:
        """Run other numbers of replicas until the next `pbus up`; returns when that is so.

        Args:
            counts: The numbers by the name of the worker; a replica that leaves ends its jobs first.
            timeout: Seconds until giving up.
            on_result: Called with each result as it comes.

        Raises:
            ControlError: Some are not as asked for; has all results.
            ControlTimeoutError: Some were not done in time.
            PbusError: As of plan_scale().
        """
        planned = await self.plan_scale(counts)
        results = await planned.carry_out(timeout, on_result or (lambda _: None))
        check_results("scale", results)
        return results

    async def _facts(self) -> tuple[list[Lease], list[HostRecord]]:
        """Leases and records; waits a little for the record of the supervisor on this machine."""
        deadline = time.monotonic() + _RECORD_S
        while True:
            leases, hosts = await read_facts(self._bus)
            is_there = self._session is None or self._session in {host.session for host in hosts}
            if is_there or time.monotonic() >= deadline:
                return leases, [host for host in hosts if host.address]
            await asyncio.sleep(_LOOK_S)


def check_results(action: str, results: Sequence[ControlResult]) -> None:
    """Check that all workers are as asked for.

    Raises:
        ControlError: Some are not.
    """
    failed = [one.worker for one in results if not one.is_ok]
    if failed:
        raise ControlError(action, _PAST[action], results, failed)


def choose_workers(
    names: Sequence[str], hosts: Iterable[HostRecord], leases: Iterable[Lease] = ()
) -> Plan:
    """The workers that names stand for, by the address of their supervisor.

    Args:
        names: Names of workers, of groups of replicas, or patterns with * and ?.
        hosts: What supervisors run; where two claim a name, the newer record holds.
        leases: All registered workers, to say of one why it cannot be controlled.

    Raises:
        UnknownNameError: A name stands for no worker.
        UnsupervisedWorkerError: No supervisor started a worker.
    """
    address_of: dict[str, str] = {}
    for host in sorted(hosts, key=lambda host: host.time):
        address_of |= {process.name: host.address for process in host.processes}
    plan: Plan = {}
    for name in names:
        meant = [worker for worker in address_of if is_pattern_for(name, worker)]
        if not meant:
            raise _problem(name, list(address_of), leases)
        for worker in meant:
            workers = plan.setdefault(address_of[worker], [])
            if worker not in workers:
                workers.append(worker)
    return plan


def is_pattern_for(name: str, worker: str) -> bool:
    """Whether a name or pattern stands for a worker: itself, or as one of several replicas."""
    return any(one == name or fnmatch.fnmatchcase(one, name) for one in names_of(worker))


def _problem(name: str, known: Sequence[str], leases: Iterable[Lease]) -> UnknownNameError:
    if any(stands_for(name, lease.name) for lease in leases):
        return UnsupervisedWorkerError(name)
    return unknown_name("worker", name, known)
