"""Following all traffic of a channel, without the workers taking part."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final, Protocol, Self

import msgspec

from pbus.codec import Header, encode_raw
from pbus.messages import BusTraceMessage
from pbus.structs import DECODE_ERRORS

_TRACE_ROOM = 1024  # the header may be written otherwise
MAX_WAITING_BYTES = 32 * 1024 * 1024


class TapMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message seen on the channel.

    Attributes:
        header: Its decoded header.
        body: The whole message, one line of JSON.
        lane: "d" or "s".
        missed: How many messages the follower is known to have missed up to now.
        is_local: It stayed in its process, and this is a copy.
    """

    header: Header
    body: bytes
    lane: str
    missed: int = 0
    is_local: bool = False

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.body)


def shown_message(item: TapMessage) -> TapMessage:
    """The message that a copy for followers is of; any other message as it is."""
    if item.header.type != BusTraceMessage.__name__:
        return item
    try:
        trace = _decode_trace(item.body)
    except DECODE_ERRORS:
        return item
    header = msgspec.structs.replace(item.header, type=trace.kind, target=trace.to)
    body = encode_raw(header, trace.fields, limit=len(item.body) + _TRACE_ROOM)
    lane = "s" if trace.urgent else "d"
    return msgspec.structs.replace(item, header=header, body=body, lane=lane, is_local=True)


_decode_trace = msgspec.json.Decoder(BusTraceMessage).decode


class TapQueue(asyncio.Queue[TapMessage]):
    """The messages that a follower has not read yet, bounded in number and bytes.

    Args:
        capacity: Messages it may fall behind before it misses some.
    """

    def __init__(self, capacity: int) -> None:
        self._bytes = 0
        self._is_ended = False
        super().__init__(capacity)

    def full(self) -> bool:
        """Whether nothing more goes in; into an empty one goes any message."""
        if self._is_ended:
            return False
        return self._bytes >= MAX_WAITING_BYTES or super().full()

    async def items(self) -> AsyncIterator[TapMessage]:
        """The messages, until end() is called and all that waited were read."""
        while True:
            item = await self.get()
            if item is _END:
                self.end()  # for other readers
                return
            yield item

    def rest(self) -> Iterator[TapMessage]:
        """The messages that wait now."""
        while not self.empty() and (item := self.get_nowait()) is not _END:
            yield item

    def end(self) -> None:
        """Let readers end. Idempotent."""
        self._is_ended = True
        self.put_nowait(_END)

    def _put(self, item: TapMessage) -> None:
        self._bytes += item.size
        super()._put(item)

    def _get(self) -> TapMessage:
        item: TapMessage = super()._get()
        self._bytes -= item.size
        return item


_END: Final = TapMessage(
    header=Header(type="", source="", target=None, id="", time=0.0), body=b"", lane="d"
)


class Tap(Protocol):
    """A follower: ``async with bus.tap() as tap: async for item in tap: ...``.

    Attributes:
        missed: Messages known to have passed unseen (a slow follower, a lost connection).
    """

    missed: int

    async def __aenter__(self) -> Self:
        """Begin to follow; returns when the broker confirmed it."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Stop following."""
        ...

    async def catch_up(self) -> None:
        """Wait until all is here that passed before; returns soon also where the broker is gone."""
        ...

    def __aiter__(self) -> AsyncIterator[TapMessage]:
        """Messages as they pass; ends when following was stopped and all that waited were read."""
        ...
