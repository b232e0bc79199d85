"""WorkerRegistry: one runner's view of all workers of the channel, and the leases of its own."""

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
from pbus.concurrency.background import TaskOwner
from pbus.errors import BusUnavailableError, DuplicateWorkerError, PbusError
from pbus.leases import Activation, Lease
from pbus.messages import BusWorkerRegistryMessage, WorkerRegistryEntry
from pbus.registry.directory import Directory
from pbus.registry.heartbeat import Heartbeat
from pbus.registry.own_leases import STORE_TIMEOUT_S, OwnLeases, describe
from pbus.registry.table import entry_of

logger = logging.getLogger(__name__)

_next_life = itertools.count(1).__next__


class WorkerRegistry(Directory):
    """Knows who is ready, tells watchers, and keeps this runner's own workers known.

    Args:
        runner_name: The runner it serves.
        bus: Where announcements travel and leases are kept.
        session: The session of the runner's workers.
        clock: Seconds; only differences matter.
    """

    def __init__(
        self,
        runner_name: str,
        bus: WorkerBus,
        session: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.runner_name = runner_name
        self.session = session
        self.on_refused: Callable[[str, str], None] | None = None
        self._bus = bus
        self._child_leases: dict[str, Lease] = {}
        self._holdings = OwnLeases(bus)
        self._heartbeat = Heartbeat(
            self._holdings,
            self._table,
            tell=self._tell,
            announce=self._announce_soon,
            refuse=self._refuse,
            clock=clock,
        )
        self._heartbeat.on_given_up = self._give_back_soon
        self._announced: dict[str, WorkerRegistryEntry] = {}  # what was last said of own workers
        self._tasks = TaskOwner()

    # Who is there

    @property
    def local_workers(self) -> list[str]:
        """The ready workers of this runner, children included."""
        own = [name for name in self._table.ready_names() if name in self._holdings]
        return sorted({*own, *self._children.ready_names()})

    @property
    def remote_workers(self) -> list[str]:
        """The ready workers of other runners."""
        return [name for name in self._table.ready_names() if name not in self._holdings]

    # This runner's own workers

    def new_lease(
        self,
        name: str,
        *,
        active: bool = True,
        args: dict[str, Any] | None = None,
        jobs: Sequence[str] = (),
    ) -> Lease:
        """A lease for a new life of a worker of this runner, not yet registered."""
        return Lease(
            name=name,
            # All of one length: prefixes select, and none may be the beginning of another.
            incarnation=f"{self._bus.incarnation}.{_next_life():06x}",
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
        self,
        lease: Lease,
        *,
        sent: Callable[[], int] = lambda: 0,
        working: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take a root worker's name, before it is ready.

        Args:
            lease: From `new_lease`.
            sent: Tells how many messages the worker has sent.
            working: Tells how many jobs it has in hand.

        Raises:
            DuplicateWorkerError: The name is taken; says by whom.
            BusUnavailableError: The store does not answer.
        """
        self._check_free(lease.name)
        await self._holdings.claim(lease, sent, working)
        self._bus.names.add(lease.name)

    def add_child(self, lease: Lease) -> None:
        """Take a child's name within this runner; nobody else hears of it.

        Raises:
            DuplicateWorkerError: A worker of this runner has the name.
        """
        self._check_free(lease.name)
        self._child_leases[lease.name] = lease
        self._tell(self._children.hear(entry_of(lease), is_own=True))

    async def set_ready(self, name: str) -> None:
        """A worker of this runner has started: watchers everywhere are told."""
        await self._change(name, state="ready")

    async def set_stopping(self, name: str) -> None:
        """A worker of this runner takes no new work; it is not lost yet."""
        await self._change(name, state="stopping")

    async def set_active(
        self, name: str, *, active: bool, args: dict[str, Any] | None = None
    ) -> None:
        """A worker of this runner became active or inactive; a restart will begin that way."""
        activation = Activation(session=self.session, active=active, args=args)
        self._holdings.remember(name, activation)
        await self._change(name, active=active, args=args)

    async def last_activation(self, name: str) -> Activation | None:
        """How an earlier life of this worker within the session was last told to be."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                activation = await self._bus.leases.activation(name)
        except (BusUnavailableError, TimeoutError) as error:
            logger.warning("the last activation of %s cannot be read: %s", name, error)
            return None
        return activation if activation is not None and activation.session == self.session else None

    async def unregister(self, name: str, reason: str, *, unhandled: int = 0) -> None:
        """A worker of this runner has left: free its name and tell watchers everywhere why.

        Args:
            name: Whose.
            reason: For people.
            unhandled: Messages that waited in it and are lost.
        """
        child = self._child_leases.pop(name, None)
        if child is not None:
            self._tell(self._children.hear(entry_of(child, gone=reason)))
            return
        lease = self._holdings.lease(name)
        if lease is None:
            return
        self._announced.pop(name, None)
        gone = entry_of(lease, gone=reason, unhandled=unhandled)
        self._tell(self._table.hear(gone))
        try:
            await self._holdings.release(name)
        except BusUnavailableError as error:
            logger.warning("the lease of %s is left to run out: %s", name, error)
        await self._announce([gone])

    # Running

    async def start(self) -> None:
        """Learn who is there, and begin to renew and to follow."""
        self._bus.presences.append(self._table)
        await self._heartbeat.beat()
        self._tasks.spawn(self._heartbeat.run(), "pbus registry heartbeat")

    async def stop(self) -> None:
        """End the heartbeat and all watches; unregister own workers first."""
        if self._table in self._bus.presences:
            self._bus.presences.remove(self._table)
        await self._tasks.close(STORE_TIMEOUT_S)
        await self._watches.close()

    async def beat(self) -> None:
        """One heartbeat, out of turn."""
        await self._heartbeat.beat()

    def hear(self, message: BusWorkerRegistryMessage) -> None:
        """Take in an announcement; the runner passes on those that come to it."""
        self._heartbeat.hear(message.workers)

    async def _change(self, name: str, **fields: Any) -> None:
        child = self._child_leases.get(name)
        if child is not None:
            child = self._child_leases[name] = msgspec.structs.replace(child, **fields)
            self._tell(self._children.hear(entry_of(child), is_own=True))
            return
        lease = self._holdings.change(name, **fields)
        if lease is None:
            return
        await self._heartbeat.renew([name])
        lease = self._holdings.lease(name)  # not there any more if it was refused
        if lease is None:
            return
        entry = entry_of(lease)
        self._tell(self._table.hear(entry, is_own=True))
        if self._announced.get(name) != entry:
            self._announced[name] = entry
            await self._announce([entry])

    def _check_free(self, name: str) -> None:
        if name in self._holdings or name in self._child_leases:
            raise DuplicateWorkerError(name, f"this runner, {self.runner_name!r}")

    def _refuse(self, name: str, holder: Lease | None) -> None:
        """Another process took the name while this one was thought dead."""
        self._holdings.drop(name)
        self._announced.pop(name, None)
        who = describe(holder) if holder is not None else "another runner"
        logger.error("worker %s of this runner lost its name to %s", name, who)
        if self.on_refused is not None:
            self.on_refused(name, who)

    def _announce_soon(self, entries: list[WorkerRegistryEntry]) -> None:
        self._tasks.spawn(self._announce(entries), "pbus registry announcement")

    def _give_back_soon(self, entries: list[WorkerRegistryEntry]) -> None:
        if entries and self._bus.queues is not None:
            work = self._give_back(self._bus.queues, entries)
            self._tasks.spawn(work, "pbus registry mail of the dead")

    @staticmethod
    async def _give_back(mail: QueueStore, entries: list[WorkerRegistryEntry]) -> None:
        """Let others have what the dead held; the name of a life begins with its process'."""
        holders = {entry.incarnation.rpartition(".")[0] for entry in entries}
        try:
            count = await mail.requeue_held_by(sorted(holders - {""}))
        except BusUnavailableError as error:
            logger.warning("the mail held by %s is left to others: %s", holders, error)
            return
        if count:
            logger.info("%d messages held by the dead are delivered again", count)

    async def _announce(self, entries: list[WorkerRegistryEntry]) -> None:
        message = BusWorkerRegistryMessage(
            source=self.runner_name, runner=self.runner_name, workers=tuple(entries)
        )
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._bus.send(message)
        except (PbusError, TimeoutError) as error:
            logger.warning("a registry announcement is left to the next heartbeats: %s", error)
