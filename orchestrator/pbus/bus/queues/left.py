"""Messages that this process leaves to others: requeued once it consumes their queue no longer."""

import asyncio
from collections.abc import Collection

from pbus.bus.queues.in_flight import InFlight
from pbus.bus.queues.producer import OUTAGE_PAUSE_S
from pbus.bus.queues.settler import Settler
from pbus.bus.queues.store import QueueStore, Settlement, StoredMessage
from pbus.errors import BusUnavailableError


class LeftMessages:
    """Keeps what is left to others until it may be requeued.

    Requeued at once, a message would come here again.

    Args:
        queues: Those that this process consumes, now and later.
        settler: Requeues messages.
        in_flight: Counts them until then.
    """

    def __init__(self, queues: Collection[str], settler: Settler, in_flight: InFlight) -> None:
        self._queues = queues
        self._settler = settler
        self._in_flight = in_flight
        self._messages: list[StoredMessage] = []
        self._has_left_all = False  # and the broker may still push messages here

    @property
    def are_all(self) -> bool:
        """Whether there may be some, and nothing is consumed any more.

        What was pushed here and not fetched is not counted; while something else is in flight, it is
        still settled here, as a job whose answer is being stored.
        """
        may_be_pushed = self._has_left_all and not self._in_flight.any()
        return (bool(self._messages) or may_be_pushed) and not self._queues

    def add(self, message: StoredMessage) -> None:
        """Leave a message to others."""
        self._messages.append(message)
        if message.queue not in self._queues:
            self.requeue()

    def requeue(self) -> None:
        """Requeue what may be; all at once, uncounted, when this process consumes nothing."""
        if self._queues:
            self.requeue_left_queues()
        else:
            self._has_left_all = True
            self._in_flight.has_room.set()

    def requeue_left_queues(self) -> None:
        """Requeue the messages of queues that are not consumed here."""
        left = [one for one in self._messages if one.queue not in self._queues]
        self._messages = [one for one in self._messages if one.queue in self._queues]
        for message in left:
            self._settler.enqueue(Settlement(message=message, how="requeue"))

    async def requeue_all(self, store: QueueStore, incarnation: str) -> None:
        """Requeue all that is in flight to this process."""
        left, self._messages = self._messages, []
        self._has_left_all = False
        try:
            await store.requeue_held_by([incarnation])
        except BusUnavailableError:
            self._messages += left
            self._has_left_all = True
            await asyncio.sleep(OUTAGE_PAUSE_S)
        else:
            for message in left:
                self._in_flight.release_slot(message)
