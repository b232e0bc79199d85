"""The addresses of one process on pbus' bus: its workers', and its own."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from pbus.bus import BusSubscriber
from pbus.compat.pipecat.conversion import WireMessage, decode_wire

Receive = Callable[["LocalAddress", Any], Awaitable[None]]
_REMEMBERED = 4096


class LocalAddress(BusSubscriber):
    """Takes in what is sent to one address.

    Args:
        address: The address.
        worker: The name of the worker in its own process; "" for the process itself.
        receive: Called with each message: a WireMessage, or a message of pbus about the bus.
        decoder: Its own, where it takes in messages of pbus.
        is_durable: Whether what is stored for it is kept.
    """

    takes_opaque = True

    def __init__(
        self,
        address: str,
        worker: str,
        receive: Receive,
        *,
        decoder: Callable[[bytes], Any] = decode_wire,
        is_durable: bool = False,
    ) -> None:
        self.name = address
        self.worker = worker
        self.is_durable = is_durable
        self.wire_decoder = decoder
        self._receive = receive

    async def on_bus_message(self, message: Any) -> None:
        """Handle one message."""
        await self._receive(self, message)


class Broadcasts:
    """Lets each broadcast in once, at whichever address of the process it is seen first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()

    def note(self, message_id: str) -> None:
        """Let it in no more."""
        self._seen[message_id] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def is_repeated(self, wire: WireMessage) -> bool:
        """Whether a message is a broadcast that was seen, or sent, here; it is noted."""
        if wire.target is not None:
            return False
        was_seen = wire.id in self._seen
        self.note(wire.id)
        return was_seen
