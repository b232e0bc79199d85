"""Release of dead incarnations: their leases, the messages they held, the announcement of their end."""

import asyncio

import msgspec

from pbus.bus.base import WorkerBus
from pbus.leases import Lease
from pbus.messages import BusWorkerRegistryMessage
from pbus.process.supervisor.bus_calls import BusCalls
from pbus.process.supervisor.queue_admin import QueueAdmin, describe_loss
from pbus.process.supervisor.reports.stop_reports import StopReports
from pbus.registry.table import entry_of


class _DeadIncarnation(msgspec.Struct):
    """An ended process.

    Attributes:
        reason: Its end as text.
        has_ended_well: It exited with code 0.
        leases: Those released so far.
        open_messages: Fate of the messages it held, as text.
    """

    reason: str
    has_ended_well: bool = False
    leases: list[Lease] = []
    open_messages: str = ""


class DeadIncarnations:
    """Holds dead incarnations until all they had is released; the broker may be away meanwhile.

    Args:
        source: The supervisor's address.
        bus: Its bus.
        calls: Awaits calls of the bus.
        queue_admin: Requeues messages.

    Attributes:
        stop_reports: What workers report when they stop.
    """

    def __init__(
        self, source: str, bus: WorkerBus, calls: BusCalls, queue_admin: QueueAdmin
    ) -> None:
        self.stop_reports = StopReports()
        self._source = source
        self._bus = bus
        self._calls = calls
        self._queue_admin = queue_admin
        self._unreleased: dict[str, _DeadIncarnation] = {}
        self._releasing = asyncio.Lock()

    def add(self, incarnation: str, reason: str) -> None:
        """Add one of an earlier supervisor, to be released later."""
        self._unreleased[incarnation] = _DeadIncarnation(reason)

    async def release(self, incarnation: str, reason: str, *, has_ended_well: bool) -> str:
        """Release an incarnation; see `SupervisorBusClient.release_incarnation`."""
        dead = self._unreleased[incarnation] = _DeadIncarnation(reason, has_ended_well)
        if self._bus.is_connected:
            await self.release_all()
        return dead.open_messages

    async def release_all(self) -> None:
        """Release all with few calls: many may die together."""
        async with self._releasing:
            batch = dict(self._unreleased)
            if not batch:
                return
            call = self._bus.leases.release(list(batch))
            released = await self._calls.result("release leases", call)
            if released is None:
                return
            for incarnation, dead in batch.items():
                dead.leases += [one for one in released if one.incarnation.startswith(incarnation)]
            await self.stop_reports.wait_for(one for one in batch if not batch[one].leases)
            for incarnation, dead in batch.items():
                if not await self._release_messages(incarnation, dead):
                    return

    async def _release_messages(self, incarnation: str, dead: _DeadIncarnation) -> bool:
        """Requeue its messages and announce its end; returns whether the broker was there."""
        call = self._queue_admin.requeue_held_by(incarnation)
        requeued = await self._calls.result("requeue messages", call)
        if requeued is None:
            return False
        unhandled = self.stop_reports.remove(incarnation)
        if dead.has_ended_well:  # then only its own report counts: the registry lags behind
            dead.open_messages = describe_loss(unhandled)
        elif self._queue_admin.is_durable:
            dead.open_messages = describe_loss(unhandled, requeued)
        else:
            dead.open_messages = describe_loss(unhandled, leases=dead.leases)
        del self._unreleased[incarnation]
        await self._announce(dead.leases, dead.reason)
        return True

    async def _announce(self, lost: list[Lease], reason: str) -> None:
        if not lost:
            return
        entries = tuple(entry_of(lease, gone=reason) for lease in lost)
        message = BusWorkerRegistryMessage(
            source=self._source, runner=lost[0].runner, workers=entries
        )
        await self._calls.result("announce a loss", self._bus.send(message))
