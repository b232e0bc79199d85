"""Following a channel on the server: a pattern subscription, which no worker takes part in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from pbus.bus.redis.endpoint import TROUBLE, Endpoint
from pbus.bus.redis.links import CONFIRM_TIMEOUT_S, RequestLink, SubscribeLink
from pbus.bus.redis.names import Names
from pbus.bus.switchboard import EVERYONE
from pbus.bus.tap import TapMessage
from pbus.codec import Envelope, as_json, decode_header, decode_payload
from pbus.errors import BusUnavailableError, MessageDecodeError

_CAPACITY = 20_000  # messages a slow reader may fall behind before it misses some
_BEAT_S = 2.0
FOLLOWER_LEASE_S = 6.0
FOLLOWER_NOTE = b'["follower"]'  # to everyone's system channel: stored mail is copied to followers


class RedisTap:
    """A follower of one channel.

    Args:
        endpoint: The server.
        names: How channels are named.
        asks: Stored mail does not pass here by itself: ask senders for copies, as long as we live.

    Attributes:
        missed: Messages known to have passed unseen.
    """

    def __init__(self, endpoint: Endpoint, names: Names, *, asks: bool = False) -> None:
        self._names = names
        self._asking = RequestLink(endpoint, "tap asking") if asks else None
        self.missed = 0
        self.refused = 0
        self._endpoint = endpoint
        self._link = SubscribeLink(endpoint, "tap", self._take, pattern=names.everything())
        self._queue: asyncio.Queue[TapMessage] = asyncio.Queue(_CAPACITY)
        self._next: dict[tuple[str, int, str, str], int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._link.run(), name="pbus tap"),
            asyncio.create_task(self._beat(), name="pbus tap beat"),
        ]
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await self._link.wait_up()
        except TimeoutError:
            await self.__aexit__()
            raise BusUnavailableError(self._endpoint.url, "it cannot be followed") from None
        await self._ask()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._asking is not None:
            await self._asking.close()

    async def __aiter__(self) -> AsyncIterator[TapMessage]:
        while True:
            yield await self._queue.get()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            await self._link.beat()
            await self._ask()

    async def _ask(self) -> None:
        """Tell senders, for another while, that somebody follows."""
        if self._asking is None:
            return
        lease_ms = int(FOLLOWER_LEASE_S * 1000)
        with contextlib.suppress(*TROUBLE):  # asked again with the next beat
            await self._asking.request([
                (b"SET", self._names.key("followed"), b"1", b"PX", lease_ms),
                (b"PUBLISH", self._names.lane("s", EVERYONE), FOLLOWER_NOTE),
            ])

    def _take(self, payload: bytes) -> None:
        if payload == FOLLOWER_NOTE:
            return
        try:
            envelope, lines = decode_payload(payload)
        except MessageDecodeError:
            self.refused += 1
            return
        lines = lines[self._note_number(envelope) :]
        for line in lines:
            self._show(envelope, line)

    def _note_number(self, envelope: Envelope) -> int:
        """Count what was missed before this payload; returns how much of it was seen before."""
        key = (envelope.sender, envelope.stream, envelope.address, envelope.lane)
        expected = self._next.get(key, envelope.first)
        self.missed += max(0, envelope.first - expected)
        self._next[key] = max(expected, envelope.first + envelope.count)
        return max(0, expected - envelope.first)

    def _show(self, envelope: Envelope, line: bytes) -> None:
        try:
            header, body = decode_header(line), as_json(line)
        except MessageDecodeError:
            self.refused += 1
            return
        item = TapMessage(header=header, body=body, lane=envelope.lane, missed=self.missed)
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            self.missed += 1
