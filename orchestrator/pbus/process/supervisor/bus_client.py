"""The supervisor's side of the bus: hears who is ready, tells who is gone, survives its absence."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.background import TaskFunction
from pbus.errors import BusError
from pbus.leases import HEARTBEAT_S, LEASE_S, Lease
from pbus.messages import (
    BusCancelMessage,
    BusControlRequestMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerRegistryMessage,
)
from pbus.observe import HostRecord, moved_clocks
from pbus.process.supervisor.control import ControlServer
from pbus.process.supervisor.queue_admin import QueueAdmin
from pbus.process.supervisor.state_events import StateEventQueue
from pbus.process.supervisor.stop_reports import Farewells
from pbus.process.supervisor.worker_set import WorkerSet
from pbus.registry.table import entry_of

T = TypeVar("T")

_CALL_S = 1.5  # a broker that takes longer for one call is away, and supervising goes on
_CONNECT_S = 3.0  # users are told within 5 s, all starts included
_OWN_CONNECT_S = 20.0  # a new Postgres is given its tables and functions first
_RECORD_EVERY_S = 1.0
_CONNECTION_EVERY_S = 0.25
_STEADY_S = 3.0  # after an outage those who follow need some time, too, to come back
_REFUSALS = 2  # one may be a slow machine's
_AFTERMATH_S = 15.0  # who waited for the broker may end so much later: connecting, sending
_LEAVE_S = 5.0  # a bus needs at most half of it to write out what it accepted

logger = logging.getLogger(__name__)


class Supervised(Protocol):
    """What the link needs of the supervisor; all of it quick."""

    def note_session_end(self, session: str | None, reason: str) -> None:
        """Somebody ended or cancelled a session (all of them when None)."""
        ...

    def note_connection(self, is_connected: bool) -> None:  # noqa: FBT001
        """The bus lost its broker, or has it again."""
        ...

    def record(self) -> HostRecord:
        """The snapshot to publish."""
        ...

    @property
    def news(self) -> StateEventQueue:
        """What to tell those who follow."""
        ...


class SupervisorBusClient(BusSubscriber):
    """Speaks with the bus for the supervisor. Apart from `open` no call fails or takes long."""

    is_durable = False

    def __init__(
        self, bus: WorkerBus, name: str, crew: WorkerSet, supervised: Supervised, post: QueueAdmin
    ) -> None:
        self.name = name
        self._post = post
        self._bus = bus
        self._crew = crew
        self._supervised = supervised
        self._desk = ControlServer(name, crew)
        self._changed = asyncio.Event()
        self._has_to_say = asyncio.Event()
        self._unburied: dict[str, _DeadIncarnation] = {}  # by incarnation
        self._farewells = Farewells()
        self._burying = asyncio.Lock()
        self._complaints: set[str] = set()  # what failed last, and was said
        self._is_open = False
        self._moved_hosts: set[str] = set()  # whose clocks were spoken of
        self._has_broker = True
        self._was_connected = True
        self._connected_at = -_STEADY_S
        self._refusals = 0  # records in a row that were not stored: the disk is full, it loads
        self._away_at = -_AFTERMATH_S
        self._is_back = asyncio.Event()

    async def open(self, *, is_own_broker: bool = False) -> None:
        """Connect.

        Args:
            is_own_broker: It was started for us, so it is there: a slow machine may take its time.

        Raises:
            BusUnavailableError: The broker is not there.
        """
        await self._bus.start(_OWN_CONNECT_S if is_own_broker else _CONNECT_S)
        self._is_open = True
        await self._bus.subscribe(self)
        if before := self._post.succeed(self.name):  # killed, it could not withdraw its snapshot
            await self._try("drop the last record", self._bus.leases.drop_record(before))
        for incarnation in await self._post.open():
            self._unburied[incarnation] = _DeadIncarnation("its supervisor ended")
        await self._bury_all()

    async def close(self) -> None:
        """Say the last, withdraw the snapshot and disconnect."""
        if self._is_open:
            await self._say_all()
            await self._try("see to the mail", self._post.close(), _LEAVE_S)
            await self._try("drop the record", self._bus.leases.drop_record(self.name))
        await self._try("leave the bus", self._bus.stop(), _LEAVE_S)

    def chores(self) -> dict[str, TaskFunction]:
        """All that is to be done regularly, each until cancelled; by what they are."""
        return {
            "registry": self._beat,
            "record": self._publish,
            "news": self._speak,
            "connection": self._watch_connection,
        }

    def refresh(self) -> None:
        """Something changed: publish the snapshot now, and what is to be told about it."""
        self._changed.set()
        self._desk.look()
        self._has_to_say.set()

    def note_broker(self, is_there: bool) -> None:  # noqa: FBT001
        """The embedded broker died, or is back: the bus may notice neither when it is quick."""
        self._has_broker = is_there
        self._look_at_connection()

    @property
    def is_broker_away(self) -> bool:
        """Whether the broker cannot be used now: not there, or it stores nothing."""
        is_refusing = self._refusals >= _REFUSALS
        return is_refusing or not (self._has_broker and self._bus.is_connected)

    @property
    def was_broker_away(self) -> bool:
        """Whether it is away, or was until a moment ago."""
        return self.is_broker_away or time.monotonic() - self._away_at < _AFTERMATH_S

    async def ask_to_end(self, worker: str, timeout_s: float | None) -> bool:
        """Ask a worker to finish what is queued and leave; says whether the message went out."""
        if not self._bus.is_connected:
            return False
        child = self._crew[worker].child
        message = BusEndWorkerMessage(
            source=self.name,
            target=worker,
            reason="stopped by pbus",
            timeout_s=timeout_s,
            incarnation=child.incarnation if child else None,
        )
        sent = await self._try("ask a worker to end", _done(self._bus.send(message)))
        return sent is True

    def begin(self, incarnation: str) -> None:
        """A life is about to begin."""
        self._farewells.begin(incarnation)
        self._post.begin(incarnation)

    async def bury(self, incarnation: str, reason: str, *, ended_well: bool = False) -> str:
        """A process ended: free its names and tell the watchers.

        Args:
            incarnation: What its incarnations begin with.
            reason: Why it ended.
            ended_well: Then only what it said itself counts: the registry is behind.

        Returns:
            What became of the messages it had, in words; "" of none, or while the broker is away.
        """
        grave = self._unburied[incarnation] = _DeadIncarnation(reason, ended_well=ended_well)
        if self._bus.is_connected:
            await self._bury_all()
        return grave.left

    # What the bus says

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only what is about workers or sessions, and orders."""
        return isinstance(
            message,
            BusWorkerRegistryMessage | BusEndMessage | BusCancelMessage | BusControlRequestMessage,
        )

    async def on_bus_message(self, message: BusMessage) -> None:
        """Pass on what concerns the supervisor."""
        if isinstance(message, BusWorkerRegistryMessage):
            for entry in message.workers:
                if entry.ready and entry.gone is None:
                    self._crew.note_ready(entry.name, entry.incarnation)
                self._farewells.hear(entry)
        elif isinstance(message, BusControlRequestMessage):
            names = ", ".join(message.workers)
            logger.info("%s asks to %s %s", message.source, message.action, names)
            self._desk.take(message)
            self._has_to_say.set()
        elif isinstance(message, BusEndMessage | BusCancelMessage):
            verb = "ended" if isinstance(message, BusEndMessage) else "cancelled"
            why = f": {message.reason}" if message.reason else ""
            reason = f"{verb} by {message.source}{why}"
            self._supervised.note_session_end(message.session, reason)

    # What is done regularly

    async def _beat(self) -> None:
        """Renew for processes that live, ask who is ready: an announcement may have been lost."""
        while True:
            await self._bury_all()
            living = self._crew.living()
            await self._try("keep mailboxes", self._post.look_after())
            if living:
                await self._try("renew leases", self._bus.leases.keep(living))
            leases = await self._try("read the registry", self._bus.leases.leases())
            for lease in leases or ():
                if lease.state == "ready":
                    self._crew.note_ready(lease.name, lease.incarnation)
                    self._farewells.hear(entry_of(lease))
            self._look_at_clocks(leases or ())
            self._supervised.news.look(leases or ())
            self._has_to_say.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._is_back.wait()  # then the dead are buried before names are taken
            self._is_back.clear()

    def _look_at_clocks(self, leases: Sequence[Lease]) -> None:
        for host, said in moved_clocks(leases).items():
            if host not in self._moved_hosts:
                self._moved_hosts.add(host)
                logger.warning("%s", said)

    async def _publish(self) -> None:
        while True:
            self._changed.clear()
            record = msgspec.json.encode(self._supervised.record())
            store = self._bus.leases.put_record(self.name, record, ttl_s=LEASE_S)
            is_stored = await self._try("publish the process record", _done(store))
            self._refusals = 0 if is_stored else self._refusals + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RECORD_EVERY_S):
                    await self._changed.wait()

    async def _speak(self) -> None:
        while True:
            await self._has_to_say.wait()
            self._has_to_say.clear()
            await self._say_all()

    async def _say_all(self) -> None:
        """Answer orders; tell the news, unless nobody can have come back to listen yet."""
        for answer in self._desk.answers():
            await self._try("answer an order", self._bus.send(answer))
        self._look_at_connection()  # it may be back since the last look
        is_steady = time.monotonic() - self._connected_at >= _STEADY_S
        if is_steady and self._bus.is_connected:
            for message in self._supervised.news.take():
                await self._try("tell of a change", self._bus.send(message))

    async def _watch_connection(self) -> None:
        while True:
            self._look_at_connection()
            await asyncio.sleep(_CONNECTION_EVERY_S)

    def _look_at_connection(self) -> None:
        is_connected = self._has_broker and self._bus.is_connected
        if self.is_broker_away:
            self._away_at = time.monotonic()
        if is_connected != self._was_connected:
            self._was_connected = is_connected
            if is_connected:
                self._connected_at = time.monotonic()
                self._is_back.set()
            self._supervised.note_connection(is_connected)

    async def _bury_all(self) -> None:
        """Release what is not released yet: all at once, many may die together."""
        async with self._burying:
            graves = dict(self._unburied)
            if not graves:
                return
            released = await self._try("release leases", self._bus.leases.release(list(graves)))
            if released is None:
                return
            for incarnation, grave in graves.items():
                grave.leases += [one for one in released if one.incarnation.startswith(incarnation)]
            await self._farewells.wait_for(one for one in graves if not graves[one].leases)
            for incarnation, grave in graves.items():
                given_back = await self._try("give mail back", self._post.end(incarnation))
                if given_back is None:
                    return
                unhandled = self._farewells.end(incarnation)
                grave.left = self._describe(grave, given_back, unhandled)
                del self._unburied[incarnation]
                await self._announce(grave.leases, grave.reason)

    def _describe(self, grave: "_DeadIncarnation", given_back: int, unhandled: int) -> str:
        if grave.ended_well:
            return self._post.describe(0, (), unhandled)
        return self._post.describe(given_back, grave.leases, unhandled)

    async def _announce(self, lost: list[Lease], reason: str) -> None:
        if not lost:
            return
        entries = tuple(entry_of(lease, gone=reason) for lease in lost)
        message = BusWorkerRegistryMessage(source=self.name, runner=lost[0].runner, workers=entries)
        await self._try("announce a loss", self._bus.send(message))

    async def _try(self, what: str, call: Awaitable[T], limit_s: float = _CALL_S) -> T | None:
        """Wait for a call of the bus, but not long, and go on without it, whatever is wrong."""
        try:
            async with asyncio.timeout(limit_s):
                result = await call
        except Exception as error:
            is_usual = isinstance(error, BusError | TimeoutError)
            level = logging.DEBUG if what in self._complaints else logging.WARNING
            problem = str(error) or "the broker takes too long"
            logger.log(level, "cannot %s: %s", what, problem, exc_info=not is_usual)
            self._complaints.add(what)
            return None
        self._complaints.discard(what)
        return result


class _DeadIncarnation:
    """A life that is over.

    Attributes:
        reason: Why.
        ended_well: With code 0.
        leases: What it held of the registry, as far as that is released.
        left: What became of the messages it had, in words.
    """

    def __init__(self, reason: str, *, ended_well: bool = False) -> None:
        self.reason = reason
        self.ended_well = ended_well
        self.leases: list[Lease] = []
        self.left = ""


def host_name() -> str:
    """This machine's name, as leases and records carry it."""
    return socket.gethostname()


async def _done(work: Awaitable[None]) -> bool:
    await work
    return True
