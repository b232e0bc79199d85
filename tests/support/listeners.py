"""Subscribers that remember what they heard, so that tests wait for events and not for time."""

import asyncio
from collections.abc import Awaitable, Callable

from pbus.bus import BusSubscriber
from pbus.messages import BusMessage
from support.waiting import PATIENCE_S


class Listener(BusSubscriber):
    """Keeps every message and can be awaited for their number."""

    def __init__(
        self, name: str, handler: Callable[[BusMessage], Awaitable[None]] | None = None
    ) -> None:
        self.name = name
        self.messages: list[BusMessage] = []
        self._handler = handler
        self._changed = asyncio.Condition()

    async def on_bus_message(self, message: BusMessage) -> None:
        """Remember it, after the handler if there is one."""
        if self._handler is not None:
            await self._handler(message)
        async with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    async def heard(
        self, count: int, *, within: float = PATIENCE_S, kind: type[BusMessage] = BusMessage
    ) -> list[BusMessage]:
        """The messages, once there are so many of the kind: news of workers may be among them."""
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(
                lambda: sum(isinstance(one, kind) for one in self.messages) >= count
            )
        return list(self.messages)
