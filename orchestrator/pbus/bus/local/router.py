"""Routes messages to the mailboxes of the subscribers in this process."""

import asyncio
import logging
import time
from collections.abc import Sequence

import msgspec

from pbus.bus.coalescing import EVERYONE
from pbus.bus.local.lane_reader import LaneDelivery
from pbus.bus.local.mailbox import Mailbox
from pbus.bus.subscriber import BusSubscriber
from pbus.codec import decode_message, is_broadcast, source_of
from pbus.errors import (
    BusFullError,
    DuplicateSubscriberError,
    MessageDecodeError,
    UnknownTypeError,
)
from pbus.messages import BusMessage, BusMessagesLostMessage, Lane

logger = logging.getLogger(__name__)

# Addresses of processes that host no worker begin with these.
EPHEMERAL_PREFIXES = ("cli-", "runner-", "supervisor-", "~")
_COMPLAIN_EVERY_S = 1.0
_MOST_ADDRESSES = 256  # counted one by one


class Counters(msgspec.Struct):
    """Counts of messages that passed through one bus of one process.

    Attributes:
        sent: Messages accepted by send().
        lost: Messages of others noticed missing on the way here.
        undelivered: Own messages that no process was listening for.
        unreached: Those of them to workers, by address.
        refused: Received bytes that were no acceptable message.
        unsealed: Those of them that were not sealed with a key of the channel.
        dropped: Messages received for a name that is not (or no longer) here.
        foreign: Broadcasts of types that this process does not know.
        faults: How often a task of the bus ended by an error, and was begun again.
    """

    sent: int = 0
    lost: int = 0
    undelivered: int = 0
    refused: int = 0
    unsealed: int = 0
    dropped: int = 0
    foreign: int = 0
    faults: int = 0
    unreached: dict[str, int] = msgspec.field(default_factory=dict)

    def note_undelivered(self, address: str, count: int = 1) -> None:
        """Count messages that reached no process; visitors and followers come and go."""
        self.undelivered += count
        known = self.unreached
        if not address.startswith(EPHEMERAL_PREFIXES) and (
            address in known or len(known) < _MOST_ADDRESSES
        ):
            known[address] = known.get(address, 0) + count

    def note_fault(self) -> None:
        """Count a task of the bus that ended by an error."""
        self.faults += 1


class LocalRouter:
    """The mailboxes of one process.

    Args:
        put_timeout: Seconds to wait for room in a mailbox of this process.
    """

    def __init__(self, put_timeout: float) -> None:
        self.counters = Counters()
        self._aliases: dict[str, Mailbox] = {}  # names known in this process only
        self.local_names = self._aliases.keys()  # of use in this process only
        self._put_timeout = put_timeout
        self._mailboxes: dict[str, Mailbox] = {}  # by address
        self._complaint_due = 0.0
        self._unsaid: str | None = None  # what is wrong with the last that was refused

    @property
    def addresses(self) -> list[str]:
        """All addresses of subscribers here."""
        return list(self._mailboxes)

    def mailboxes(self) -> list[Mailbox]:
        """All mailboxes."""
        return list(self._mailboxes.values())

    def find(self, name: str) -> Mailbox | None:
        """The mailbox of an address or a local name."""
        return self._aliases.get(name) or self._mailboxes.get(name)

    def add(self, subscriber: BusSubscriber) -> Mailbox | None:
        """Give a subscriber a mailbox; None when it has one.

        Raises:
            DuplicateSubscriberError: Another subscriber has the name.
        """
        address = subscriber.address
        held = self._mailboxes.get(address) or self._aliases.get(subscriber.name)
        if held is not None:
            if held.subscriber is subscriber:
                return None
            raise DuplicateSubscriberError(subscriber.name)
        mailbox = Mailbox(subscriber, self.decode, self.decode_stored)
        self._mailboxes[address] = mailbox
        if address != subscriber.name:
            self._aliases[subscriber.name] = mailbox
        return mailbox

    def remove(self, subscriber: BusSubscriber) -> Mailbox | None:
        """Take a subscriber's mailbox away; None when it has none."""
        mailbox = self._mailboxes.get(subscriber.address)
        if mailbox is None or mailbox.subscriber is not subscriber:
            return None
        del self._mailboxes[mailbox.address]
        self._aliases.pop(mailbox.name, None)
        return mailbox

    def receivers(self, address: str | None) -> list[Mailbox]:
        """The mailboxes an address stands for; everyone when None or "*"."""
        if address is None or address == EVERYONE:
            return list(self._mailboxes.values())
        mailbox = self.find(address)
        return [] if mailbox is None else [mailbox]

    async def put(self, message: BusMessage) -> None:
        """Put a message into the mailboxes it is for, waiting for room.

        Raises:
            BusFullError: There was none in time.
        """
        receivers = self.receivers(message.target)
        if not receivers:
            self.counters.note_undelivered(message.target or EVERYONE)
            return
        full = []
        for mailbox in receivers:
            queue = mailbox.lane(message.lane)
            if queue.takes(type(message)):
                queue.put_nowait((message, None))
            else:
                full.append(mailbox)
        if full:
            await self._put_when_room(message, full)

    async def _put_when_room(self, message: BusMessage, full: list[Mailbox]) -> None:
        """Wait for all of them together: who makes room does not wait for who does not."""
        puts = {
            asyncio.create_task(mailbox.lane(message.lane).put(message)): mailbox
            for mailbox in full
        }
        try:
            _, late = await asyncio.wait(puts, timeout=self._put_timeout)
        finally:
            for put in puts:
                put.cancel()
            await asyncio.gather(*puts, return_exceptions=True)
        if late:
            queued = max(len(puts[put].lane(message.lane)) for put in late)
            names = ", ".join(sorted(repr(puts[put].name) for put in late))
            raise BusFullError(names, self._put_timeout, f"{queued:,} messages wait for it")

    def put_lines(
        self, address: str, lane: Lane, lines: list[bytes], delivery: LaneDelivery | None
    ) -> int:
        """Put encoded messages from a transport into mailboxes, never waiting.

        Returns:
            How many times `delivery` will be told that one is done.
        """
        receivers = self.receivers(address)
        if not receivers:
            self.counters.dropped += len(lines)
            return 0
        items: Sequence[BusMessage | bytes] = lines  # decoded when handled: the reader stays quick
        if address == EVERYONE:
            items = [msg for line in lines if (msg := self._decode_broadcast(line)) is not None]
        if not items:
            return 0
        for mailbox in receivers:
            queue = mailbox.lane(lane)
            queue.extend_nowait((item, None) for item in items[:-1])
            queue.put_nowait((items[-1], delivery))  # handled in order: the last stands for all
        return len(receivers)

    def decode(self, line: bytes) -> BusMessage | None:
        """Decode a message, or refuse it."""
        try:
            return decode_message(line)
        except MessageDecodeError as error:
            self.refuse(error, line)
            return None

    def decode_stored(self, line: bytes) -> BusMessage | None:
        """Decode a message that was kept, perhaps this worker's copy of a broadcast.

        Returns:
            None for a broadcast of a type that only others know, who have copies of their own.

        Raises:
            MessageDecodeError: It is none; it has been counted and logged.
        """
        try:
            return decode_message(line)
        except MessageDecodeError as error:
            if isinstance(error, UnknownTypeError) and is_broadcast(line):
                self.counters.foreign += 1
                return None
            self.refuse(error, line)
            raise

    def _decode_broadcast(self, line: bytes) -> BusMessage | None:
        """Decode a broadcast; types that only others know are their business, not a fault."""
        try:
            return decode_message(line)
        except UnknownTypeError:
            self.counters.foreign += 1
        except MessageDecodeError as error:
            self.refuse(error, line)
        return None

    def refuse(self, error: MessageDecodeError, line: bytes = b"") -> None:
        """Count bytes that were no message; log at most once a second, and whose it was."""
        self.counters.refused += 1
        source = source_of(line)
        self._unsaid = f"{error} (sent by {source})" if source else str(error)
        self.tidy()

    def tidy(self) -> None:
        """Log what was refused too soon after a refusal that was logged."""
        now = time.monotonic()
        if self._unsaid is None or now < self._complaint_due:
            return
        self._complaint_due = now + _COMPLAIN_EVERY_S
        logger.warning("%s (%d refused so far)", self._unsaid, self.counters.refused)
        self._unsaid = None

    def note_lost(self, sender: str, address: str, count: int) -> None:
        """Say that messages went missing: counter, log, a local message to those concerned."""
        self.counters.lost += count
        logger.warning(
            "%d messages of %s to %s were lost on the way (%d in all)",
            count, sender, address, self.counters.lost,
        )  # fmt: skip
        for mailbox in self.receivers(address):
            mailbox.lost += count
            news = BusMessagesLostMessage(
                source="pbus", target=mailbox.name, sender=sender, address=address, count=count
            )
            mailbox.lane(Lane.SYSTEM).put_nowait((news, None))
