"""WorkerRegistry: one runner's view of all workers of a channel, and its own leases."""

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.queues.store import QueueStore
from pbus.errors import BusUnavailableError, DuplicateWorkerError, PbusError
from pbus.leases import Activation, Lease
from pbus.messages import BusWorkerRegistryMessage, WorkerRegistryEntry
from pbus.registry.heartbeat import Heartbeat
from pbus.registry.key_owners import KeyOwners
from pbus.registry.live_directory import LiveDirectory
from pbus.registry.own_leases import STORE_TIMEOUT_S, OwnLeases, WorkerFigures, describe
from pbus.registry.stats_reporter import StatsReporter
from pbus.registry.table import entry_of

logger = logging.getLogger(__name__)

_next_incarnation = itertools.count(1).__next__


class WorkerRegistry(LiveDirectory):
    """Knows the workers of a channel, and registers those of one runner.

    Args:
        runner_name: The runner's.
        bus: Carries announcements; its broker stores leases.
        session: Of the runner's workers.
        clock: Seconds; only differences matter.

    Attributes:
        on_name_taken: Called with the name of an own worker, and a description of its new runner.
        owners: Finds the replica that a key belongs to.
    """

    def __init__(
        self,
        runner_name: str,
        bus: WorkerBus,
        session: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(bus)
        self.runner_name = runner_name
        self.session = session
        self.on_name_taken: Callable[[str, str], None] | None = None
        self._child_leases: dict[str, Lease] = {}
        self._leases = OwnLeases(bus)
        self._stats = StatsReporter(bus, self._leases, session)
        self._heartbeat = Heartbeat(
            self._leases,
            self._table,
            notify=self._notify,
            announce=self._announce_soon,
            on_name_lost=self._on_name_lost,
            clock=clock,
        )
        self._heartbeat.on_lost = self._requeue_soon
        self._announced: dict[str, WorkerRegistryEntry] = {}  # the last one of each own worker
        self.owners = KeyOwners(self, bus, self._tasks.spawn)

    @property
    def local_workers(self) -> list[str]:
        """The ready workers of this runner, children included."""
        own = [name for name in self._table.ready_names() if name in self._leases]
        return sorted({*own, *self._children.ready_names()})

    # Own workers

    def new_lease(
        self,
        name: str,
        *,
        active: bool = True,
        args: dict[str, Any] | None = None,
        jobs: Sequence[str] = (),
    ) -> Lease:
        """Make a lease for a new incarnation of an own worker.

        Args:
            name: The worker's.
            active: Whether it starts active.
            args: The arguments of its last activation.
            jobs: The names of the jobs it handles.
        """
        return Lease(
            name=name,
            # All of one length: incarnations are selected by prefix.
            incarnation=f"{self._bus.incarnation}.{_next_incarnation():06x}",
            runner=self.runner_name,
            host=socket.gethostname(),
            pid=os.getpid(),
            session=self.session,
            active=active,
            args=args,
            jobs=tuple(jobs),
            started_at=time.time(),
            beat=time.time(),
        )

    async def register(
        self, lease: Lease, figures: Callable[[], WorkerFigures] = WorkerFigures
    ) -> None:
        """Claim the name of a root worker, before it is ready.

        Args:
            lease: From `new_lease`.
            figures: Returns the present figures of the worker.

        Raises:
            DuplicateWorkerError: The name is taken; names the holder.
            BusUnavailableError: The store does not answer.
        """
        self._check_free(lease.name)
        await self._leases.claim(lease, figures)
        self._bus.names.add(lease.name)

    def add_child(self, lease: Lease) -> None:
        """Register a child, which is known in this runner only.

        Args:
            lease: From `new_lease`.

        Raises:
            DuplicateWorkerError: A worker of this runner has the name.
        """
        self._check_free(lease.name)
        self._child_leases[lease.name] = lease
        self._notify(self._children.apply_announcement(entry_of(lease), is_own=True))

    async def set_ready(self, name: str) -> None:
        """Announce that an own worker is ready."""
        await self._change(name, state="ready")

    async def set_stopping(self, name: str, **fields: Any) -> None:
        """Announce that an own worker accepts no new work; `fields` of its lease change with that."""
        await self._change(name, state="stopping", **fields)

    async def set_active(
        self, name: str, *, active: bool, args: dict[str, Any] | None = None
    ) -> None:
        """Announce and store the activation of an own worker, for later incarnations, too.

        Args:
            name: The worker's.
            active: Whether it is active.
            args: Of the activation.
        """
        activation = Activation(session=self.session, active=active, args=args)
        self._leases.remember(name, activation)
        await self._change(name, active=active, args=args)

    async def last_activation(self, name: str) -> Activation | None:
        """The last activation of an earlier incarnation in the session; None when there is none."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                activation = await self._bus.leases.activation(name)
        except (BusUnavailableError, TimeoutError) as error:
            logger.warning("the last activation of %s cannot be read: %s", name, error)
            return None
        return activation if activation is not None and activation.session == self.session else None

    async def unregister(self, name: str, reason: str, *, unhandled: int = 0) -> None:
        """Release the name of an own worker that has ended, and announce that.

        Args:
            name: The worker's.
            reason: For people.
            unhandled: The number of messages that were queued in it and are lost.
        """
        child = self._child_leases.pop(name, None)
        if child is not None:
            self._notify(self._children.apply_announcement(entry_of(child, gone=reason)))
            return
        lease = self._leases.lease(name)
        if lease is None:
            return
        self._announced.pop(name, None)
        gone = entry_of(lease, gone=reason, unhandled=unhandled)
        self._notify(self._table.apply_announcement(gone))
        try:
            await self._leases.release(name)
        except BusUnavailableError as error:
            logger.warning("the lease of %s is left to run out: %s", name, error)
        await self._announce([gone])

    # Running

    async def start(self) -> None:
        """Read the leases once, and start the heartbeat."""
        self._bus.presences.append(self._table)
        await self._heartbeat.beat()
        await self._begin_following()
        self._tasks.spawn(self._heartbeat.run(), "pbus registry heartbeat")
        self._tasks.spawn(self._stats.run(), "pbus registry stats")

    async def stop(self) -> None:
        """Stop the heartbeat and all watches. Own workers must be unregistered before."""
        if self._table in self._bus.presences:
            self._bus.presences.remove(self._table)
        self._is_started = False
        await self._tasks.close(STORE_TIMEOUT_S)
        await self._stats.report()
        await self._watches.close()

    def drop_missing(self) -> None:
        """Remove the workers that a reading missed, but not after an outage of the store."""
        self._heartbeat.drop_missing()

    async def beat(self) -> None:
        """Renew leases now."""
        await self._heartbeat.beat()

    def on_announcement(self, message: BusWorkerRegistryMessage) -> None:
        """Take in an announcement that the runner received."""
        self._heartbeat.on_announcement(message.workers)

    def _is_own(self, name: str) -> bool:
        return name in self._leases or name in self._child_leases

    async def _change(self, name: str, **fields: Any) -> None:
        child = self._child_leases.get(name)
        if child is not None:
            child = self._child_leases[name] = msgspec.structs.replace(child, **fields)
            self._notify(self._children.apply_announcement(entry_of(child), is_own=True))
            return
        lease = self._leases.change(name, **fields)
        if lease is None:
            return
        await self._heartbeat.renew([name])
        lease = self._leases.lease(name)  # gone if the name is lost
        if lease is None:
            return
        entry = entry_of(lease)
        self._notify(self._table.apply_announcement(entry, is_own=True))
        if self._announced.get(name) != entry:
            self._announced[name] = entry
            await self._announce([entry])

    def _check_free(self, name: str) -> None:
        if self._is_own(name):
            raise DuplicateWorkerError(name, f"this runner, {self.runner_name!r}")

    def _on_name_lost(self, name: str, holder: Lease | None) -> None:
        """Drop a lease whose name another process took while this one counted as lost."""
        self._leases.drop(name)
        self._announced.pop(name, None)
        who = "another runner" if holder is None else describe(holder)
        logger.error("worker %s lost its name to %s", name, who)
        if self.on_name_taken is not None:
            self.on_name_taken(name, who)

    def _announce_soon(self, entries: list[WorkerRegistryEntry]) -> None:
        self._tasks.spawn(self._announce(entries), "pbus registry announcement")

    def _requeue_soon(self, entries: list[WorkerRegistryEntry]) -> None:
        if entries and self._bus.queues is not None:
            work = _requeue(self._bus.queues, entries)
            self._tasks.spawn(work, "pbus registry requeue")

    async def _announce(self, entries: list[WorkerRegistryEntry]) -> None:
        message = BusWorkerRegistryMessage(
            source=self.runner_name, runner=self.runner_name, workers=tuple(entries)
        )
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._bus.send(message)
        except (PbusError, TimeoutError) as error:
            logger.warning("a registry announcement is left to the next heartbeats: %s", error)


async def _requeue(queues: QueueStore, entries: list[WorkerRegistryEntry]) -> None:
    """Requeue the messages that processes of lost workers held."""
    holders = {entry.incarnation.rpartition(".")[0] for entry in entries}
    try:
        count = await queues.requeue_held_by(sorted(holders - {""}))
    except BusUnavailableError as error:
        logger.warning("messages held by %s are not requeued: %s", holders, error)
        return
    if count:
        logger.info("%d messages of lost processes are requeued", count)
