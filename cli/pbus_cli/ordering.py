"""Ordering workers about from another terminal: whom names mean, who has them, what came of it."""

import asyncio
import contextlib
import fnmatch
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import typer

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import BusError, NothingRunningError, ProcessError
from pbus.ids import new_id, new_token
from pbus.leases import Lease
from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    BusMessage,
    ControlAction,
)
from pbus.names import names_of, stands_for
from pbus.observe import HostRecord
from pbus_cli import console
from pbus_cli.attach import Attachment, choose, open_bus, read_facts, while_running
from pbus_cli.names import unknown_name
from pbus_cli.running import run

OnAnswer = Callable[[BusControlResponseMessage], None]
Plan = dict[str, list[str]]  # the address of a supervisor: names of its workers

PATIENCE_S: Final = 60.0
_AGAIN_S: Final = 1.0  # a request or an answer may have been lost: asking again does no harm
_MISSED_LOOKS: Final = 3  # so often is a supervisor missed before it counts as gone
_RECORD_S: Final = 2.0  # a supervisor that has just started, or got its broker back, needs one
_LOOK_S: Final = 0.1
_CUT_OFF_S: Final = 10.0  # in which a worker is ended whose time to end by itself is over
_CAPACITY: Final = 10_000  # answers that wait to be read; then the bus waits

_PAST: Final = {"start": "started", "stop": "stopped", "restart": "restarted"}
_WELL: Final = {
    ("start", "done"): "is ready",
    ("start", "unchanged"): "was running already",
    ("stop", "done"): "has stopped",
    ("stop", "unchanged"): "was not running",
    ("restart", "done"): "was restarted",
}


def order(
    action: ControlAction,
    names: Sequence[str],
    project: str | None,
    file: Path | None,
    *,
    timeout_s: float | None,
) -> None:
    """Carry out a verb: say what became of each worker.

    Args:
        action: The verb.
        names: Of workers.
        project: As given by the user.
        file: As given by the user.
        timeout_s: Seconds until giving up, which jobs in hand get, too; None: PATIENCE_S, and they
            get what the supervisor gives them.

    Raises:
        typer.Exit: With 1, when some did not do as ordered.
    """
    attachment = choose(project, file)

    def say(answer: BusControlResponseMessage) -> None:
        console.note(answer_text(action, answer))

    answers = run(while_running(attachment, _order(attachment, action, names, timeout_s, say)))
    failed = [one.worker for one in answers if one.outcome not in {"done", "unchanged"}]
    if failed:
        problem = f"not {_PAST[action]}: {', '.join(failed)}"
        console.fail(problem, "`pbus logs WORKER` shows what it wrote")
        raise typer.Exit(console.FAILED)


def answer_text(action: ControlAction, answer: BusControlResponseMessage) -> str:
    """What became of one worker, in a line."""
    what = _WELL.get((action, answer.outcome))
    if what is None:
        return f"{answer.worker} {answer.outcome}: {answer.detail}"
    pid = None if answer.pid is None else f"pid {answer.pid}"
    more = ", ".join(filter(None, (pid, answer.detail)))
    return f"{answer.worker} {what}" + (f" ({more})" if more else "")


async def _order(
    attachment: Attachment,
    action: ControlAction,
    names: Sequence[str],
    timeout_s: float | None,
    on_answer: OnAnswer,
) -> list[BusControlResponseMessage]:
    async with open_bus(attachment) as bus:
        leases, hosts = await _facts(bus, attachment)
        if not hosts:
            raise NothingRunningError(f"has a supervisor on {attachment.channel}")
        plan = choose_workers(names, hosts, leases)
        orderer = Orderer(bus, action, plan, given_s=timeout_s)
        await bus.subscribe(orderer)
        limit_s = PATIENCE_S if timeout_s is None else timeout_s
        if action == "stop" and timeout_s is not None:
            limit_s += _CUT_OFF_S
        return await orderer.carry_out(limit_s, on_answer)


async def _facts(bus: WorkerBus, attachment: Attachment) -> tuple[list[Lease], list[HostRecord]]:
    """Leases and records; waits a little for the record of the supervisor on this machine."""
    own = attachment.record
    deadline = time.monotonic() + _RECORD_S
    while True:
        leases, hosts = await read_facts(bus)
        is_there = own is None or any(host.session == own.session for host in hosts)
        if is_there or time.monotonic() >= deadline:
            return leases, [host for host in hosts if host.address]
        await asyncio.sleep(_LOOK_S)


def choose_workers(
    names: Sequence[str], hosts: Iterable[HostRecord], leases: Iterable[Lease] = ()
) -> Plan:
    """Which workers of which supervisors are meant.

    Args:
        names: Of workers, of what replicas have in common, or patterns with * and ?.
        hosts: What supervisors run; where two claim a name, the newer record holds.
        leases: Who else is on the bus, to say why it cannot be ordered about.

    Raises:
        typer.BadParameter: A name means nobody.
    """
    address_of: dict[str, str] = {}
    for host in sorted(hosts, key=lambda host: host.time):
        address_of |= {process.name: host.address for process in host.processes}
    plan: Plan = {}
    for name in names:
        meant = [worker for worker in address_of if is_pattern_for(name, worker)]
        if not meant:
            raise typer.BadParameter(_problem(name, address_of, leases), param_hint="WORKER")
        for worker in meant:
            workers = plan.setdefault(address_of[worker], [])
            if worker not in workers:
                workers.append(worker)
    return plan


def is_pattern_for(name: str, worker: str) -> bool:
    """Whether a name or pattern means a worker: itself, or as one of several replicas."""
    return any(one == name or fnmatch.fnmatchcase(one, name) for one in names_of(worker))


def _problem(name: str, known: Iterable[str], leases: Iterable[Lease]) -> str:
    if any(stands_for(name, lease.name) for lease in leases):
        return f"{name!r} was not started by `pbus up`: only who started it can do that"
    return unknown_name("worker", name, known)


class Orderer(BusSubscriber):
    """Sends one order to all supervisors concerned, and gathers their answers.

    Args:
        bus: Started.
        action: What to do.
        plan: With whom.
        given_s: Seconds that jobs in hand get; None: what the supervisor gives them.
    """

    is_durable = False

    def __init__(
        self, bus: WorkerBus, action: ControlAction, plan: Plan, *, given_s: float | None = None
    ) -> None:
        self.name = f"cli-{new_token(32)}"
        self._bus = bus
        self._action = action
        self._order = new_id()
        self._open = {address: list(workers) for address, workers in plan.items()}
        self._heard: asyncio.Queue[BusControlResponseMessage] = asyncio.Queue(_CAPACITY)
        self._missed = dict.fromkeys(plan, 0)
        self._given_s = given_s

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only answers to this order."""
        return isinstance(message, BusControlResponseMessage) and message.order == self._order

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep it for whoever waits."""
        if isinstance(message, BusControlResponseMessage):
            await self._heard.put(message)

    async def carry_out(
        self, timeout_s: float, on_answer: OnAnswer
    ) -> list[BusControlResponseMessage]:
        """Have it done; returns the answers.

        Raises:
            TimeoutError: Not all was done in time; names what was not. It goes on all the same.
            ProcessError: A supervisor is gone.
        """
        answers: list[BusControlResponseMessage] = []
        try:
            async with asyncio.timeout(timeout_s):
                while self._open:
                    await self._ask()
                    async for answer in self._answers():
                        answers.append(answer)
                        on_answer(answer)
        except TimeoutError:
            left = ", ".join(worker for workers in self._open.values() for worker in workers)
            problem = f"cannot {self._action} within {timeout_s:g} s: {left}; it is still tried"
            raise TimeoutError(problem) from None
        return answers

    async def _ask(self) -> None:
        for address, workers in self._open.items():
            request = BusControlRequestMessage(
                source=self.name,
                target=address,
                order=self._order,
                action=self._action,
                workers=tuple(workers),
                timeout_s=self._given_s,
            )
            with contextlib.suppress(BusError):  # asked again soon
                await self._bus.send(request)

    async def _answers(self) -> AsyncIterator[BusControlResponseMessage]:
        """New answers, until it is time to ask again or nothing is open."""
        again = time.monotonic() + _AGAIN_S
        while self._open:
            try:
                async with asyncio.timeout(again - time.monotonic()):
                    answer = await self._heard.get()
            except TimeoutError:
                await self._see_alive()
                return
            if self._note(answer):
                yield answer

    def _note(self, answer: BusControlResponseMessage) -> bool:
        """Whether an answer is the first about its worker."""
        workers = self._open.get(answer.source, [])
        if answer.worker not in workers:
            return False
        workers.remove(answer.worker)
        if not workers:
            del self._open[answer.source]
        return True

    async def _see_alive(self) -> None:
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
