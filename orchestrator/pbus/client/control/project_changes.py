"""Changes of a running project: planned by its supervisor, shown, and carried out."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from pbus import errors
from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client.control.control_requester import ControlRequester, ControlResult, OnResult
from pbus.errors import BusError, PbusError, ProcessError
from pbus.messages import BusMessage, BusPlanRequestMessage, BusPlanResponseMessage
from pbus.process.supervisor.changes.plan import Plan

_AGAIN_S: Final = 1.0  # a request or an answer may have been lost: asking again does no harm
_PLAN_S: Final = 15.0  # reading the file included


class PlannedChanges:
    """A plan that a supervisor keeps until it is carried out.

    Args:
        bus: Started.
        new_name: Makes an address.
        address: The supervisor's.
        request_id: The plan's.
        plan: The plan.

    Attributes:
        plan: The plan.
    """

    def __init__(
        self,
        bus: WorkerBus,
        new_name: Callable[[], str],
        address: str,
        request_id: str,
        plan: Plan,
    ) -> None:
        self.plan = plan
        self._bus = bus
        self._new_name = new_name
        self._address = address
        self._request_id = request_id

    async def carry_out(self, timeout_s: float, on_result: OnResult) -> list[ControlResult]:
        """Carry out the plan; returns when all workers are as planned.

        Args:
            timeout_s: Seconds until giving up; the supervisor goes on with it.
            on_result: Called with each result as it comes.

        Raises:
            ControlTimeoutError: Not all was done in time.
            ProcessError: The supervisor is gone.
        """
        if not self.plan.instances:
            return []
        requester = ControlRequester(
            self._bus,
            self._new_name(),
            "apply",
            {self._address: list(self.plan.instances)},
            request_id=self._request_id,
        )
        await self._bus.subscribe(requester)
        try:
            return await requester.run(timeout_s, on_result)
        finally:
            await self._bus.unsubscribe(requester)


class PlanRequester(BusSubscriber):
    """Asks a supervisor for a plan.

    Args:
        bus: Started.
        name: Its address.
        request_id: Of the request.
        scale: Wanted numbers of replicas; None for changes of the topology.
    """

    is_durable = False

    def __init__(
        self, bus: WorkerBus, name: str, request_id: str, scale: Mapping[str, int] | None
    ) -> None:
        self.name = name
        self._bus = bus
        self._request_id = request_id
        self._scale = None if scale is None else dict(scale)
        self._answer: asyncio.Future[BusPlanResponseMessage] = asyncio.Future()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Accept answers to this request only."""
        return (
            isinstance(message, BusPlanResponseMessage) and message.request_id == self._request_id
        )

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep the answer."""
        if isinstance(message, BusPlanResponseMessage) and not self._answer.done():
            self._answer.set_result(message)

    async def run(self, address: str) -> Plan:
        """Return the plan of the supervisor at an address.

        Raises:
            PbusError: Its error, as it would have been raised here.
            ProcessError: It does not answer.
        """
        request = BusPlanRequestMessage(
            source=self.name, target=address, request_id=self._request_id, scale=self._scale
        )
        try:
            async with asyncio.timeout(_PLAN_S):
                while not self._answer.done():
                    with contextlib.suppress(BusError):  # asked again soon
                        await self._bus.send(request)
                    await asyncio.wait([self._answer], timeout=_AGAIN_S)
        except TimeoutError:
            hint = "see `pbus ps` and the log of the supervisor"
            raise ProcessError("the supervisor does not answer", hint=hint) from None
        answer = self._answer.result()
        if answer.plan is None:
            raise remote_error(answer.error, answer.text, answer.hint)
        return msgspec.convert(answer.plan, Plan)


async def request_plan(
    bus: WorkerBus,
    new_name: Callable[[], str],
    address: str,
    request_id: str,
    scale: Mapping[str, int] | None = None,
) -> PlannedChanges:
    """Ask a supervisor for a plan.

    Args:
        bus: Started.
        new_name: Makes an address.
        address: The supervisor's.
        request_id: Of the request.
        scale: Wanted numbers of replicas by worker; None for changes of the topology.

    Raises:
        PbusError: The supervisor's error, as it would have been raised here.
        ProcessError: It does not answer.
    """
    requester = PlanRequester(bus, new_name(), request_id, scale)
    await bus.subscribe(requester)
    try:
        plan = await requester.run(address)
    finally:
        await bus.unsubscribe(requester)
    return PlannedChanges(bus, new_name, address, request_id, plan)


def remote_error(kind: str, text: str, hint: str | None) -> PbusError:
    """Return an error of another process: its class decides the exit code, its texts are shown."""
    known = getattr(errors, kind, None)
    cls = known if isinstance(known, type) and issubclass(known, PbusError) else ProcessError
    error = cls.__new__(cls)
    PbusError.__init__(error, text, hint=hint)
    return error
