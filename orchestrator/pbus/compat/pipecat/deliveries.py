"""Delivery to the subscribers of a PbusBus: Pipecat's order, without its queues and turns of the loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from pbus.compat.pipecat import theirs
from pbus.concurrency.background import TaskOwner

logger = logging.getLogger(__name__)

_AT_ONCE = 64  # messages of a lane before others have their turn


class _Lane:
    """Handles messages one at a time, in order.

    Args:
        handle: Handles one; does not raise.
        on_empty: Called when all are handled.
    """

    def __init__(
        self, handle: Callable[[Any], Awaitable[None]], on_empty: Callable[[], None] | None = None
    ) -> None:
        self._handle = handle
        self._on_empty = on_empty
        self._messages: deque[Any] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self.is_idle = False

    def put(self, message: Any) -> None:
        self._messages.append(message)
        self.is_idle = False
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def run(self) -> None:
        messages, handle = self._messages, self._handle
        while True:
            count = 0
            while messages:
                await handle(messages.popleft())
                count += 1
                if count % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            self.is_idle = True
            if self._on_empty is not None:
                self._on_empty()
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival


class Incoming:
    """The messages for one subscriber: data behind system messages, and beside their handlers.

    Args:
        subscriber: Handles them.
    """

    def __init__(self, subscriber: theirs.BusSubscriber) -> None:
        self._subscriber = subscriber
        self._name: str = subscriber.name
        self._is_wanted = theirs.wanted_by(subscriber)
        self._behind: deque[Any] = deque()  # data that wait for system messages, or for the start
        self._data = _Lane(self._handle)
        self._system = _Lane(self._handle, self._route_behind)
        self._tasks = TaskOwner()

    def start(self) -> None:
        """Deliver from now on. Idempotent."""
        if not self._tasks:
            for kind, lane in (("system", self._system), ("data", self._data)):
                self._tasks.spawn(lane.run(), f"pbus {kind} messages of {self._name}")

    async def stop(self) -> None:
        """Deliver no more, and keep what comes. Idempotent."""
        self._system.is_idle = False
        await self._tasks.close()

    def put(self, message: Any) -> None:
        """Take in a message that the subscriber may want."""
        if not self._is_wanted(message):
            return
        if isinstance(message, theirs.BusSystemMessage):
            self._system.put(message)
        elif self._system.is_idle:
            self._route(message)
        else:
            self._behind.append(message)

    def _route_behind(self) -> None:
        while self._behind:
            self._route(self._behind.popleft())

    def _route(self, message: Any) -> None:
        if self._accepts(message):  # asked when it comes, and when it is handled, as by Pipecat
            self._data.put(message)

    def _accepts(self, message: Any) -> bool:
        try:
            return bool(self._subscriber.accepts_bus_message(message))
        except Exception:
            logger.exception("subscriber %s does not say whether it takes %s", self._name, message)
            return False

    async def _handle(self, message: Any) -> None:
        if not self._accepts(message):
            return
        try:
            await self._subscriber.on_bus_message(message)
        except Exception:
            logger.exception("subscriber %s raised on %s", self._name, message)


class Deliveries:
    """The subscribers of a bus, each with a mailbox of its own."""

    def __init__(self) -> None:
        self._incoming: dict[str, Incoming] = {}
        self._is_started = False

    def add(self, subscriber: theirs.BusSubscriber) -> None:
        """Deliver to a subscriber; the first of a name stays."""
        if subscriber.name in self._incoming:
            return
        incoming = self._incoming[subscriber.name] = Incoming(subscriber)
        if self._is_started:
            incoming.start()

    async def remove(self, subscriber: theirs.BusSubscriber) -> None:
        """Deliver to a subscriber no more."""
        incoming = self._incoming.pop(subscriber.name, None)
        if incoming is not None:
            await incoming.stop()

    def start(self) -> None:
        """Deliver what has waited, and what comes. Idempotent."""
        self._is_started = True
        for incoming in self._incoming.values():
            incoming.start()

    async def stop(self) -> None:
        """Deliver no more. Idempotent."""
        self._is_started = False
        for incoming in list(self._incoming.values()):
            await incoming.stop()

    def put(self, message: theirs.BusMessage) -> None:
        """Hand a message to all that may want it."""
        for incoming in self._incoming.values():
            incoming.put(message)
