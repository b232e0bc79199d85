"""A bus that a test can look into: what was sent by whom, and whether it was handled."""

import asyncio
from collections.abc import Callable

from pbus.bus import AsyncQueueBus, BusSubscriber
from pbus.bus.local.lane_reader import current_reader
from pbus.messages import BusMessage

Handling = asyncio.Future[None]


class WatchedBus(AsyncQueueBus):
    """An AsyncQueueBus that tells of every message sent, and when one was handled.

    Args:
        on_sent: Called with each message that the bus took.
    """

    def __init__(self, on_sent: Callable[[BusMessage], None]) -> None:
        super().__init__(channel="pbus:test")
        self._on_sent = on_sent
        self._watched: dict[BusSubscriber, _Watched] = {}

    async def send(self, message: BusMessage) -> None:
        """Send, and tell; see WorkerBus.send."""
        await super().send(message)
        self._on_sent(message)

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver to a subscriber, under watch; see WorkerBus.subscribe."""
        watched = self._watched.setdefault(subscriber, _Watched(subscriber))
        await super().subscribe(watched)

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver no longer; see WorkerBus.unsubscribe."""
        watched = self._watched.pop(subscriber, None)
        if watched is not None:
            await super().unsubscribe(watched)
            watched.give_up()

    def handling(self, name: str, message: BusMessage) -> Handling:
        """Done when this subscriber has handled (or refused) the message, with what that raised.

        Cancelled when the subscriber leaves before; ask before the message is sent.
        """
        for watched in self._watched.values():
            if watched.name == name:
                return watched.handling(message)
        never: Handling = asyncio.get_running_loop().create_future()
        never.cancel()
        return never


class _Watched(BusSubscriber):
    """Stands before a subscriber and notes what becomes of messages that somebody asked about."""

    def __init__(self, inner: BusSubscriber) -> None:
        self.name = inner.name
        self.gates = inner.gates
        self._inner = inner
        self._handlings: dict[str, Handling] = {}

    @property
    def address(self) -> str:
        """That of the subscriber."""
        return self._inner.address

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Ask the subscriber."""
        accepts = self._inner.accepts_bus_message(message)
        if not accepts:
            self._note(message, None)
        return accepts

    async def on_bus_message(self, message: BusMessage) -> None:
        """Give it to the subscriber; one that waits for its job counts as done."""
        reader = current_reader()
        if reader is not None:
            reader.when_released(lambda: self._note(message, None))
        try:
            await self._inner.on_bus_message(message)
        except Exception as error:
            self._note(message, error)
            raise
        self._note(message, None)

    def handling(self, message: BusMessage) -> Handling:
        """See WatchedBus.handling."""
        handling: Handling = asyncio.get_running_loop().create_future()
        self._handlings[message.id] = handling
        return handling

    def give_up(self) -> None:
        """Nothing is handled any more."""
        for handling in self._handlings.values():
            handling.cancel()
        self._handlings.clear()

    def _note(self, message: BusMessage, error: Exception | None) -> None:
        handling = self._handlings.pop(message.id, None)
        if handling is None or handling.done():
            return
        if error is None:
            handling.set_result(None)
        else:
            handling.set_exception(error)
