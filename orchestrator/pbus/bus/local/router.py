"""Routes messages to the mailboxes of the subscribers in this process."""

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from itertools import islice

from pbus.bus.coalescing import BROADCASTS, EVERYONE, NEWS, shown_address
from pbus.bus.local.counters import Counters
from pbus.bus.local.decoder import MessageDecoder
from pbus.bus.local.lane import Entry, ReaderTurn, ReaderTurns
from pbus.bus.local.lane_reader import Item, LaneDelivery
from pbus.bus.local.mailbox import SYSTEM_CAPACITY, Mailbox
from pbus.bus.subscriber import BusSubscriber
from pbus.codec import encode_message
from pbus.errors import (
    BusFullError,
    DuplicateSubscriberError,
    MessageDecodeError,
)
from pbus.messages import BusMessage, BusMessagesLostMessage, Lane
from pbus.stats.edge_table import EdgeTable

logger = logging.getLogger(__name__)

MOST_OBSERVERS = 64  # else the cost of starting workers in one process would grow with the square


class LocalRouter:
    """The mailboxes of one process.

    Args:
        put_timeout: Seconds to wait for room in a mailbox of this process.
        edges: Where messages are counted, if they are.

    Attributes:
        turns: Of readers that wait for what is put here.
        on_news_wanted: Called when a subscriber begins to receive news of workers; must not block.
    """

    def __init__(self, put_timeout: float, edges: EdgeTable | None = None) -> None:
        self.edges = edges
        self.counters = Counters()
        self._decoder = MessageDecoder(self.counters)
        self._aliases: dict[str, Mailbox] = {}  # names known in this process only
        self.local_names = self._aliases.keys()  # of use in this process only
        self._put_timeout = put_timeout
        self.make_mailbox: Callable[..., Mailbox] = Mailbox
        self._mailboxes: dict[str, Mailbox] = {}  # by address
        self._opaque_takers: dict[str, Mailbox] = {}
        # Those that receive news of workers: all of some, and the first of others.
        self._observers: dict[str, Mailbox] = {}
        self._few_observers: dict[str, Mailbox] = {}
        self.on_news_wanted: Callable[[], None] = lambda: None
        self.turns = ReaderTurns()

    @property
    def hears_news(self) -> bool:
        """Whether a subscriber here receives news of workers."""
        return bool(self._observers or self._few_observers)

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
        own = getattr(subscriber, "wire_decoder", None)
        if own is None:
            decoder = self._decoder
            mailbox = self.make_mailbox(
                subscriber, decoder.decode, decoder.decode_stored, self.edges
            )
        else:
            mailbox = self.make_mailbox(subscriber, lambda line, _lane: own(line), edges=self.edges)
        self._mailboxes[address] = mailbox
        self._note_news(mailbox)
        if mailbox.takes_opaque:
            self._opaque_takers[address] = mailbox
        if address != subscriber.name:
            self._aliases[subscriber.name] = mailbox
        return mailbox

    def remove(self, subscriber: BusSubscriber) -> Mailbox | None:
        """Take a subscriber's mailbox away; None when it has none."""
        mailbox = self._mailboxes.get(subscriber.address)
        if mailbox is None or mailbox.subscriber is not subscriber:
            return None
        del self._mailboxes[mailbox.address]
        self._opaque_takers.pop(mailbox.address, None)
        self._observers.pop(mailbox.address, None)
        self._few_observers.pop(mailbox.address, None)
        self._aliases.pop(mailbox.name, None)
        return mailbox

    def _note_news(self, mailbox: Mailbox) -> None:
        news = getattr(mailbox.subscriber, "news", "all")
        if news == "all":
            self._observers[mailbox.address] = mailbox
        elif news == "few":
            self._few_observers[mailbox.address] = mailbox
        else:
            mailbox.subscriber.on_news_wanted = lambda: self._note_wanted(mailbox)

    def _note_wanted(self, mailbox: Mailbox) -> None:
        if self._mailboxes.get(mailbox.address) is mailbox:
            self._note_news(mailbox)
            self.on_news_wanted()

    def receivers(self, address: str | None, *, is_news: bool = False) -> list[Mailbox]:
        """The mailboxes an address stands for; None or "*" for everyone, with news all observers."""
        if address is None or address in BROADCASTS:
            is_news = is_news or address == NEWS
            return self.observers() if is_news else list(self._mailboxes.values())
        mailbox = self.find(address)
        return [] if mailbox is None else [mailbox]

    async def put(self, message: BusMessage, *, is_own: bool = True) -> None:
        """Put a message into the mailboxes it is for, waiting for room.

        Args:
            message: The message.
            is_own: Whether it was sent in this process, and is counted so.

        Raises:
            BusFullError: There was none in time.
        """
        receivers = self.receivers(message.target, is_news=message.is_news)
        if self.edges is not None and is_own:
            self.edges.note_put(message, is_undelivered=not receivers)
        if not receivers:
            self.counters.note_undelivered(message.target or EVERYONE)
            return
        item: Item = message
        if message.is_opaque:
            item, receivers = self._opaque_item(message, receivers)
        full = []
        for mailbox in receivers:
            queue = mailbox.lane(message.lane)
            if queue.takes(type(message)):
                queue.put_nowait((item, None))
            else:
                full.append(mailbox)
        if full:
            await self._put_when_room(message, item, full)

    def _opaque_item(
        self, message: BusMessage, receivers: list[Mailbox]
    ) -> tuple[bytes, list[Mailbox]]:
        """Encode what is opaque: each receiver decodes it for itself, as a type that it may know."""
        line = encode_message(message, limit=sys.maxsize)
        if message.target is None and self._decoder.decode_broadcast(line) is None:
            receivers = [mailbox for mailbox in receivers if mailbox.takes_opaque]
        return line, receivers

    async def _put_when_room(self, message: BusMessage, item: Item, full: list[Mailbox]) -> None:
        """Wait for all of them together: who makes room does not wait for who does not."""
        kind = type(message)
        puts = {
            asyncio.create_task(mailbox.lane(message.lane).put(item, kind)): mailbox
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

    def observers(self) -> list[Mailbox]:
        """The mailboxes that news of workers are put into."""
        few = islice(self._few_observers.values(), MOST_OBSERVERS)
        return [*self._observers.values(), *few]

    def put_lines(
        self, address: str, lane: Lane, lines: list[bytes], delivery: LaneDelivery | None
    ) -> int:
        """Put encoded messages from a transport into mailboxes, never waiting.

        Returns:
            How many times `delivery` will be told that one is done.
        """
        if address in BROADCASTS and self._mailboxes:
            return self._put_broadcast(lane, lines, delivery)
        receivers = self.receivers(address)
        if not receivers:
            self.counters.dropped += len(lines)
            return 0
        if lane is Lane.SYSTEM and self._is_full(receivers, address, lane, lines):
            return 0
        # Decoded when handled: the reader stays quick.
        return _extend(receivers, lane, lines, delivery, self.turns.collected)

    def _put_broadcast(self, lane: Lane, lines: list[bytes], delivery: LaneDelivery | None) -> int:
        """Decode once for all receivers but those that take what is unknown here."""
        decoding = list(self._opaque_takers.values())
        items = self._decoded(lines) if len(decoding) < len(self._mailboxes) else []
        rest = [message for message in items if not message.is_news]
        observers = _others_than(decoding, self.observers()) if len(rest) < len(items) else []
        # Those that hear no news are looked at only where there is something else.
        others = _others_than([*decoding, *observers], self._mailboxes.values()) if rest else []
        receivers = [*decoding, *observers, *others]
        if lane is Lane.SYSTEM and self._is_full(receivers, EVERYONE, lane, lines):
            return 0
        turns = self.turns.collected
        told = _extend(decoding, lane, lines, delivery, turns)
        told += _extend(observers, lane, items, delivery, turns)
        return told + _extend(others, lane, rest, delivery, turns)

    def _decoded(self, lines: list[bytes]) -> list[BusMessage]:
        found = map(self._decoder.decode_broadcast, lines)
        return [message for message in found if message is not None]

    def _is_full(
        self, receivers: list[Mailbox], address: str, lane: Lane, lines: list[bytes]
    ) -> bool:
        """Whether urgent messages have no room in a mailbox; they are lost then, and counted."""
        crowded = [one for one in receivers if one.queued >= SYSTEM_CAPACITY]
        if all(len(one.lane(lane)) < SYSTEM_CAPACITY for one in crowded):
            return False
        self.note_lost("this process, which has no room,", address, len(lines))
        return True

    def refuse(self, error: MessageDecodeError, origin: str = "") -> None:
        """Count and log bytes that were no message, and where they claim to be from."""
        self._decoder.refuse(error, origin=origin)

    def tidy(self) -> None:
        """Log what was refused too soon after a refusal that was logged."""
        self._decoder.tidy()

    def note_lost(self, sender: str, address: str, count: int) -> None:
        """Say that messages went missing: counter, log, a local message to those concerned."""
        concerned, address = self.receivers(address), shown_address(address)
        self.counters.lost += count
        if self.edges is not None:
            self.edges.note_lost(sender, address, count)
        logger.warning(
            "%d messages of %s to %s were lost on the way (%d in all)",
            count, sender, address, self.counters.lost,
        )  # fmt: skip
        for mailbox in concerned:
            mailbox.lost += count
            news = BusMessagesLostMessage(
                source="pbus", target=mailbox.name, sender=sender, address=address, count=count
            )
            queue = mailbox.lane(Lane.SYSTEM)
            if len(queue) < queue.capacity:
                queue.put_nowait((news, None))


def _extend(
    mailboxes: Sequence[Mailbox],
    lane: Lane,
    items: Sequence[Item],
    delivery: LaneDelivery | None,
    turns: list[ReaderTurn] | None,
) -> int:
    """Append items to mailboxes; returns how many times the delivery will be told."""
    if not items:
        return 0
    entries: list[Entry] = [(item, None) for item in items[:-1]]
    entries.append((items[-1], delivery))  # handled in order: the last stands for all
    for mailbox in mailboxes:
        mailbox.lane(lane).extend_nowait(entries, turns)
    return len(mailboxes)


def _others_than(mailboxes: Sequence[Mailbox], among: Collection[Mailbox]) -> list[Mailbox]:
    left_out = set(mailboxes)
    return [mailbox for mailbox in among if mailbox not in left_out]
