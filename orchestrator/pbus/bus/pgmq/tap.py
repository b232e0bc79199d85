"""Following a channel: each follower gets a copy of everything that passes."""

import asyncio
import contextlib
from typing import Final, Self

from pbus.bus.pgmq.connections import ConnectionPair
from pbus.bus.pgmq.transport import PgTransport
from pbus.bus.tap_base import FOLLOWER_LEASE_S, BrokerTap
from pbus.ids import new_token
from pbus.seal import Seal

_CATCH_UP_S: Final = 5.0


class PgmqTap(BrokerTap):
    """A follower of one channel.

    What he does not fetch is bounded by the server, and falls with his lease.

    Args:
        connections: The connections of the bus he follows.
        seal: Of the channel.
    """

    def __init__(self, connections: ConnectionPair, seal: Seal) -> None:
        super().__init__(seal)
        self._connections = connections
        self._transport = PgTransport(
            connections, new_token(), self._take, follows=True, lease_s=FOLLOWER_LEASE_S
        )

    async def __aenter__(self) -> Self:
        self._connections.acquire()
        try:
            await self._transport.open()
        except BaseException:
            await self.__aexit__()
            raise
        self._start_tasks(self._transport.run)
        return self

    async def catch_up(self) -> None:
        """Wait until nothing more is there for this follower."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                await self._transport.catch_up()

    async def pause(self) -> None:
        """Do nothing: the server bounds what it keeps, and who leaves does not know what passed."""

    async def resume(self) -> None:
        """Do nothing likewise."""

    async def _disconnect(self) -> None:
        await self._transport.close()
        await self._connections.release()

    async def _heartbeat(self) -> None:
        await self._transport.beat()
        self._note_gap(0)

    def _take(self, rank: int, payload: bytes) -> None:
        del rank  # the payload has its lane
        self._follow(payload)

    def _note_gap(self, count: int) -> None:
        del count  # the server says what it did not keep for us
        self.missed = self._transport.missed + self._overflowed
