"""Messages that the server pushes with a notification to a consumer that emptied its queues."""

import asyncio
import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from pbus.bus.pgmq.connections import ConnectionPair
from pbus.bus.pgmq.encoding import Row, decode_pushed, in_order
from pbus.bus.pgmq.entries import EntryReader
from pbus.bus.pgmq.uncertainty import Uncertainty
from pbus.bus.pgmq.wakeups import Wakeups, Wanted, md5_of
from pbus.bus.queues.store import StoredMessage
from pbus.errors import BusUnavailableError

logger = logging.getLogger(__name__)

_SUBSCRIBE = "SELECT pbus.queue_subscribe_push($1, $2, $3, $4, $5)"


class FetchContext(NamedTuple):
    """The state that the parts of a fetcher share.

    Attributes:
        connections: Of the bus.
        hold_s: How long a consumer may be silent.
        asking: The consumers for which the server is being asked, each by one task.
        entries: Makes messages of rows.
        uncertainty: Knows the consumers whose answers may have been lost.
        wakeups: Wakes waiting fetches.
    """

    connections: ConnectionPair
    hold_s: float
    asking: dict[str, asyncio.Task[Any]]
    entries: EntryReader
    uncertainty: Uncertainty
    wakeups: Wakeups


class PushReceiver:
    """Keeps what was pushed to the consumers of this process until their next fetch."""

    def __init__(self, context: FetchContext) -> None:
        self._context = context
        self._subscribed: dict[str, frozenset[str]] = {}  # consumer: queues the server knows of
        self._announced: set[str] = set()  # consumers that the server may push to
        self._prefetched: dict[str, list[StoredMessage]] = {}  # for the next fetch of a consumer
        # Pushed while the server was being asked, or in doubt; with the connection it came over.
        self._pushed_during_fetch: dict[str, list[tuple[int, Row]]] = {}

    async def subscribe(self, wanted: Wanted, consumer: str) -> None:
        """Have the server push what comes for these queues, and for no others.

        Raises:
            BusUnavailableError: Not confirmed.
        """
        names = frozenset(name for name, _, _ in wanted)
        if not names or self._subscribed.get(consumer) == names:
            return
        bus_channel = self._context.connections.channel
        channel = "pbus_h_" + md5_of(f"{len(bus_channel)}:{bus_channel}{consumer}")[:24]
        await self._context.connections.listen_on(
            channel, functools.partial(self.receive, consumer)
        )
        self._subscribed[consumer] = names
        self._announced.add(consumer)
        arguments = (bus_channel, consumer, channel, sorted(names), self._context.hold_s)
        try:
            await self._context.connections.reader.call(_SUBSCRIBE, *arguments)
        except BusUnavailableError:
            self._subscribed.pop(consumer, None)
            raise

    def resubscribe(self) -> None:
        """Subscribe again with the next fetch: the server may have lost the subscriptions."""
        self._subscribed.clear()

    def reconnecting(self) -> None:
        """Doubt what was pushed over the connection before."""
        self._context.uncertainty.reconnecting(self._announced)
        self.resubscribe()

    def receive(self, consumer: str, payload: str) -> None:
        """Keep what came with a notification."""
        try:
            row = decode_pushed(payload)
        except ValueError as error:
            url = self._context.connections.url
            logger.warning("a notification of %s is none of pbus': %s", url, error)
            return
        is_doubted = self._context.uncertainty.doubted_since(consumer) is not None
        if (
            consumer in self._context.asking
            or is_doubted
            or self._pushed_during_fetch.get(consumer)
        ):
            # Its number tells where it belongs among what is asked or has to be asked.
            during = self._pushed_during_fetch.setdefault(consumer, [])
            during.append((self._context.uncertainty.connection, row))
        else:
            messages = self._context.entries.messages_of([row], consumer)
            self._prefetched.setdefault(consumer, []).extend(messages)
        self._context.wakeups.pushed(row["mailbox"])

    @property
    def holds(self) -> list[int]:
        """The entries that came while the server was being asked, and were not read yet."""
        pushed = self._pushed_during_fetch.values()
        return [row["hold"] for during in pushed for _, row in during if row["hold"] is not None]

    def has_any(self, consumer: str) -> bool:
        """Whether messages wait for the consumer's next fetch."""
        return bool(self._prefetched.get(consumer) or self._pushed_during_fetch.get(consumer))

    def take_prefetched(self, consumer: str) -> list[StoredMessage]:
        """Return what is here for the consumer before the server is asked."""
        return self._prefetched.pop(consumer, []) + self.merge([], consumer)

    def merge(self, rows: Sequence[Row], consumer: str) -> list[StoredMessage]:
        """The messages of fetched rows and of those pushed meanwhile, in their queues' order.

        While something may be missing that was pushed over an earlier connection, what came over a
        later one has to wait: it comes after that.
        """
        during = self._pushed_during_fetch.pop(consumer, [])
        if (since := self._context.uncertainty.doubted_since(consumer)) is not None:
            self._pushed_during_fetch[consumer] = [one for one in during if one[0] >= since]
            during = [one for one in during if one[0] < since]
        pushed = [row for _, row in during]
        return self._context.entries.messages_of(
            in_order(rows, pushed) if pushed else rows, consumer
        )

    def keep(self, messages: Sequence[StoredMessage], consumer: str) -> None:
        """Keep fetched messages for a later fetch, before what was pushed meanwhile."""
        if messages:
            self._prefetched[consumer] = [*messages, *self._prefetched.get(consumer, ())]
            self._context.wakeups.notified(set())

    def drop(self, consumers: Sequence[str]) -> None:
        """Drop what is kept for consumers whose messages were requeued."""
        for consumer in consumers:
            self._prefetched.pop(consumer, None)
            self._pushed_during_fetch.pop(consumer, None)
