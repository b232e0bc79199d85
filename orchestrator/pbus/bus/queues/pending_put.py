"""Messages on their way into the store, and those that share an entry."""

import asyncio
from collections.abc import Callable

import msgspec

from pbus.bus.coalescing import EVERYONE, OpenBatches
from pbus.messages import BusJobRequestMessage, BusMessage, Lane

MAX_ENTRY_BYTES = 256 * 1024  # messages that share an entry


class EncodedMessage(msgspec.Struct, frozen=True, gc=False):
    """One encoded message, and where it goes.

    Attributes:
        is_alone: It shares no entry: requests to replicas are dealt out one by one.
    """

    address: str
    lane: Lane
    id: str
    line: bytes
    is_alone: bool = False

    @classmethod
    def of(cls, message: BusMessage, line: bytes) -> "EncodedMessage":
        """An encoded message."""
        is_alone = isinstance(message, BusJobRequestMessage)
        return cls(message.target or EVERYONE, message.lane, message.id, line, is_alone)


class Receipt:
    """The outcome of storing one message of a batch; a future without callbacks and turns of the loop.

    Args:
        on_end: Called with this at its end.

    Attributes:
        queues: In how many queues the message is.
        error: The reason why it is in none.
        size: Of the encoded message, in bytes.
        on_end: See there; may be wrapped.
    """

    __slots__ = ("_is_done", "error", "on_end", "queues", "size")

    def __init__(self, on_end: "Callable[[Receipt], None]") -> None:
        self.on_end = on_end
        self.queues = 0
        self.error: BaseException | None = None
        self.size = 0
        self._is_done = False

    def done(self) -> bool:
        """Whether it has an outcome."""
        return self._is_done

    def set_result(self, queues: int) -> None:
        """Note that the message is stored."""
        self.queues = queues
        self._is_done = True
        self.on_end(self)

    def set_exception(self, error: BaseException) -> None:
        """Note that the message is not stored."""
        self.error = error
        self._is_done = True
        self.on_end(self)


class PendingPut:
    """One message on its way into the store."""

    __slots__ = ("encoded", "number", "stored", "until")

    def __init__(
        self,
        encoded: EncodedMessage,
        number: int,
        until: float,
        stored: asyncio.Future[int] | Receipt,
    ) -> None:
        self.encoded = encoded
        self.number = number
        self.until = until
        self.stored = stored

    @property
    def address(self) -> str:
        """The address that it is sent to."""
        return self.encoded.address

    def fail(self, error: BaseException) -> None:
        """Tell its sender, unless that went away."""
        if not self.stored.done():
            self.stored.set_exception(error)


class _Entry:
    """Messages of one stream that are stored as one entry."""

    __slots__ = ("puts", "size")

    def __init__(self) -> None:
        self.puts: list[PendingPut] = []
        self.size = 0

    def takes(self, put: PendingPut) -> bool:
        """Whether a message follows the last one, and there is room for it."""
        follows = self.puts[-1].number + 1 == put.number
        return follows and not put.encoded.is_alone and self.size <= MAX_ENTRY_BYTES

    def add(self, put: PendingPut) -> None:
        self.puts.append(put)
        self.size += len(put.encoded.line)


def entries_of(puts: list[PendingPut]) -> list[list[PendingPut]]:
    """The messages of a lane that share an entry: neighbours in one stream, as in a send buffer."""
    entries: list[list[PendingPut]] = []
    growing: OpenBatches[_Entry] = OpenBatches()
    for put in puts:
        entry = growing.get(put.address)
        if entry is None or not entry.takes(put):
            entry = _Entry()
            entries.append(entry.puts)
            growing.open(put.address, entry)
            if put.encoded.is_alone:
                growing.close(put.address)
        entry.add(put)
    return entries
