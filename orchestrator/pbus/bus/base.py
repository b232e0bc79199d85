"""WorkerBus: subscriptions, routing within the process, counters; what every backend shares."""

import abc
import asyncio
import logging
import time
from typing import Any, Self

import msgspec

from pbus.bus.leases_memory import MemoryLeaseStore
from pbus.bus.mailbox import Mailbox, Receipt
from pbus.bus.subscriber import BusSubscriber
from pbus.bus.tap import Tap
from pbus.codec import DEFAULT_MAX_MESSAGE_BYTES, decode_message
from pbus.errors import (
    BusClosedError,
    BusError,
    BusFullError,
    BusUnavailableError,
    DuplicateSubscriberError,
    MessageDecodeError,
)
from pbus.ids import new_token
from pbus.leases import LeaseStore
from pbus.messages import BusMessage, BusMessagesLostMessage, Lane

logger = logging.getLogger(__name__)

EVERYONE = "*"  # the address of broadcasts
DEFAULT_SEND_TIMEOUT_S = 10.0
_COMPLAIN_EVERY_S = 1.0


class Counters(msgspec.Struct):
    """What passed through one bus of one process.

    Attributes:
        sent: Messages accepted by send().
        lost: Messages of others noticed missing on the way here.
        undelivered: Own messages that no process was listening for.
        refused: Received bytes that were no acceptable message.
        dropped: Messages received for somebody who is not (or no longer) here.
    """

    sent: int = 0
    lost: int = 0
    undelivered: int = 0
    refused: int = 0
    dropped: int = 0


class MailboxStats(msgspec.Struct, frozen=True):
    """What one subscriber has handled, has missed and has waiting, in messages."""

    received: int = 0
    lost: int = 0
    queued: int = 0


class WorkerBus(abc.ABC):
    """A message bus between workers; subclasses bring the transport.

    A subclass of your own needs `publish` and nothing else: hand what arrives to
    `on_message_received`.

    Args:
        channel: Names the bus; processes on one channel hear each other.
        max_message_bytes: The largest encoded message.
        send_timeout: Seconds a send waits for room before it raises BusFullError.
        incarnation: Names this life of this process; random when not given.
    """

    def __init__(
        self,
        *,
        channel: str = "pbus",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        send_timeout: float = DEFAULT_SEND_TIMEOUT_S,
        incarnation: str | None = None,
    ) -> None:
        self.channel = channel
        self.max_message_bytes = max_message_bytes
        self.send_timeout = send_timeout
        self.incarnation = incarnation or new_token()
        self.counters = Counters()
        self._mailboxes: dict[str, Mailbox] = {}  # by address
        self._aliases: dict[str, Mailbox] = {}  # names known in this process only
        self._state = "not started"
        self._leases: LeaseStore | None = None
        self._complaint_due = 0.0

    # What users call

    async def start(self, timeout: float | None = 5.0) -> None:  # noqa: ASYNC109 - part of the contract
        """Begin to deliver. Does nothing on a started bus.

        Raises:
            BusUnavailableError: The broker was not reached within the timeout (seconds; None
                waits for ever). The bus is stopped again then.
        """
        if self._state == "running":
            return
        try:
            async with asyncio.timeout(timeout):
                await self._open()
        except BaseException as error:
            await self._close()
            if isinstance(error, TimeoutError):
                raise BusUnavailableError(self.url, self._why_not_open()) from None
            raise
        self._state = "running"
        for mailbox in self._mailboxes.values():
            mailbox.start()

    async def stop(self) -> None:
        """Deliver nothing more and refuse to send; a second call does nothing."""
        if self._state == "stopped":
            return
        was_running, self._state = self._state == "running", "stopped"
        if was_running:
            await self._close()
        await asyncio.gather(*(mailbox.stop() for mailbox in list(self._mailboxes.values())))

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver messages for this subscriber's address, and broadcasts, to it.

        Returns when the broker confirmed it; what is sent from then on arrives. Subscribing the
        same object twice does nothing. Before start() messages wait in its mailbox.

        Raises:
            DuplicateSubscriberError: Another subscriber has the name.
            BusUnavailableError: The broker did not confirm in time.
        """
        address = subscriber.address
        held = self._mailboxes.get(address) or self._aliases.get(subscriber.name)
        if held is not None:
            if held.subscriber is subscriber:
                return
            raise DuplicateSubscriberError(subscriber.name)
        mailbox = Mailbox(subscriber, self._decode)
        self._mailboxes[address] = mailbox
        if address != subscriber.name:
            self._aliases[subscriber.name] = mailbox
        if self._state == "running":
            mailbox.start()
            try:
                await self._join(address)
            except BaseException:
                await self.unsubscribe(subscriber)
                raise

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver nothing more to this subscriber; what waits is dropped and counted."""
        mailbox = self._mailboxes.get(subscriber.address)
        if mailbox is None or mailbox.subscriber is not subscriber:
            return
        del self._mailboxes[mailbox.address]
        self._aliases.pop(mailbox.name, None)
        if self._state == "running":
            await self._leave(mailbox.address)
        self.counters.dropped += mailbox.queued
        await mailbox.stop()

    async def send(self, message: BusMessage) -> None:
        """Send to the target, or to everyone on the channel, the sender's own process included.

        Local messages and names known in this process only never reach the transport. Returns
        when the bus has taken the message; awaits while the receiver (or the broker) is behind.

        Raises:
            MessageEncodeError: A field cannot be carried unchanged.
            BusFullError: The receiver made no room within the send timeout.
            BusClosedError: The bus is stopped.
        """
        if self._state == "stopped":
            raise BusClosedError
        if message.is_local or message.target in self._aliases:
            await self._put_local(message)
        else:
            await self.publish(message)
        self.counters.sent += 1

    # What a transport provides and calls

    @abc.abstractmethod
    async def publish(self, message: BusMessage) -> None:
        """Give a message to the transport."""

    async def on_message_received(self, message: BusMessage) -> None:
        """Put a message that arrived into the mailboxes it is for, waiting for room."""
        await self._put_local(message)

    async def _open(self) -> None:
        """Connect and join the addresses subscribed so far."""

    def _why_not_open(self) -> str:
        """What kept _open() from succeeding in time."""
        return "no answer in time"

    async def _close(self) -> None:
        """Write out what was accepted, then disconnect."""

    async def _join(self, address: str) -> None:
        """Have messages for this address come here."""

    async def _leave(self, address: str) -> None:
        """Have them no longer."""

    # What the layers above use

    @property
    def leases(self) -> LeaseStore:
        """Where the registry keeps its leases: the broker, or this process."""
        if self._leases is None:
            self._leases = self._make_leases()
        return self._leases

    @property
    def url(self) -> str:
        """Where the broker is, password masked."""
        return "memory://"

    @property
    def is_connected(self) -> bool:
        """Whether the broker answers as far as is known."""
        return self._state == "running"

    @property
    def is_running(self) -> bool:
        """Between start() and stop()."""
        return self._state == "running"

    def stats(self, name: str) -> MailboxStats:
        """What the subscriber of that name has received, missed and has waiting."""
        mailbox = self._mailboxes.get(name) or self._aliases.get(name)
        if mailbox is None:
            return MailboxStats()
        return MailboxStats(mailbox.received, mailbox.lost, mailbox.queued)

    def tap(self) -> Tap:
        """Follow all traffic of the channel.

        Raises:
            BusError: This bus cannot be followed.
        """
        problem = f"{type(self).__name__} cannot be followed"
        raise BusError(problem)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # Within the process

    def _make_leases(self) -> LeaseStore:
        return MemoryLeaseStore()

    def _receivers(self, address: str | None) -> list[Mailbox]:
        """The mailboxes an address stands for; everyone when None or "*"."""
        if address is None or address == EVERYONE:
            return list(self._mailboxes.values())
        mailbox = self._aliases.get(address) or self._mailboxes.get(address)
        return [] if mailbox is None else [mailbox]

    async def _put_local(self, message: BusMessage) -> None:
        receivers = self._receivers(message.target)
        if not receivers:
            self.counters.undelivered += 1
            return
        for mailbox in receivers:
            queue = mailbox.lane(message.lane)
            if not queue.is_full:
                queue.put_nowait((message, None))
                continue
            try:
                async with asyncio.timeout(self.send_timeout):
                    await queue.put((message, None))
            except TimeoutError:
                reason = f"{len(queue):,} messages wait for it"
                raise BusFullError(mailbox.name, self.send_timeout, reason) from None

    def _receive_lines(
        self, address: str, lane: Lane, lines: list[bytes], receipt: Receipt | None
    ) -> int:
        """Put encoded messages from the transport into mailboxes, never waiting.

        Returns:
            How many times `receipt` will be told that one is done.
        """
        receivers = self._receivers(address)
        if not receivers:
            self.counters.dropped += len(lines)
            return 0
        if len(receivers) == 1:  # decoded when handled: the reader stays quick
            queue = receivers[0].lane(lane)
            put = queue.put_nowait
            for line in lines:
                put((line, receipt))
            return len(lines)
        messages = [message for line in lines if (message := self._decode(line)) is not None]
        for mailbox in receivers:
            queue = mailbox.lane(lane)
            for message in messages:
                queue.put_nowait((message, receipt))
        return len(messages) * len(receivers)

    def _decode(self, line: bytes) -> BusMessage | None:
        """Decode or refuse: counted always, logged at most once a second."""
        try:
            return decode_message(line)
        except MessageDecodeError as error:
            self._refuse(error)
            return None

    def _refuse(self, error: MessageDecodeError) -> None:
        self.counters.refused += 1
        now = time.monotonic()
        if now >= self._complaint_due:
            self._complaint_due = now + _COMPLAIN_EVERY_S
            logger.warning("%s (%d refused so far)", error, self.counters.refused)

    def _note_lost(self, sender: str, address: str, count: int) -> None:
        """Say that messages went missing: counter, log, and a local message to those concerned."""
        self.counters.lost += count
        logger.warning(
            "%d messages of %s to %s were lost on the way (%d in all)",
            count, sender, address, self.counters.lost,
        )  # fmt: skip
        news: dict[str, Any] = {"sender": sender, "address": address, "count": count}
        for mailbox in self._receivers(address):
            mailbox.lost += count
            message = BusMessagesLostMessage(source="pbus", target=mailbox.name, **news)
            mailbox.lane(Lane.SYSTEM).put_nowait((message, None))
