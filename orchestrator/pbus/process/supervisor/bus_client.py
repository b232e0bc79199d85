"""The supervisor on the bus: registry, process record, control requests, state events."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.background import TaskFunction
from pbus.leases import HEARTBEAT_S, LEASE_S, Lease
from pbus.messages import (
    BusCancelMessage,
    BusControlRequestMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusPlanRequestMessage,
    BusWorkerRegistryMessage,
)
from pbus.names import names_of
from pbus.observe import HostRecord, moved_clocks
from pbus.process.supervisor.broker_watch import BrokerWatch
from pbus.process.supervisor.bus_calls import BusCalls
from pbus.process.supervisor.control import ControlServer
from pbus.process.supervisor.dead_incarnations import DeadIncarnations
from pbus.process.supervisor.queue_admin import QueueAdmin
from pbus.process.supervisor.reports.state_events import StateEventQueue
from pbus.registry.table import entry_of

_CONNECT_S = 3.0  # users are told within 5 s, all starts included
_OWN_CONNECT_S = 20.0  # a new Postgres is given its tables and functions first
_RECORD_EVERY_S = 1.0
_RECORD_BYTES_S = 1_000_000  # of records, however often the state of many processes changes
_CLOSE_S = 5.0  # a bus needs at most half of it to write out what it accepted

_ACCEPTED = (
    BusWorkerRegistryMessage
    | BusEndMessage
    | BusCancelMessage
    | BusControlRequestMessage
    | BusPlanRequestMessage
)

logger = logging.getLogger(__name__)


class Supervised(Protocol):
    """Callbacks of the supervisor; all return at once."""

    def on_session_end(self, session: str | None, reason: str) -> None:
        """A worker ended or cancelled a session (None: all sessions)."""
        ...

    def on_connection(self, is_connected: bool) -> None:  # noqa: FBT001
        """The bus lost its broker, or reconnected."""
        ...

    def record(self) -> HostRecord:
        """The snapshot to publish."""
        ...

    @property
    def state_events(self) -> StateEventQueue:
        """State events to be sent."""
        ...


class SupervisorBusClient(BusSubscriber):
    """Uses the bus for the supervisor. Apart from `open` no call raises or takes long.

    Attributes:
        broker: Availability of the broker.
    """

    is_durable = False

    def __init__(
        self,
        bus: WorkerBus,
        name: str,
        control: ControlServer,
        supervised: Supervised,
        queue_admin: QueueAdmin,
    ) -> None:
        self.name = name
        self.broker = BrokerWatch(bus, supervised.on_connection)
        self._bus = bus
        self._workers = control.workers
        self._supervised = supervised
        self._queue_admin = queue_admin
        self._control = control
        self._calls = BusCalls()
        self._dead = DeadIncarnations(name, bus, self._calls, queue_admin)
        self._has_changed = asyncio.Event()
        self._has_outgoing = asyncio.Event()
        self._is_open = False
        self._moved_hosts: set[str] = set()  # hosts whose clocks were logged

    async def open(self, *, is_own_broker: bool = False) -> None:
        """Connect.

        Args:
            is_own_broker: The broker was started for this project: it is there, and may be slow.

        Raises:
            BusUnavailableError: The broker is not there.
        """
        await self._bus.start(_OWN_CONNECT_S if is_own_broker else _CONNECT_S)
        self._is_open = True
        await self._bus.subscribe(self)
        # A killed supervisor could not withdraw its record.
        if before := self._queue_admin.replace_supervisor(self.name):
            await self._calls.result("drop the last record", self._bus.leases.drop_record(before))
        for incarnation in await self._queue_admin.open():
            self._dead.add(incarnation, "its supervisor ended")
        await self._dead.release_all()

    async def close(self) -> None:
        """Send what is waiting, withdraw the record and disconnect."""
        if self._is_open:
            await self._send_outgoing()
            await self._calls.result("close the queues", self._queue_admin.close(), _CLOSE_S)
            await self._calls.result("drop the record", self._bus.leases.drop_record(self.name))
        await self._calls.result("leave the bus", self._bus.stop(), _CLOSE_S)

    def tasks(self) -> dict[str, TaskFunction]:
        """Return the background tasks by name, each to be run until cancelled."""
        return {
            "registry": self._run_heartbeat,
            "record": self._publish_records,
            "outgoing": self._run_outgoing,
            "connection": self.broker.run,
        }

    def refresh(self) -> None:
        """Publish a change now: the record, control responses, state events."""
        self._has_changed.set()
        self._control.check()
        self._has_outgoing.set()

    async def request_end(self, worker: str, timeout_s: float | None) -> bool:
        """Ask the workers of a process by message to finish their queued messages and jobs.

        Returns:
            Whether all messages were sent.
        """
        if not self._bus.is_connected:
            return False
        process = self._workers[worker]
        child, is_stored = process.status.child, self._bus.queues is not None
        messages = [
            BusEndWorkerMessage(
                source=self.name,
                target=name,
                reason="stopped by pbus",
                timeout_s=timeout_s,
                incarnation=child.incarnation if child else None,
                leaves=process.target.is_leaving or (process.target.is_rolling and not is_stored),
            )
            for name in process.names
        ]
        return all([
            await self._calls.succeeds("ask a worker to end", self._bus.send(message))
            for message in messages
        ])

    async def open_queues(self, worker: str, groups: frozenset[str]) -> None:
        """Open the queues of a further worker.

        Args:
            worker: Its name.
            groups: All names that replicas share.
        """
        names = [one for one in names_of(worker) if one == worker or one in groups]
        call = self._queue_admin.add(names, groups)
        await self._calls.result("open the queues of a worker", call)

    async def drop_queue(self, worker: str) -> None:
        """Remove the queue of a replica that has left; others get the messages in it."""
        call = self._queue_admin.drop(worker)
        await self._calls.result("remove a queue", call, _CLOSE_S)

    async def drop_queues(self, kept: Iterable[str]) -> None:
        """Remove all queues but these, with the messages in them."""
        await self._calls.result("remove queues", self._queue_admin.keep_only(kept), _CLOSE_S)

    def note_started(self, incarnation: str) -> None:
        """Record an incarnation before its process starts."""
        self._dead.stop_reports.add(incarnation)
        self._queue_admin.note_started(incarnation)

    async def release_incarnation(
        self, incarnation: str, reason: str, *, has_ended_well: bool = False
    ) -> str:
        """Release the names and messages of an ended process, and announce its end.

        Args:
            incarnation: Prefix of its workers' incarnations.
            reason: Its end as text.
            has_ended_well: It exited with code 0.

        Returns:
            The fate of the messages it held, as text; "" of none, or while the broker is away.
        """
        return await self._dead.release(incarnation, reason, has_ended_well=has_ended_well)

    # Messages

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Accept registry announcements, ends of sessions and control requests."""
        return isinstance(message, _ACCEPTED)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle a message."""
        if isinstance(message, BusWorkerRegistryMessage):
            for entry in message.workers:
                if entry.ready and entry.gone is None:
                    self._workers.on_ready(entry.name, entry.incarnation)
                self._dead.stop_reports.on_announcement(entry)
        elif isinstance(message, BusControlRequestMessage):
            names = ", ".join(message.workers)
            logger.info("%s asks to %s %s", message.source, message.action, names)
            await self._control.submit(message)
            self._has_outgoing.set()
        elif isinstance(message, BusPlanRequestMessage):
            await self._control.plan(message)
            self._has_outgoing.set()
        elif isinstance(message, BusEndMessage | BusCancelMessage):
            verb = "ended" if isinstance(message, BusEndMessage) else "cancelled"
            why = f": {message.reason}" if message.reason else ""
            reason = f"{verb} by {message.source}{why}"
            self._supervised.on_session_end(message.session, reason)

    # Background tasks

    async def _run_heartbeat(self) -> None:
        while True:
            await self._heartbeat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    # Dead incarnations are then released before their names are taken.
                    await self.broker.has_come_back.wait()
            self.broker.has_come_back.clear()

    async def _heartbeat(self) -> None:
        """Renew the leases of live processes, and read the registry: announcements may be lost."""
        await self._dead.release_all()
        live = self._workers.live_incarnations()
        await self._calls.result("renew the queues", self._queue_admin.renew())
        if live:
            await self._calls.result("renew leases", self._bus.leases.extend(live))
        leases = await self._calls.result("read the registry", self._bus.leases.leases()) or ()
        now = time.time()
        for lease in leases:
            self._workers.on_lease(lease, now)
            if lease.state == "ready":
                self._dead.stop_reports.on_announcement(entry_of(lease))
        self._check_clocks(leases)
        limit_s = self._handler_limit_s
        for name, text in self._supervised.state_events.check(leases, limit_s):
            self._workers[name].status.note(text)
        self._has_outgoing.set()

    def _handler_limit_s(self, worker: str) -> float:
        return self._workers[worker].status.handler_limit_s

    def _check_clocks(self, leases: Sequence[Lease]) -> None:
        for host, text in moved_clocks(leases).items():
            if host not in self._moved_hosts:
                self._moved_hosts.add(host)
                logger.warning("%s", text)

    async def _publish_records(self) -> None:
        while True:
            self._has_changed.clear()
            record = msgspec.json.encode(self._supervised.record())
            call = self._bus.leases.put_record(self.name, record, ttl_s=LEASE_S)
            is_stored = await self._calls.succeeds("publish the process record", call)
            self.broker.count_write(is_stored=is_stored)
            pause_s = min(_RECORD_EVERY_S, len(record) / _RECORD_BYTES_S)
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RECORD_EVERY_S - pause_s):
                    await self._has_changed.wait()

    async def _run_outgoing(self) -> None:
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing.clear()
            await self._send_outgoing()

    async def _send_outgoing(self) -> None:
        """Send control responses; state events only when followers can have reconnected."""
        for response in self._control.drain_responses():
            await self._calls.result("answer a request", self._bus.send(response))
        self.broker.check()  # it may be back since the last check
        if self.broker.is_steady:
            for message in self._supervised.state_events.drain():
                await self._calls.result("send a state event", self._bus.send(message))


def host_name() -> str:
    """Return this machine's name, as leases and records carry it."""
    return socket.gethostname()
