"""AsyncQueueBus: the bus within one process; messages are handed over, not encoded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from pbus.bus.base import WorkerBus
from pbus.bus.tap import TapMessage, TapQueue
from pbus.codec import check_key, decode_header, encode_message
from pbus.errors import MessageEncodeError
from pbus.messages import BusMessage
from pbus.settings import DEFAULT_SEND_TIMEOUT_S

_TAP_CAPACITY = 10_000  # messages a follower may fall behind before it misses some


class AsyncQueueBus(WorkerBus):
    """Delivers between the workers of one process.

    The same frozen message object reaches every receiver. A receiver that is 10,000 messages
    behind makes its senders wait.
    """

    def __init__(
        self,
        *,
        channel: str = "pbus",
        send_timeout: float = DEFAULT_SEND_TIMEOUT_S,
        stats: bool = True,
    ) -> None:
        super().__init__(channel=channel, send_timeout=send_timeout, stats=stats)
        self._taps: set[MemoryTap] = set()

    async def publish(self, message: BusMessage) -> None:
        """Put the message into the mailboxes it is for."""
        if message.key is not None:
            check_key(message.key, type(message).__name__)
        if self._taps:
            for tap in self._taps:
                tap.show(message)
        await self._router.put(message)

    def tap(self) -> "MemoryTap":
        """Follow the messages of this process."""
        return MemoryTap(self._taps)


class MemoryTap:
    """A follower of an AsyncQueueBus."""

    def __init__(self, taps: "set[MemoryTap]") -> None:
        self.missed = 0
        self._taps = taps
        self._queue = TapQueue(_TAP_CAPACITY)

    async def __aenter__(self) -> Self:
        self._taps.add(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._taps.discard(self)
        self._queue.end()

    def __aiter__(self) -> AsyncIterator[TapMessage]:
        return self._queue.items()

    async def catch_up(self) -> None:
        """Return at once: what passes is shown as it is sent."""

    def show(self, message: BusMessage) -> None:
        """Called by the bus for every message."""
        try:
            body = encode_message(message, limit=1 << 62)
            header = decode_header(body)
            self._queue.put_nowait(
                TapMessage(header=header, body=body, lane=message.lane.value, missed=self.missed)
            )
        except (asyncio.QueueFull, MessageEncodeError):
            self.missed += 1
