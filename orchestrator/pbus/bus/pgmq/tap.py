"""Following a channel: for as long as somebody does, he gets a copy of everything that passes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from pbus.bus.pgmq.lines import Lines
from pbus.bus.pgmq.wire import Wire
from pbus.bus.tap import TapMessage
from pbus.codec import Envelope, as_json, decode_header, decode_payload
from pbus.errors import MessageDecodeError
from pbus.ids import new_token

FOLLOWER_LEASE_S = 6.0
_CAPACITY = 20_000  # messages a slow reader may fall behind before it misses some
_BEAT_S = 2.0


class PgmqTap:
    """A follower of one channel.

    What he does not fetch is bounded by the server, and falls with his lease.

    Args:
        lines: The connections of the bus he follows.

    Attributes:
        missed: Messages known to have passed unseen.
        refused: Payloads that were none.
    """

    def __init__(self, lines: Lines) -> None:
        self.missed = 0
        self.refused = 0
        self._overflowed = 0
        self._lines = lines
        self._wire = Wire(lines, new_token(), self._take, follows=True, lease_s=FOLLOWER_LEASE_S)
        self._queue: asyncio.Queue[TapMessage] = asyncio.Queue(_CAPACITY)
        self._next: dict[tuple[str, int, str, str], int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._lines.hold()
        try:
            await self._wire.open()
        except BaseException:
            await self.__aexit__()
            raise
        self._tasks = [
            asyncio.create_task(self._wire.run(), name="pbus tap"),
            asyncio.create_task(self._beat(), name="pbus tap beat"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._wire.close()
        await self._lines.release()

    async def __aiter__(self) -> AsyncIterator[TapMessage]:
        while True:
            yield await self._queue.get()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            await self._wire.beat()
            self._count_missed()

    def _take(self, rank: int, payload: bytes) -> None:
        del rank  # the payload has its lane
        try:
            envelope, lines = decode_payload(payload)
        except MessageDecodeError:
            self.refused += 1
            return
        self._count_missed()
        for line in lines[self._seen_before(envelope) :]:
            self._show(envelope, line)

    def _count_missed(self) -> None:
        self.missed = self._wire.missed + self._overflowed

    def _seen_before(self, envelope: Envelope) -> int:
        """How many of these passed already, in a payload that was sent twice."""
        key = (envelope.sender, envelope.stream, envelope.address, envelope.lane)
        expected = self._next.get(key, envelope.first)
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
            self._overflowed += 1
