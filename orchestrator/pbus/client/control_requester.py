"""Starting, stopping and restarting workers through their supervisors."""

import asyncio
import contextlib
import fnmatch
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client.status import read_facts
from pbus.client.targets import unknown_name
from pbus.errors import (
    BusError,
    ControlError,
    ControlTimeoutError,
    NothingRunningError,
    ProcessError,
    UnknownNameError,
    UnsupervisedWorkerError,
)
from pbus.ids import new_id
from pbus.leases import Lease
from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    BusMessage,
    ControlAction,
    ControlOutcome,
)
from pbus.names import names_of, stands_for
from pbus.observe import HostRecord

DEFAULT_TIMEOUT_S: Final = 60.0
_AGAIN_S: Final = 1.0  # a request or an answer may have been lost: asking again does no harm
_MISSED_LOOKS: Final = 3  # so often is a supervisor missed before it counts as gone
_RECORD_S: Final = 2.0  # a supervisor that has just started, or got its broker back, needs one
_LOOK_S: Final = 0.1
CUT_OFF_S: Final = 10.0  # in which a worker is ended whose time to end by itself is over
_CAPACITY: Final = 10_000  # answers that wait to be read; then the bus waits
_PAST: Final = {"start": "started", "stop": "stopped", "restart": "restarted"}

Plan = dict[str, list[str]]  # the address of a supervisor: names of its workers


class ControlResult(msgspec.Struct, frozen=True):
    """The result of starting, stopping or restarting one worker.

    Attributes:
        outcome: "done"; "unchanged": it was so already; "failed": it did not become ready;
            "superseded": the opposite was asked for meanwhile; "refused": not now.
        state: The worker's state now.
        pid: Of its process; None where it has none.
        detail: The reason, in a few words; may be empty.
    """

    worker: str
    outcome: ControlOutcome
    state: str | None = None
    pid: int | None = None
    detail: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the worker is as was asked for."""
        return self.outcome in {"done", "unchanged"}


OnResult = Callable[[ControlResult], None]


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
    ) -> list[ControlResult]:
        """Stop workers and start them again; returns when they are ready.

        Args:
            workers: Names or patterns.
            timeout: Seconds until giving up; jobs in hand get as many to end. None: 60, and jobs
                in hand get what the supervisor gives them.
            on_result: Called with each result as it comes.

        Raises:
            UnknownNameError: A name stands for no worker.
            UnsupervisedWorkerError: No supervisor started a worker.
            ControlError: Some are not as asked for; has all results.
            ControlTimeoutError: Some were not done in time.
            NothingRunningError: There is no supervisor.
            ProcessError: A supervisor ended meanwhile.
        """
        return await self.run("restart", workers, timeout, on_result)

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
        await self._bus.subscribe(requester)
        try:
            results = await requester.run(limit_s, on_result or (lambda _: None))
        finally:
            await self._bus.unsubscribe(requester)
        failed = [one.worker for one in results if not one.is_ok]
        if failed:
            raise ControlError(action, _PAST[action], results, failed)
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


class ControlRequester(BusSubscriber):
    """Sends one request to all supervisors concerned, and gathers their answers.

    Args:
        bus: Started.
        name: Its address.
        action: What to do.
        plan: With which workers.
        given_s: Seconds that jobs in hand get; None: what the supervisor gives them.
    """

    is_durable = False

    def __init__(
        self,
        bus: WorkerBus,
        name: str,
        action: ControlAction,
        plan: Plan,
        *,
        given_s: float | None = None,
    ) -> None:
        self.name = name
        self._bus = bus
        self._action = action
        self._request_id = new_id()
        self._open = {address: list(workers) for address, workers in plan.items()}
        self._answers: asyncio.Queue[BusControlResponseMessage] = asyncio.Queue(_CAPACITY)
        self._missed = dict.fromkeys(plan, 0)
        self._given_s = given_s

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only answers to this request."""
        return (
            isinstance(message, BusControlResponseMessage)
            and message.request_id == self._request_id
        )

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep an answer."""
        if isinstance(message, BusControlResponseMessage):
            await self._answers.put(message)

    async def run(self, timeout_s: float, on_result: OnResult) -> list[ControlResult]:
        """Have it done.

        Returns:
            A result for each worker, in the order they came.

        Raises:
            ControlTimeoutError: Not all was done in time.
            ProcessError: A supervisor is gone.
        """
        results: list[ControlResult] = []
        try:
            async with asyncio.timeout(timeout_s):
                while self._open:
                    await self._ask()
                    async for result in self._new_results():
                        results.append(result)
                        on_result(result)
        except TimeoutError:
            left = [worker for workers in self._open.values() for worker in workers]
            raise ControlTimeoutError(self._action, left, timeout_s) from None
        return results

    async def _ask(self) -> None:
        for address, workers in self._open.items():
            request = BusControlRequestMessage(
                source=self.name,
                target=address,
                request_id=self._request_id,
                action=self._action,
                workers=tuple(workers),
                timeout_s=self._given_s,
            )
            with contextlib.suppress(BusError):  # asked again soon
                await self._bus.send(request)

    async def _new_results(self) -> AsyncIterator[ControlResult]:
        """New results, until it is time to ask again or nothing is open."""
        again = time.monotonic() + _AGAIN_S
        while self._open:
            try:
                async with asyncio.timeout(again - time.monotonic()):
                    answer = await self._answers.get()
            except TimeoutError:
                await self._check_supervisors()
                return
            if self._is_first(answer):
                yield ControlResult(
                    answer.worker, answer.outcome, answer.state, answer.pid, answer.detail
                )

    def _is_first(self, answer: BusControlResponseMessage) -> bool:
        """Whether an answer is the first about its worker."""
        workers = self._open.get(answer.source, [])
        if answer.worker not in workers:
            return False
        workers.remove(answer.worker)
        if not workers:
            del self._open[answer.source]
        return True

    async def _check_supervisors(self) -> None:
        try:
            _, hosts = await read_facts(self._bus)
        except BusError:  # the broker is away: the deadline decides
            return
        there = {host.address for host in hosts}
        for address, workers in self._open.items():
            self._missed[address] = 0 if address in there else self._missed[address] + 1
            if self._missed[address] >= _MISSED_LOOKS:
                names = ", ".join(workers)
                raise ProcessError(f"the supervisor of {names} is gone", hint="see `pbus ps`")
