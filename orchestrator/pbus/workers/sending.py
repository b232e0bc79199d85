"""Sending of messages: to a worker, to one replica of a group, or to everyone."""

import functools
from collections.abc import Sequence

import msgspec

from pbus.bus.queues.batch import BatchSending
from pbus.codec import check_key
from pbus.errors import WorkerNotAttachedError
from pbus.jobs.job_parts import JobParts
from pbus.messages import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
)
from pbus.registry import Replicas
from pbus.workers.core import WorkerCore

# Sent to all replicas of a group.
_TO_ALL = (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
)


class SendingMixin(WorkerCore):
    """Adds sending of messages."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._job_parts: JobParts | None = None

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message to its target, or to everyone when it has none.

        A message to a group of replicas goes to an active one, all messages of one key to the same;
        those without a key that activate, deactivate, end or cancel go to all.

        Args:
            message: The message.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            MessageEncodeError: A field cannot be carried unchanged, or its key is none.
            BusFullError: The receiver made no room in time.
            BusClosedError: The bus is stopped.
        """
        target, registry, bus = message.target, self._registry, self._bus
        if registry is None or bus is None:
            raise WorkerNotAttachedError(self.name)
        if message.key is not None and target is not None:
            await self._send_keyed(message, target, message.key)
            return
        if not registry.is_live:
            await registry.follow()
        if target is None or target == self.name or not registry.is_group(target):
            rest = bus.begin_send(message)
            if rest is not None:
                await rest
            self.sent += 1
            return
        await self._bus_send_to_group(target, message)

    async def send_all(self, messages: Sequence[BusMessage]) -> None:
        """Send messages as send_bus_message() does, in order, all at once, with one wait for all.

        Raises:
            BatchError: Some were not sent: `failures` has the error of each by its position.
            WorkerNotAttachedError: No runner has this worker yet.
            BusClosedError: The bus is stopped: nothing was sent.
        """
        await self.registry.follow()
        sending = await self.bus.begin_batch()
        try:
            await sending.run(messages, functools.partial(self._add_to_batch, sending))
        finally:
            self.sent += sending.sent

    async def _add_to_batch(
        self, sending: BatchSending, position: int, message: BusMessage
    ) -> None:
        """Put a message into a batch, for its target or for members of the group."""
        target = message.target
        if target is not None and message.key is not None:
            await self.registry.owners.add(sending, position, message)
        elif target is None or target == self.name or not self.registry.is_group(target):
            await sending.add(position, message)
        else:
            for member in self._group_members(target, message):
                await sending.add(position, msgspec.structs.replace(message, target=member))

    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: a child to its parent, a root worker to everyone.

        Args:
            error: For people.

        Raises:
            PbusError: The report cannot be sent; see send_bus_message().
        """
        if self.parent is not None:
            report: BusMessage = BusWorkerLocalErrorMessage(
                source=self.name, target=self.parent.name, error=error
            )
        else:
            report = BusWorkerErrorMessage(source=self.address, error=error)
        await self.send_bus_message(report)

    async def _bus_send_to_group(self, group: str, message: BusMessage) -> None:
        for member in self._group_members(group, message):
            await self._bus_send(msgspec.structs.replace(message, target=member))

    async def _send_keyed(self, message: BusMessage, target: str, key: str) -> None:
        """Send a message to the replica that its key belongs to."""
        await self.registry.follow()
        check_key(key, type(message).__name__)

        async def post(name: str) -> bool:
            return await self._bus_send(msgspec.structs.replace(message, target=name))

        await self.registry.owners.send(target, key, post)

    def _group_members(self, group: str, message: BusMessage) -> list[str]:
        """The replicas of a group that get a message."""
        if isinstance(message, _TO_ALL):
            return self._replica_choice.all_of(group)
        chosen = self._replica_choice.choose(group)
        return [group if chosen is None else chosen.worker_name]

    @property
    def _replica_choice(self) -> Replicas:
        if self._job_parts is None:
            raise WorkerNotAttachedError(self.name)
        return self._job_parts.replicas
