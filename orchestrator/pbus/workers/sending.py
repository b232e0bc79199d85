"""Sending: to a worker, to one replica of a group, to everyone."""

import msgspec

from pbus.errors import WorkerNotAttachedError
from pbus.jobs.replicas import Replicas
from pbus.messages import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
)
from pbus.workers.core import WorkerCore

# What is said to a group is meant for all of it.
_TO_ALL = (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
)


class SendingMixin(WorkerCore):
    """Lets a worker send messages."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._replicas: Replicas | None = None

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message to its target, or to everyone when it has none.

        A message to a group of replicas goes to one of them that is active; activating,
        deactivating, ending and cancelling goes to all.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            MessageEncodeError: A field cannot be carried unchanged.
            BusFullError: The receiver made no room in time.
            BusClosedError: The bus is stopped.
        """
        target, registry, bus = message.target, self._registry, self._bus
        if registry is None or bus is None:
            raise WorkerNotAttachedError(self.name)
        if target is None or target == self.name or not registry.is_group(target):
            await bus.send(message)
            self.sent += 1
            return
        for member in self._members(target, message):
            await self._transmit(msgspec.structs.replace(message, target=member))

    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: a child to its parent, a root worker to everyone."""
        if self.parent is not None:
            report: BusMessage = BusWorkerLocalErrorMessage(
                source=self.name, target=self.parent.name, error=error
            )
        else:
            report = BusWorkerErrorMessage(source=self.address, error=error)
        await self.send_bus_message(report)

    @property
    def _spread(self) -> Replicas:
        if self._replicas is None:
            self._replicas = Replicas(self.registry)
        return self._replicas

    def _members(self, group: str, message: BusMessage) -> list[str]:
        """Those of a group that are to get a message."""
        if isinstance(message, _TO_ALL):
            return self._spread.all_of(group)
        chosen = self._spread.choose(group)
        return [group if chosen is None else chosen.worker_name]
