"""The way to the other processes by direct sockets where there are some, by the broker otherwise."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from pbus.bus.coalescing import BROADCASTS, EVERYONE, NEWS
from pbus.bus.direct.direct_frames import NO_BROADCASTS, Broadcasts
from pbus.bus.direct.direct_routes import DirectRoutes
from pbus.bus.direct.outbound_link import OutboundLink
from pbus.bus.local.counters import Counters
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch
from pbus.bus.stream.transport import ControlFrame, OnWritten, Transport
from pbus.concurrency.backoff import Backoff
from pbus.messages import Lane

_TAKEN_S = 0.005  # for which a write to several waits for them to have read it
LARGE_BYTES = 1024 * 1024  # such a payload takes the broker, if nothing before it is on its way

Copy = Callable[[Lane, str, bytes], None]  # lane, address and payload, for followers


class DirectTransport:
    """A transport that uses direct sockets, and another one for everything else.

    A payload is kept until its receiver has confirmed it. When a connection ends, those that are
    not confirmed are published before anything else; receivers drop repeats by their numbers.

    Args:
        transport: By the broker.
        routes: Know which process an address belongs to, and the way there.
        counters: Count what reached no process.
        give_up_s: A payload that neither a socket nor the broker took for so long is given up.
        copy: Gives followers of the channel what passes the broker by.
    """

    def __init__(
        self,
        transport: Transport,
        routes: DirectRoutes,
        counters: Counters,
        give_up_s: float,
        copy: Copy,
    ) -> None:
        self.broker = transport.broker
        self.transient_errors = transport.transient_errors
        self.supports_nowait = transport.supports_nowait
        self._transport = transport
        self.routes = routes
        routes.on_end = self._note_end
        self._counters = counters
        self._give_up_s = give_up_s
        self._copy = copy
        self._buffers: Mapping[Lane, SendBuffer] = {}
        self._returned: dict[Lane, list[tuple[OutBatch, bool]]] = {lane: [] for lane in Lane}
        self._broadcasts = dict.fromkeys(Lane, NO_BROADCASTS)

    def start(self, buffers: Mapping[Lane, SendBuffer]) -> None:
        """Use sockets from now on, for what is written from these buffers."""
        self._buffers = buffers
        self.routes.start(buffers[Lane.DATA])

    async def finish(self) -> bool:
        """Have receivers confirm everything, and close. Bound it.

        Returns:
            Whether something is left to be published; a mark of its stream is in the queue.
        """
        await self.routes.finish()
        await asyncio.sleep(0)  # for the marks
        return any(self._returned.values())

    def end(self) -> None:
        """Close all connections and forget what is not published. Idempotent."""
        self.routes.end()
        for returned in self._returned.values():
            returned.clear()

    # What the writers call; see Transport

    async def write(self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]) -> list[int]:
        """Send payloads, each by its way; see Transport."""
        lane = send_buffer.lane
        rest = [one for one in payloads if not (one.is_handed_over or self._hand_over(lane, one))]
        if any(one.stream.address in BROADCASTS for one in rest):
            self.routes.cut_unflushed(lane)
        if not rest and not self._returned[lane]:
            await self._until_taken(lane, payloads)
            return [1] * len(payloads)
        published = await self._publish(send_buffer, rest)
        return [published.get(payload, 1) for payload in payloads]

    async def _until_taken(self, lane: Lane, payloads: Sequence[OutBatch]) -> None:
        """Wait a moment for receivers to have read: payloads grow meanwhile, and cost them less."""
        if lane is Lane.SYSTEM or len(payloads) == 1:
            return
        links = self.routes.of(Lane.DATA)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_S):
                for link in links:
                    await link.until_taken()
        for link in links:
            link.expect_none()

    async def _publish(
        self, send_buffer: SendBuffer, batches: list[OutBatch]
    ) -> dict[OutBatch, int]:
        """Publish batches, and before them what no socket has carried to its end."""
        lane = send_buffer.lane
        returned = self._due_again(lane)
        try:
            counts = await self._transport.write(
                send_buffer, [*(batch for batch, _ in returned), *batches]
            )
        except self.transient_errors:
            raise
        except Exception:
            self._returned[lane].clear()  # the others must not wait for these
            raise
        del self._returned[lane][: len(returned)]
        self._note_again(returned, counts)
        published = dict(zip(batches, counts[len(returned) :], strict=True))
        self.routes.note_published(lane, published)
        return published

    def write_nowait(
        self, send_buffer: SendBuffer, payloads: list[OutBatch], on_end: OnWritten
    ) -> bool:
        """Send payloads here and now, if all go one way; see Transport."""
        lane = send_buffer.lane
        if self._returned[lane] or len(payloads) != 1:
            return False
        if self._hand_over(lane, payloads[0]):
            on_end(payloads, [1])
            return True
        if payloads[0].stream.address in BROADCASTS:
            self.routes.cut_unflushed(lane)
            if self._returned[lane]:
                return False
        if lane is Lane.DATA:
            return self._transport.write_nowait(send_buffer, payloads, on_end)

        def note(written: list[OutBatch], counts: list[int] | None) -> None:
            if counts is not None:
                self.routes.note_published(lane, dict(zip(written, counts, strict=True)))
            on_end(written, counts)

        return self._transport.write_nowait(send_buffer, payloads, note)

    async def result_of_nowait(
        self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]
    ) -> list[int]:
        """Return the counts of what was posted to the broker; see Transport."""
        counts = await self._transport.result_of_nowait(send_buffer, payloads)
        self.routes.note_published(send_buffer.lane, dict(zip(payloads, counts, strict=True)))
        return counts

    async def send_control(self, notes: Sequence[ControlFrame]) -> None:
        """Send notes by the broker; see Transport."""
        await self._transport.send_control(notes)

    async def probe(
        self, send_buffer: SendBuffer, notes: Sequence[ControlFrame], addresses: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Probe by the broker; see Transport."""
        return await self._transport.probe(send_buffer, notes, addresses)

    def is_tap_copy(self, address: str) -> bool:
        """Whether only followers hear what is sent there; see Transport."""
        return self._transport.is_tap_copy(address)

    def backoff(self) -> Backoff:
        """Pauses; see Transport."""
        return self._transport.backoff()

    # Which way

    def _hand_over(self, lane: Lane, batch: OutBatch) -> bool:
        """Write a payload to its receiver's socket; False: the broker is its way."""
        stream = batch.stream
        if stream.address == EVERYONE:
            self._broadcasts[lane] = Broadcasts(stream.number, batch.first + len(batch.lines))
            return False
        if stream.address == NEWS:  # has as many receivers as want them, now or later
            return False
        broadcasts = self._broadcasts[lane]
        link = self.routes.find(lane, stream)
        is_large = batch.size > LARGE_BYTES and link is not None and link.is_flushed
        if link is None or is_large or self._returned[lane]:
            stream.broadcasts = broadcasts
            return False
        payload = self._buffers[lane].encode(batch)
        batch.is_handed_over = True
        # A receiver that has heard this stream from the broker has heard the broadcasts before it.
        link.push(batch, payload, NO_BROADCASTS if broadcasts == stream.broadcasts else broadcasts)
        if batch.lines:
            self._copy(lane, stream.address, payload)
        return True

    # What came of it

    def _note_end(self, lane: Lane, link: OutboundLink) -> None:
        """Publish again what was not confirmed, before anything else."""
        if not link.unacked:
            return
        self._returned[lane].extend((batch, link.is_refused) for batch in link.unacked)
        stream = link.unacked[0].stream
        queue = self._buffers[lane].queue
        asyncio.get_running_loop().call_soon(queue.append_watermark, stream)  # wakes the writer

    def _due_again(self, lane: Lane) -> list[tuple[OutBatch, bool]]:
        """Those to be published again; what is too old for that is given up."""
        oldest = time.monotonic() - self._give_up_s
        returned = self._returned[lane]
        while returned and returned[0][0].created < oldest:
            batch, _ = returned.pop(0)
            self._counters.note_undelivered(batch.stream.address, len(batch.lines))
        return list(returned)

    def _note_again(self, returned: list[tuple[OutBatch, bool]], counts: Sequence[int]) -> None:
        """Count what its receiver had refused, and no other has taken."""
        for (batch, was_refused), count in zip(returned, counts, strict=False):
            if was_refused and count == 0:
                self._counters.note_undelivered(batch.stream.address, len(batch.lines))
