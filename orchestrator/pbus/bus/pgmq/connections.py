"""The two connections of a process, and who is told when something is there for it."""

import hashlib
from collections.abc import Callable

from pbus.bus.pgmq.server.connection import HealingConnection
from pbus.bus.pgmq.server.endpoint import Endpoint

NotifyHandler = Callable[[str], None]
CONNECTING = "!"  # told to the ears when a new connection is about to listen


class ConnectionPair:
    """The connections that all parts of one bus of a process share.

    Args:
        endpoint: The database.
        channel: The bus channel.

    Attributes:
        reader: Takes what arrives; gets the notifications of the channel.
        writer: Sends: a large batch on its way out delays nothing that arrives.
        notify_channel: What the server calls the channel; from a hash, so no two are mixed up.
    """

    def __init__(self, endpoint: Endpoint, channel: str) -> None:
        self.channel = channel
        self.url = endpoint.url
        self.notify_channel = "pbus_" + hashlib.md5(channel.encode()).hexdigest()[:24]  # noqa: S324 - a name
        self.reader = HealingConnection(endpoint, "pbus reader")
        self.writer = HealingConnection(endpoint, "pbus writer")
        self._listeners: list[NotifyHandler] = []
        self._handlers: dict[str, NotifyHandler] = {}
        self._users = 0
        self.reader.on_notify = self._heard
        self.reader.on_connecting = lambda: self._tell(CONNECTING)
        self.reader.on_connect = lambda: self._tell("")

    def add_listener(self, listener: NotifyHandler) -> None:
        """Call back with each notification of the channel; with "" when some may have been missed."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def remove_listener(self, listener: NotifyHandler) -> None:
        """Call it no longer."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    async def listen(self) -> None:
        """Receive notifications of the channel from now on.

        Raises:
            BusUnavailableError: Not confirmed now; it will be when the server is back.
        """
        await self.reader.listen(self.notify_channel)

    async def listen_on(self, channel: str, listener: NotifyHandler) -> None:
        """Call back with each notification of another channel, from now on.

        Raises:
            BusUnavailableError: Not confirmed now; it will be when the server is back.
        """
        self._handlers[channel] = listener
        await self.reader.listen(channel)

    def acquire(self) -> None:
        """Keep the connections until release(); they are made when needed."""
        self._users += 1

    async def release(self) -> None:
        """Give up the connections; the last user ends what is under way, and disconnects."""
        self._users -= 1
        if self._users == 0:
            await self.reader.close()
            await self.writer.close()

    def _heard(self, channel: str, payload: str) -> None:
        if channel == self.notify_channel:
            self._tell(payload)
        elif (listener := self._handlers.get(channel)) is not None:
            listener(payload)

    def _tell(self, payload: str) -> None:
        for listener in list(self._listeners):
            listener(payload)
