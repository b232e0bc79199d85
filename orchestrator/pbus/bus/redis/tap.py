"""Following a channel on the server: a pattern subscription, which no worker takes part in."""

import asyncio
import contextlib
from typing import Self

from pbus.bus.coalescing import EVERYONE
from pbus.bus.redis.connections import CONFIRM_TIMEOUT_S, CommandConnection, SubscriberConnection
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint
from pbus.bus.tap_base import FOLLOWER_LEASE_S, BrokerTap
from pbus.errors import BusUnavailableError
from pbus.ids import new_token
from pbus.seal import Seal

FOLLOWER_NOTE = (
    b'["follower"]'  # to everyone's system channel: stored messages are copied to followers
)


class RedisTap(BrokerTap):
    """A follower of one channel.

    Args:
        endpoint: The server.
        names: How channels are named.
        seal: Of the channel.
        asks: Stored messages do not pass here by themselves: ask senders for copies while it is open.
    """

    def __init__(self, endpoint: Endpoint, names: Keys, seal: Seal, *, asks: bool = False) -> None:
        super().__init__(seal)
        self._names = names
        self._endpoint = endpoint
        self._asking = CommandConnection(endpoint, "tap asking") if asks else None
        self._link = SubscriberConnection(endpoint, "tap", self._take, pattern=names.everything())

    async def __aenter__(self) -> Self:
        self._start_tasks(self._link.run)
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await self._link.wait_up()
        except TimeoutError:
            await self.__aexit__()
            raise BusUnavailableError(self._endpoint.url, "it cannot be followed") from None
        await self._ask()
        return self

    async def catch_up(self) -> None:
        """Wait for the answer to a subscription: all that was sent before has come by then."""
        if not self._link.is_up:
            return
        with contextlib.suppress(BusUnavailableError):
            await self._link.add([self._names.lane("s", new_token())])

    async def pause(self) -> None:
        """Leave the pattern, so that the server copies nothing for this connection."""
        await self._link.hold_pattern(is_held=True)

    async def resume(self) -> None:
        """Listen to the pattern again."""
        await self._link.hold_pattern(is_held=False)

    async def _disconnect(self) -> None:
        if self._asking is not None:
            await self._asking.close()

    async def _heartbeat(self) -> None:
        await self._link.beat()
        await self._ask()

    async def _ask(self) -> None:
        """Tell senders, for another while, that there are followers."""
        if self._asking is None:
            return
        lease_ms = int(FOLLOWER_LEASE_S * 1000)
        note = self._seal.close("note", FOLLOWER_NOTE)
        with contextlib.suppress(*TROUBLE):  # asked again with the next beat
            await self._asking.request([
                (b"SET", self._names.key("followed"), b"1", b"PX", lease_ms),
                (b"PUBLISH", self._names.lane("s", EVERYONE), note),
            ])

    def _take(self, payload: bytes) -> None:
        if not payload.startswith(FOLLOWER_NOTE):
            self._follow(payload)
