"""Writing one lane: takes what the outbox gathered, publishes it in one pipeline, counts who got it."""

import asyncio
import logging
import time
from typing import Any

from pbus.bus.outbox import Outbox, OutStream, Payload
from pbus.bus.redis.endpoint import TROUBLE
from pbus.bus.redis.links import Backoff, RequestLink
from pbus.bus.redis.names import FOLLOWED, Names
from pbus.bus.switchboard import Counters

logger = logging.getLogger(__name__)

_GRACE_S = 3.0  # after a reconnection, receivers may still be on their way back
_RETRY_S = 0.05
_RECOUNT_S = 1.0


class Publisher:
    """The writing half of one lane.

    Args:
        outbox: What to write.
        link: Where.
        names: How channels are named.
        counters: Where undelivered messages are counted.
        give_up_s: A payload that the broker did not take for so long is counted as undelivered.
    """

    def __init__(
        self, outbox: Outbox, link: RequestLink, names: Names, counters: Counters, give_up_s: float
    ) -> None:
        self.outbox = outbox
        self.link = link
        self._names = names
        self._counters = counters
        self._give_up_s = give_up_s
        self._grace_until = 0.0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._write(await self.outbox.take())

    async def drain(self) -> None:
        """Wait until everything accepted is written. Bound it with a deadline."""
        await self.outbox.emptied.wait()

    async def _write(self, payloads: list[Payload]) -> None:
        backoff = Backoff()
        while payloads:
            lane = self.outbox.lane.value
            commands = [
                (
                    b"PUBLISH",
                    self._names.lane(lane, payload.stream.address),
                    self.outbox.encode(payload),
                )
                for payload in payloads
            ]
            try:
                replies = await self.link.request(commands)
                counts = await self._receivers(payloads, replies)
            except TROUBLE:
                self._grace_until = time.monotonic() + _GRACE_S
                payloads = self._give_up_old(payloads)
                await backoff.pause()
                continue
            payloads = self._settle(payloads, counts)
            if payloads:
                await asyncio.sleep(_RETRY_S)

    def _settle(self, payloads: list[Payload], counts: list[int]) -> list[Payload]:
        """Finish what was delivered; returns what is worth another try."""
        again = []
        in_grace = time.monotonic() < self._grace_until
        for payload, receivers in zip(payloads, counts, strict=True):
            if receivers == 0 and payload.lines:
                if in_grace and not payload.stream.address.startswith(FOLLOWED):
                    again.append(payload)
                    continue
                if not payload.stream.address.startswith(FOLLOWED):
                    self._counters.undelivered += len(payload.lines)
            self.outbox.written(payload, receivers)
        return again

    def _give_up_old(self, payloads: list[Payload]) -> list[Payload]:
        oldest = time.monotonic() - self._give_up_s
        keep = []
        for payload in payloads:
            if payload.created >= oldest:
                keep.append(payload)
                continue
            self._counters.undelivered += len(payload.lines)
            logger.warning(
                "%d messages to %r were given up: the broker was away for over %g s",
                len(payload.lines), payload.stream.address, self._give_up_s,
            )  # fmt: skip
            self.outbox.written(payload, 0)
        return keep

    async def _receivers(self, payloads: list[Payload], replies: list[Any]) -> list[int]:
        """How many processes got each payload: what PUBLISH said, less those who only follow."""
        unsure: dict[OutStream, int] = {}
        now = time.monotonic()
        for payload, reply in zip(payloads, replies, strict=True):
            stream = payload.stream
            if not isinstance(reply, int):
                logger.warning("publishing to %r was refused: %s", stream.address, reply)
            elif reply not in {0, stream.known} and not (
                stream.counted[0] == reply and now - stream.counted[2] < _RECOUNT_S
            ):
                unsure[stream] = reply
        if unsure:
            exact = await self.count([stream.address for stream in unsure])
            for (stream, reply), count in zip(unsure.items(), exact, strict=True):
                stream.counted = (reply, count, now)
        return [
            self._count(payload.stream, reply)
            for payload, reply in zip(payloads, replies, strict=True)
        ]

    @staticmethod
    def _count(stream: OutStream, reply: Any) -> int:
        if not isinstance(reply, int):
            return 0
        return reply if reply in {0, stream.known} else stream.counted[1]

    async def count(self, addresses: list[str]) -> list[int]:
        """How many processes listen to each address; pbus listens to both lanes, strangers may not."""
        channels = [self._names.lane(lane, address) for address in addresses for lane in ("d", "s")]
        (reply,) = await self.link.request([(b"PUBSUB", b"NUMSUB", *channels)])
        found = dict(zip(reply[::2], reply[1::2], strict=True)) if isinstance(reply, list) else {}
        return [
            min(int(found.get(self._names.lane(lane, address), 0)) for lane in ("d", "s"))
            for address in addresses
        ]
