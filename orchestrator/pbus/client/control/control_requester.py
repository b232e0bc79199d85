"""One request to supervisors to start, stop or restart workers, and their answers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client.status import read_facts
from pbus.errors import BusError, ControlTimeoutError, ProcessError
from pbus.ids import new_id
from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    BusMessage,
    ControlAction,
    ControlOutcome,
)

_AGAIN_S: Final = 1.0  # a request or an answer may have been lost: asking again does no harm
_STATES_S: Final = 1.0
_MISSED_LOOKS: Final = 3  # so often is a supervisor missed before it counts as gone
_CAPACITY: Final = 10_000  # answers that wait to be read; then the bus waits

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


class ControlRequester(BusSubscriber):
    """Sends one request to all supervisors concerned, and gathers their answers.

    Args:
        bus: Started.
        name: Its address.
        action: What to do.
        plan: With which workers.
        given_s: Seconds that jobs in hand get; None: what the supervisor gives them.
        request_id: Of the plan that is carried out; a new one for other actions.
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
        request_id: str | None = None,
    ) -> None:
        self.name = name
        self._bus = bus
        self._action = action
        self._request_id = request_id or new_id()
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
            states = await self._states(left)
            raise ControlTimeoutError(self._action, left, timeout_s, states) from None
        return results

    async def _states(self, workers: Collection[str]) -> dict[str, str]:
        """The states of workers, with causes; of none where the broker does not answer at once."""
        try:
            async with asyncio.timeout(_STATES_S):
                _, hosts = await read_facts(self._bus)
        except (BusError, TimeoutError):
            return {}
        return {
            process.name: process.described_state
            for host in hosts
            if host.address in self._open
            for process in host.processes
            if process.name in workers
        }

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
