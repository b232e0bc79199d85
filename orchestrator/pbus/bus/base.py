"""WorkerBus: what every bus does and promises, whatever carries its messages."""

import abc
import asyncio
import os
import time
from collections.abc import Awaitable
from typing import Any, Self

import msgspec

from pbus.bus.claims import Presence
from pbus.bus.local.causes import current_traceparent, inherit_trace
from pbus.bus.local.counters import Counters
from pbus.bus.local.lane_reader import current_reader
from pbus.bus.local.mailbox import Mailbox
from pbus.bus.local.router import LocalRouter
from pbus.bus.memory_leases import MemoryLeaseStore
from pbus.bus.queues.batch import BatchingBus
from pbus.bus.queues.store import QueueStore
from pbus.bus.subscriber import BusSubscriber
from pbus.bus.tap import Tap
from pbus.codec import Header, decode_opaque, encode_raw, known_form
from pbus.concurrency.forks import hold_loop
from pbus.errors import BusClosedError, BusError, BusLoopError, BusUnavailableError
from pbus.ids import new_id, new_token
from pbus.leases import LeaseStore
from pbus.messages import BusMessage, Lane
from pbus.settings import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_SEND_TIMEOUT_S
from pbus.stats.edge_table import EdgeTable
from pbus.trace_context import given_cause


class MailboxStats(msgspec.Struct, frozen=True):
    """Counts of messages that one subscriber handled, missed and has waiting.

    Attributes:
        held: Those of the queued that wait for a handler in progress to end.
        unhandled: Those that are lost when the subscriber leaves now.
    """

    received: int = 0
    lost: int = 0
    queued: int = 0
    held: int = 0
    unhandled: int = 0


class SendingBus(BatchingBus):
    """Adds sending of single messages to a bus."""

    max_message_bytes: int
    _router: LocalRouter

    async def send(self, message: BusMessage) -> bool:
        """Send to the target, or to everyone on the channel, the sender's own process included.

        Local messages and names known in this process only never reach the transport. Returns
        when the bus has taken the message, False when the broker has no queue to store it in;
        awaits while the receiver (or the broker) is behind, or while start() is under way.

        Raises:
            MessageEncodeError: A field cannot be carried unchanged, or its key is none.
            MessageDecodeError: It is opaque, and its type is known here and does not take its data.
            BusFullError: The receiver made no room within the send timeout.
            BusClosedError: The bus is not started, or stopped.
            BusLoopError: The bus belongs to another event loop.
        """
        if not self.is_running:
            await self._until_running()
        rest = SendingBus.begin_send(self, message)
        return True if rest is None else await rest

    def begin_send(self, message: BusMessage) -> Awaitable[bool] | None:
        """Send a message as far as nothing is to be waited for; see BatchingBus."""
        if not self.is_running:
            return self.send(message)
        if message.traceparent is None and (
            current_reader() is not None or given_cause() is not None
        ):
            inherit_trace(message)
        if message.is_opaque:
            message = known_form(message)
        is_own = message.is_local or message.target in self._router.local_names
        rest = self._router.put(message) if is_own else self._begin_publish(message)
        if rest is not None:
            return self._finish_send(rest)
        self.counters.sent += 1
        return None

    async def _finish_send(self, rest: Awaitable[bool | None]) -> bool:
        is_taken = await rest
        self.counters.sent += 1
        return is_taken is not False

    async def send_raw(
        self,
        type_name: str,
        target: str | None,
        fields: dict[str, Any],
        *,
        source: str,
        urgent: bool = False,
        key: str | None = None,
    ) -> bool:
        """Send a message by its type's name, which only receivers need to know, and JSON fields.

        Raises:
            MessageDecodeError: A field is wrong, where this bus hands objects over.
            MessageEncodeError: A field cannot be carried.
        """
        header = new_header(type_name, source, target, key)
        line = encode_raw(header, fields, limit=self.max_message_bytes)
        return await self.send(decode_opaque(line, Lane.SYSTEM if urgent else Lane.DATA))

    @abc.abstractmethod
    async def publish(self, message: BusMessage) -> bool | None:
        """Give a message to the transport; False when the broker has no queue to store it in."""

    def _begin_publish(self, message: BusMessage) -> Awaitable[bool | None] | None:
        """Publish a message as far as nothing is to be waited for; returns the wait, if there is one."""
        return self.publish(message)

    async def on_message_received(self, message: BusMessage) -> None:
        """Put a message that arrived into the mailboxes it is for, waiting for room."""
        await self._router.put(message, is_own=False)


class WorkerBus(SendingBus):
    """A message bus between workers; subclasses bring the transport.

    A subclass of your own needs `publish`: hand what arrives to `on_message_received`.

    Args:
        channel: Names the bus; processes on one channel hear each other.
        max_message_bytes: The largest encoded message.
        send_timeout: Seconds a send waits for room before it raises BusFullError.
        incarnation: Names this run of this process; made up when not given.
        stats: Whether to count by edge.

    Attributes:
        counters: What passed through.
        is_running: Between start() and stop().
        url: Where the broker is, password masked.
        delivery: "at-most-once" or "at-least-once".
        queues: Where stored messages are kept; None on a bus that stores none.
        carries_news: Whether news of workers of other processes come over the transport, at a cost.
        presences: What the registries of this process know of others; they put themselves in.
        names: Those of workers that this process took, and perhaps has no longer.
        edges: Counts by source, target and type; None where nothing is counted.
    """

    delivery: str = "at-most-once"
    queues: QueueStore | None = None
    carries_news: bool = False

    def __init__(
        self,
        *,
        channel: str = "pbus",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        send_timeout: float = DEFAULT_SEND_TIMEOUT_S,
        incarnation: str | None = None,
        stats: bool = True,
    ) -> None:
        self.channel = channel
        self.max_message_bytes = max_message_bytes
        self.send_timeout = send_timeout
        self.incarnation = incarnation or _new_incarnation()
        self.presences: list[Presence] = []
        self.names: set[str] = set()
        self.is_running = False
        self.url = "memory://"
        self._is_stopped = False
        self._loop = _OwnLoop()
        self._lifetime: asyncio.Task[None] | None = None  # ends with the loop, if not before
        self._starting: asyncio.Future[None] | None = None
        self.edges = EdgeTable() if stats else None
        self._router = LocalRouter(send_timeout, self.edges)
        self.counters: Counters = self._router.counters
        self._leases: LeaseStore | None = None

    async def start(self, timeout: float | None = 5.0) -> None:  # noqa: ASYNC109 - the contract
        """Begin to deliver. Does nothing on a running bus.

        Raises:
            BusUnavailableError: The broker was not reached within the timeout (seconds; None
                waits for ever), or refused us. Nothing runs then; start() may be tried again.
            BusLoopError: The bus belongs to another event loop.
        """
        self._loop.check()
        while self._starting is not None:
            await asyncio.wait({self._starting})
        if self.is_running:
            return
        self._starting = self._loop.hold().create_future()
        try:
            await self._start(timeout)
        finally:
            self._starting.set_result(None)
            self._starting = None

    async def _start(self, timeout: float | None) -> None:  # noqa: ASYNC109 - as start()
        try:
            async with asyncio.timeout(timeout):
                await self._open()
        except BaseException as error:
            await self._close()
            if isinstance(error, TimeoutError):
                raise BusUnavailableError(self.url, self._why_not_open()) from None
            raise
        self.is_running, self._is_stopped = True, False
        self._lifetime = asyncio.create_task(_wait_forever(), name="pbus bus")
        self._lifetime.add_done_callback(self._note_end)
        for mailbox in self._router.mailboxes():
            mailbox.start()

    async def stop(self) -> None:
        """Write out what was accepted, then deliver nothing more and refuse to send. Idempotent.

        Raises:
            BusLoopError: The bus belongs to another event loop.
        """
        self._loop.check()
        self._is_stopped = True
        if self._lifetime is None:
            return
        self.is_running, lifetime, self._lifetime = False, self._lifetime, None
        lifetime.cancel()
        await asyncio.wait({lifetime})
        await self._close()
        await asyncio.gather(*(mailbox.stop() for mailbox in self._router.mailboxes()))

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver messages for this subscriber's address, and broadcasts, to it.

        Returns when the broker confirmed it; what is sent from then on arrives. Subscribing the
        same object twice does nothing. Before start() messages wait in its mailbox.

        Raises:
            DuplicateSubscriberError: Another subscriber has the name.
            BusUnavailableError: The broker did not confirm in time.
            BusLoopError: The bus belongs to another event loop.
        """
        self._loop.check()
        mailbox = self._router.add(subscriber)
        if mailbox is None or not self.is_running:
            return
        mailbox.start()
        try:
            await self._join(mailbox.address)
        except BaseException:
            await self.unsubscribe(subscriber)
            raise

    async def hear_news(self) -> None:
        """Return once news of workers that are sent from then on reach the subscribers that want them.

        Raises:
            BusUnavailableError: The broker did not confirm in time; it is asked again.
        """

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver nothing more to this subscriber; what waits is dropped and counted."""
        mailbox = self._router.remove(subscriber)
        if mailbox is None:
            return
        if self.is_running:
            await self._leave(mailbox.address)
        self.counters.dropped += mailbox.queued
        await mailbox.stop()

    def tap(self) -> Tap:
        """Follow all traffic of the channel.

        Raises:
            BusError: This bus cannot be followed.
        """
        raise BusError(f"{type(self).__name__} cannot be followed")

    def stats(self, name: str) -> MailboxStats:
        """Return the counts of the subscriber of that name."""
        return _stats_of(self._router.find(name), self.queues is not None)

    @property
    def leases(self) -> LeaseStore:
        """The store of the registry's leases: in the broker, or in this process."""
        if self._leases is None:
            self._leases = self._make_leases()
        return self._leases

    @property
    def is_connected(self) -> bool:
        """Whether the broker answers, as far as is known."""
        return self.is_running

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _until_running(self) -> None:
        """Wait for a start that is under way; raises as send() where there is none."""
        self._loop.check()
        if self._starting is not None:
            await asyncio.wait({self._starting})
        if not self.is_running:
            raise BusClosedError("stopped" if self._is_stopped else "not started")

    def _note_end(self, lifetime: asyncio.Task[None]) -> None:
        """Send nothing more: asyncio.run() ends, and cancels all that runs here."""
        if lifetime is self._lifetime:
            self.is_running, self._is_stopped = False, True

    async def _open(self) -> None:
        """Connect and join the addresses subscribed so far."""

    async def _close(self) -> None:
        """Write out what was accepted, then disconnect; also after a failed _open()."""

    async def _join(self, address: str) -> None:
        """Have messages for this address come here."""

    async def _leave(self, address: str) -> None:
        """Have them no longer."""

    def _why_not_open(self) -> str:
        """Say why _open() did not succeed in time."""
        return "no answer in time"

    def _make_leases(self) -> LeaseStore:
        return MemoryLeaseStore()


def _stats_of(mailbox: Mailbox | None, is_stored: bool) -> MailboxStats:  # noqa: FBT001
    if mailbox is None:
        return MailboxStats()
    unhandled = 0 if is_stored else mailbox.unhandled
    return MailboxStats(mailbox.received, mailbox.lost, mailbox.queued, mailbox.held, unhandled)


def new_header(type_name: str, source: str, target: str | None, key: str | None = None) -> Header:
    """The header of a new message, of the trace of the one that is handled here."""
    return Header(
        type=type_name,
        source=source,
        target=target,
        id=new_id(),
        time=time.time(),
        key=key,
        traceparent=current_traceparent(),
    )


class _OwnLoop:
    """The event loop that a bus belongs to: that of its first start."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def hold(self) -> asyncio.AbstractEventLoop:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()
        hold_loop(self._loop)
        return self._loop

    def check(self) -> None:
        """Raise BusLoopError in another loop."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise BusLoopError


async def _wait_forever() -> None:
    await asyncio.get_running_loop().create_future()


def _new_incarnation() -> str:
    """Begins with what a supervisor called this process, so that it knows its own in the registry."""
    given = os.environ.get("PBUS_INCARNATION")
    return f"{given}-{new_token(24)}" if given else new_token()
