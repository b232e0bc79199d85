"""The sending side of a transport: a bounded buffer that gathers messages into payloads.

One send_buffer a lane. Messages wait here while the previous write is under way, so an idle bus sends
at once and a busy one sends full payloads. Streams with credit hold their senders back instead of
drowning a receiver.
"""

import asyncio
import time
from collections.abc import Iterable

from pbus.bus.stream.send_stream import OutBatch, SendStream
from pbus.bus.stream.write_queue import YIELD_BYTES, WriteQueue
from pbus.codec import FORMAT_VERSION, Envelope, encode_payload
from pbus.errors import BusFullError
from pbus.messages import Lane
from pbus.seal import NO_SEAL, Seal

MAX_BUFFER_BYTES = 4 * 1024 * 1024  # a lane; senders wait above it
_IDLE_S = 60.0  # an idle stream without receivers is forgotten


class SendBuffer:
    """The buffer of one lane.

    Args:
        lane: Which.
        sender: This process's incarnation.
        has_flow: Whether receivers grant credit (data), or messages always go (system).
        send_timeout: Seconds a put waits for room.
        seal: Of the channel.

    Attributes:
        queue: The batches that wait to be written.
        blocking: Set when a sender begins to wait.
    """

    def __init__(
        self,
        lane: Lane,
        sender: str,
        *,
        has_flow: bool,
        send_timeout: float,
        seal: Seal = NO_SEAL,
    ) -> None:
        self.lane = lane
        self._seal = seal
        self._sender = sender
        self._has_flow = has_flow
        self._send_timeout = send_timeout
        self._streams: dict[str, SendStream] = {}
        self._numbers = 0
        self.queue = WriteQueue(gathers=has_flow)
        self._blocked: dict[str, SendStream] = {}
        self.blocking = asyncio.Event()  # set when a sender begins to wait

    def blocked(self) -> list[SendStream]:
        """Streams whose senders wait."""
        return list(self._blocked.values())

    def stream(self, address: str) -> SendStream | None:
        """The stream to an address, if anything was sent there lately."""
        return self._streams.get(address)

    async def put(self, address: str, line: bytes) -> None:
        """Accept one message, waiting in turn for room and credit.

        Raises:
            BusFullError: There was none within the send timeout.
        """
        stream = self._streams.get(address) or self._new_stream(address)
        if stream.waiters or not self._has_room(stream, len(line)):
            await self._wait(stream, line)
            return
        self.queue.append(stream, line)
        if self.queue.bytes > self.queue.yield_at:
            self.queue.yield_at = self.queue.bytes + YIELD_BYTES
            await asyncio.sleep(0)

    def put_nowait(self, address: str, line: bytes) -> bool:
        """Accept one message unless that needs a wait or a yield; returns False then: put() it."""
        stream, queue = self._streams.get(address), self.queue
        if stream is None or stream.waiters or queue.bytes > queue.yield_at:
            return False
        size = len(line) + 1
        if stream.position + size > stream.limit and self._has_flow and not stream.has_credit(size):
            return False
        if queue.bytes + size > MAX_BUFFER_BYTES and queue.bytes:
            return False
        queue.append(stream, line)
        return True

    def encode(self, payload: OutBatch) -> bytes:
        """The bytes of a payload that was taken; the same again when it is written again."""
        if payload.encoded is None:
            stream = payload.stream
            envelope = Envelope(
                FORMAT_VERSION, self._sender, stream.number, self.lane, stream.address,
                payload.first, len(payload.lines), payload.position,
            )  # fmt: skip
            plain = encode_payload(envelope, payload.lines)
            payload.encoded = self._seal.close("payload", plain)
        return payload.encoded

    def written(self, payload: OutBatch, receivers: int) -> None:
        """A payload was written (or given up): make room; `receivers` processes got it."""
        self.queue.written(payload)
        stream = payload.stream
        if payload.lines and self._has_flow and (receivers != stream.expected or receivers == 0):
            stream.set_receiver_count(receivers, payload.position)
        if self._blocked:
            for blocked in self.blocked():
                self.wake(blocked)

    def grant(self, receiver: str, address: str, number: int, consumed: int, limit: int) -> None:
        """A receiver took so many bytes of a stream and has room up to `limit`; -1: it left."""
        stream = self._streams.get(address)
        if stream is None or stream.number != number:
            return
        if limit < 0:
            stream.drop(receiver)
        else:
            stream.grant(receiver, consumed, limit)
        self.wake(stream)

    def set_receiver_count(self, stream: SendStream, receivers: int) -> None:
        """The broker says that so many processes listen to the stream's address.

        Those that have granted no credit yet are asked to, with a mark: it needs none.
        """
        stream.set_receiver_count(receivers)
        if stream.is_unsure:
            self.queue.append_watermark(stream)
        self.wake(stream)

    def forget(self, stream: SendStream, receiver: str) -> None:
        """A receiver is gone."""
        stream.drop(receiver)
        self.wake(stream)

    def set_live_receivers(
        self, stream: SendStream, dead: Iterable[str], holder: str | None
    ) -> None:
        """Wait for the credit of no incarnation that is over, nor of strangers.

        Args:
            stream: Whose senders wait.
            dead: Receivers whose incarnation is over.
            holder: The process that has the address by right, where that is known.
        """
        for receiver in dead:
            stream.mark_dead(receiver)
        stream.is_complete = holder is not None and holder in stream.receivers()
        stream.set_receiver_count(stream.expected)
        self.wake(stream)

    def wake(self, stream: SendStream) -> None:
        """Accept what waits, in order, as far as there is room now."""
        while stream.waiters:
            turn, line = stream.waiters[0]
            if turn.done():
                stream.waiters.popleft()
                continue
            if not self._has_room(stream, len(line)):
                return
            stream.waiters.popleft()
            self.queue.append(stream, line)
            turn.set_result(None)
        self._blocked.pop(stream.address, None)

    def send_watermarks(self) -> None:
        """Tell receivers how far each stream has come, so that the loss of its end shows too.

        Where senders wait, again and again: a receiver may have missed what it is to grant credit for.
        Call it now and then; streams without receivers are forgotten here.
        """
        now = time.monotonic()
        for stream in list(self._streams.values()):
            if stream.marked != stream.next_number or stream.waiters:
                self.queue.append_watermark(stream)
            elif now - stream.last_used > _IDLE_S:
                del self._streams[stream.address]

    def _new_stream(self, address: str) -> SendStream:
        self._numbers += 1
        stream = self._streams[address] = SendStream(address, self._numbers)
        return stream

    def _has_room(self, stream: SendStream, length: int) -> bool:
        size = length + 1
        if self.queue.bytes and self.queue.bytes + size > MAX_BUFFER_BYTES:
            return False
        return not self._has_flow or stream.has_credit(size)

    async def _wait(self, stream: SendStream, line: bytes) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, line)
        stream.waiters.append(entry)
        self._blocked[stream.address] = stream
        self.blocking.set()
        try:
            async with asyncio.timeout(self._send_timeout):
                await turn
        except TimeoutError:
            raise BusFullError(
                repr(stream.address), self._send_timeout, self._why_full(stream, len(line))
            ) from None
        finally:
            if entry in stream.waiters:
                stream.waiters.remove(entry)
                self.wake(stream)

    def _why_full(self, stream: SendStream, length: int) -> str:
        if self._has_flow and not stream.has_credit(length + 1):
            return "the receiver does not keep up"
        return f"{self.queue.bytes:,} bytes wait for the broker"
