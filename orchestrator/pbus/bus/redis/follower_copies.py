"""Copies, for followers of the channel, of what reaches its receivers without the server."""

import asyncio
import logging

from pbus.bus.redis.connections import CommandConnection
from pbus.bus.redis.keys import FOLLOWED, Keys
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint
from pbus.concurrency.backoff import Backoff
from pbus.messages import Lane

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 4 * 1024 * 1024  # further ones are left out: followers see a gap in the numbers


class FollowerCopies:
    """Publishes payloads to followers, beside the writers of the lanes.

    Args:
        endpoint: The server.
        names: How channels are named.
    """

    def __init__(self, endpoint: Endpoint, names: Keys) -> None:
        self._names = names
        self._link = CommandConnection(endpoint, "copies for followers")
        self._waiting: list[tuple[bytes, bytes, bytes]] = []
        self._bytes = 0
        self._has_some = asyncio.Event()

    def put(self, lane: Lane, address: str, payload: bytes) -> None:
        """Publish a payload soon, unless too much waits."""
        if self._bytes + len(payload) > MAX_WAITING_BYTES:
            return
        self._waiting.append((
            b"PUBLISH",
            self._names.lane(lane.value, FOLLOWED + address),
            payload,
        ))
        self._bytes += len(payload)
        self._has_some.set()

    async def run(self) -> None:
        """Publish until cancelled; what the server did not take is not published again."""
        backoff = Backoff()
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            try:
                await self._link.request(waiting)
                backoff.reset()
            except TROUBLE as error:
                logger.debug("followers miss %d payloads: %s", len(waiting), error)
                await backoff.pause()

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()
