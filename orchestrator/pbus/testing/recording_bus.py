"""A bus that tells a test of each message sent, and when it was handled."""

import asyncio
from collections.abc import Callable

from pbus.bus import AsyncQueueBus, BusSubscriber
from pbus.bus.local.lane_reader import current_reader
from pbus.messages import BusMessage

Handling = asyncio.Future[None]


class RecordingBus(AsyncQueueBus):
    """An AsyncQueueBus that tells of each message sent, and when one was handled.

    Args:
        on_sent: Called with each message that the bus accepted.
    """

    def __init__(self, on_sent: Callable[[BusMessage], None]) -> None:
        super().__init__(channel="pbus:test")
        self._on_sent = on_sent
        self._recorded: dict[BusSubscriber, _RecordedSubscriber] = {}

    async def send(self, message: BusMessage) -> bool:
        """Send a message, and report it; see WorkerBus.send."""
        is_taken = await super().send(message)
        self._on_sent(message)
        return is_taken

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver to a subscriber, and record it; see WorkerBus.subscribe."""
        recorded = self._recorded.setdefault(subscriber, _RecordedSubscriber(subscriber))
        await super().subscribe(recorded)

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Stop to deliver; see WorkerBus.unsubscribe."""
        recorded = self._recorded.pop(subscriber, None)
        if recorded is not None:
            await super().unsubscribe(recorded)
            recorded.cancel_all()

    def handling(self, name: str, message: BusMessage) -> Handling:
        """A future of the handling of a message by a subscriber; call it before the message is sent.

        Its error is that of the handler. Cancelled when the subscriber leaves before.
        """
        for recorded in self._recorded.values():
            if recorded.name == name:
                return recorded.handling(message)
        never: Handling = asyncio.get_running_loop().create_future()
        never.cancel()
        return never


class _RecordedSubscriber(BusSubscriber):
    """Passes messages to a subscriber, and completes the futures of their handling."""

    def __init__(self, inner: BusSubscriber) -> None:
        self.name = inner.name
        self.gates = inner.gates
        self._inner = inner
        self._handlings: dict[str, Handling] = {}

    @property
    def address(self) -> str:
        """The address of the subscriber."""
        return self._inner.address

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Whether the subscriber accepts a message."""
        accepts = self._inner.accepts_bus_message(message)
        if not accepts:
            self._note(message, None)
        return accepts

    async def on_bus_message(self, message: BusMessage) -> None:
        """Pass a message to the subscriber; a handler that waits for its own job counts as done."""
        reader = current_reader()
        if reader is not None:
            reader.on_release = lambda: self._note(message, None)
        try:
            rest = self._inner.on_bus_message(message)
            if rest is not None:
                await rest
        except Exception as error:
            self._note(message, error)
            raise
        self._note(message, None)

    def handling(self, message: BusMessage) -> Handling:
        """A future of the handling of a message."""
        handling: Handling = asyncio.get_running_loop().create_future()
        self._handlings[message.id] = handling
        return handling

    def cancel_all(self) -> None:
        """Cancel all futures: the subscriber has left."""
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
