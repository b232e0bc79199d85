"""The way to the other processes: publish/subscribe channels, written in pipelines."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import NoPermissionError

from pbus.bus.redis.connections import CommandConnection
from pbus.bus.redis.keys import FOLLOWED, Keys
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch, SendStream
from pbus.bus.stream.transport import REFUSED, ControlFrame, OnWritten
from pbus.concurrency.backoff import Backoff
from pbus.messages import Lane

_RECOUNT_S = 1.0


class RedisTransport:
    """The writing connections of one process; see Transport.

    Args:
        endpoint: The server.
        links: One a lane. Notes go with the system lane.
        names: How channels are named.
    """

    broker: str = "broker"
    transient_errors: tuple[type[Exception], ...] = TROUBLE
    supports_nowait: bool = True

    def __init__(
        self, endpoint: Endpoint, links: Mapping[Lane, CommandConnection], names: Keys
    ) -> None:
        self._endpoint = endpoint
        self._links = links
        self._names = names
        self._outcomes: dict[Lane, list[Any] | Exception] = {}  # of what was posted, to be weighed

    async def write(self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]) -> list[int]:
        """Publish payloads in one pipeline; see Transport."""
        replies = await self._links[send_buffer.lane].request(self._commands(send_buffer, payloads))
        return await self._counts(send_buffer, payloads, replies)

    def write_nowait(
        self, send_buffer: SendBuffer, payloads: list[OutBatch], on_end: OnWritten
    ) -> bool:
        """Publish payloads here and now, if the lane's link is idle; see Transport."""

        def note(outcome: list[Any] | Exception) -> None:
            expected = [payload.stream.known for payload in payloads]
            if outcome == expected:  # as nearly always
                on_end(payloads, expected)
            else:
                self._outcomes[send_buffer.lane] = outcome
                on_end(payloads, None)

        return self._links[send_buffer.lane].post(self._commands(send_buffer, payloads), note)

    async def result_of_nowait(
        self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]
    ) -> list[int]:
        """Return how many processes got what was written; see Transport."""
        outcome = self._outcomes.pop(send_buffer.lane)
        if isinstance(outcome, Exception):
            raise outcome
        return await self._counts(send_buffer, payloads, outcome)

    def _commands(
        self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]
    ) -> list[tuple[bytes, bytes, bytes]]:
        lane, name = send_buffer.lane.value, self._names.lane
        return [
            (b"PUBLISH", name(lane, payload.stream.address), send_buffer.encode(payload))
            for payload in payloads
        ]

    async def _counts(
        self, send_buffer: SendBuffer, payloads: Sequence[OutBatch], replies: list[Any]
    ) -> list[int]:
        if replies == [payload.stream.known for payload in payloads]:
            return replies  # as nearly always: all that listen have granted credit
        if unsure := self._unsure(payloads, replies):
            now = time.monotonic()
            exact = await self._count(send_buffer, [stream.address for stream in unsure])
            for (stream, reply), count in zip(unsure.items(), exact, strict=True):
                stream.counted = (reply, count, now)
        return [
            self._receivers(payload.stream, reply)
            for payload, reply in zip(payloads, replies, strict=True)
        ]

    async def send_control(self, notes: Sequence[ControlFrame]) -> None:
        """Publish notes on control channels; see Transport."""
        await self._publish(notes)

    async def probe(
        self, send_buffer: SendBuffer, notes: Sequence[ControlFrame], addresses: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Publish notes and count subscribers; see Transport."""
        heard = await self._publish(notes) if notes else []
        return heard, await self._count(send_buffer, addresses)

    def is_tap_copy(self, address: str) -> bool:
        """Whether only followers hear what is sent there; see Transport."""
        return address.startswith(FOLLOWED)

    def backoff(self) -> Backoff:
        """Pauses; see Transport."""
        return Backoff()

    async def _publish(self, notes: Sequence[ControlFrame]) -> list[Any]:
        return await self._links[Lane.SYSTEM].request([
            (b"PUBLISH", self._names.control(process), note) for process, note in notes
        ])

    @staticmethod
    def _unsure(payloads: Sequence[OutBatch], replies: Sequence[Any]) -> dict[SendStream, int]:
        """Streams of which PUBLISH counted more, or fewer, than have granted credit."""
        unsure: dict[SendStream, int] = {}
        now = time.monotonic()
        for payload, reply in zip(payloads, replies, strict=True):
            stream = payload.stream
            if (
                isinstance(reply, int)
                and reply not in {0, stream.known}
                and not (stream.counted[0] == reply and now - stream.counted[2] < _RECOUNT_S)
            ):
                unsure[stream] = reply
        return unsure

    def _receivers(self, stream: SendStream, reply: Any) -> int:
        """Return how many processes got a payload: by PUBLISH, less those that only follow."""
        if not isinstance(reply, int):
            self._endpoint.complain(reply)
            return 0 if isinstance(reply, NoPermissionError) else REFUSED
        return reply if reply in {0, stream.known} else stream.counted[1]

    async def _count(self, send_buffer: SendBuffer, addresses: Sequence[str]) -> list[int]:
        """Return how many processes listen to each address; pbus listens to both lanes, strangers may not."""
        name = self._names.lane
        channels = [name(lane, address) for address in addresses for lane in ("d", "s")]
        link = self._links[send_buffer.lane]
        (reply,) = await link.request([(b"PUBSUB", b"NUMSUB", *channels)])
        found = dict(zip(reply[::2], reply[1::2], strict=True)) if isinstance(reply, list) else {}
        return [
            min(int(found.get(name(lane, address), 0)) for lane in ("d", "s"))
            for address in addresses
        ]
