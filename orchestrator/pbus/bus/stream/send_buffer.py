"""The sending side of a transport: a bounded buffer that gathers messages into payloads.

One send_buffer a lane. Messages wait here while the previous write is under way, so an idle bus sends
at once and a busy one sends full payloads. Streams with credit hold their senders back instead of
drowning a receiver.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

from pbus.bus.coalescing import EVERYONE
from pbus.codec import FORMAT_VERSION, Envelope, encode_payload
from pbus.errors import BusFullError
from pbus.messages import Lane
from pbus.seal import NO_SEAL, Seal

MAX_PAYLOAD_BYTES = 256 * 1024  # coalesced; a single larger message travels alone
MAX_BUFFER_BYTES = 4 * 1024 * 1024  # a lane; senders wait above it
MAX_WRITE_BYTES = 1024 * 1024  # a pipeline; keeps the time between two writes short
INITIAL_CREDIT_BYTES = 256 * 1024  # before a receiver has granted more
YIELD_BYTES = 64 * 1024  # a sender in a tight loop lets the flusher in after so much
FAIR_PAYLOAD_BYTES = 64 * 1024  # a smaller one costs its receiver more than what it carries
GATHER_S = 0.004  # for which a busy bus lets payloads grow
_MAX_RECEIVERS = 4096  # that grant credit to one stream; grants of further ones are not kept
_UNKNOWN = ""  # stands for receivers that were counted and have not granted yet
_IDLE_S = 60.0  # an idle stream without receivers is forgotten


class SendStream:
    """The messages that one process sends to one address in one lane, numbered from 1.

    Attributes:
        number: Tells this stream from others of the process.
        position: Bytes accepted so far; those of the receivers are on the same scale.
        counted: What PUBLISH said, how many of it were ours, and when we asked.
        expected: How many processes listen, the dead included that still have a connection.
        is_complete: Whether all who have a right to listen have granted credit.
    """

    __slots__ = (
        "_consumed", "_dead", "_limit", "_receivers", "address", "counted", "expected", "is_complete", "last_used",
        "marked", "next_number", "number", "position", "waiters",
    )  # fmt: skip

    def __init__(self, address: str, number: int) -> None:
        self.address = address
        self.number = number
        self.next_number = 1
        self.marked = 1
        self.position = 0
        self.expected = 0
        self.is_complete = False
        self.counted = (-1, 0, 0.0)
        self.waiters: deque[tuple[asyncio.Future[None], bytes]] = deque()
        self.last_used = time.monotonic()
        self._receivers: dict[str, tuple[int, int]] = {}  # incarnation: (consumed, limit)
        self._dead: set[str] = (
            set()
        )  # incarnations that are over, even where their connections stay
        self._consumed = 0  # of the receiver that is furthest behind
        self._limit = INITIAL_CREDIT_BYTES  # of the receiver with the least room

    @property
    def known(self) -> int:
        """The number of receivers that have granted credit."""
        return len(self._receivers) - (_UNKNOWN in self._receivers)

    def receivers(self) -> list[str]:
        """The incarnations of those that have granted credit."""
        return [receiver for receiver in self._receivers if receiver != _UNKNOWN]

    def has_credit(self, size: int) -> bool:
        """Whether every receiver has room for so many bytes, or has nothing left to do."""
        return self.position + size <= self._limit or self._consumed >= self.position

    def grant(self, receiver: str, consumed: int, limit: int) -> None:
        """A receiver has handled so many bytes and has room up to a limit."""
        self._dead.discard(receiver)
        if receiver in self._receivers or len(self._receivers) < _MAX_RECEIVERS:
            self._receivers[receiver] = (consumed, limit)
            self._refresh()

    def drop(self, receiver: str) -> None:
        """A receiver is gone."""
        self._receivers.pop(receiver, None)
        self._refresh()

    def mark_dead(self, receiver: str) -> None:
        """A receiver's incarnation is over, though the broker may still count it."""
        self._dead.add(receiver)
        self.drop(receiver)

    @property
    def is_unsure(self) -> bool:
        """Whether a receiver listens that has not granted credit yet."""
        return _UNKNOWN in self._receivers

    def set_receiver_count(self, count: int, position: int | None = None) -> None:
        """So many processes listen; those not heard yet have handled what came before position.

        Without a position they are taken to be as far behind as the slowest of the others.
        """
        self.expected = count
        if count == 0:
            self._receivers.clear()
            self._begin_again(self.position)
        elif self._living > self.known and _UNKNOWN not in self._receivers:
            self._begin_again(self._consumed if position is None else position)
        self._refresh()

    def _begin_again(self, position: int) -> None:
        self._receivers[_UNKNOWN] = (position, position + INITIAL_CREDIT_BYTES)

    @property
    def _living(self) -> int:
        """The number of expected receivers that can grant credit."""
        most = 0 if self.is_complete else self.expected - len(self._dead)
        return max(self.known, most)

    def _refresh(self) -> None:
        if self.known and self.known >= self._living:
            self._receivers.pop(_UNKNOWN, None)
        if not self._receivers:
            self._begin_again(self.position)
        self._consumed = min(consumed for consumed, _ in self._receivers.values())
        self._limit = min(limit for _, limit in self._receivers.values())


class OutBatch:
    """Messages of one stream on their way out."""

    __slots__ = ("created", "encoded", "first", "lines", "position", "size", "stream")

    def __init__(self, stream: SendStream) -> None:
        self.stream = stream
        self.first = stream.next_number
        self.position = stream.position
        self.lines: list[bytes] = []
        self.size = 0
        self.created = time.monotonic()
        self.encoded: bytes | None = None


class SendBuffer:
    """The buffer of one lane.

    Args:
        lane: Which.
        sender: This process's incarnation.
        has_flow: Whether receivers grant credit (data), or messages always go (system).
        send_timeout: Seconds a put waits for room.
        seal: Of the channel.

    Attributes:
        on_ready: Called with what comes while next_batches() waits, here and now; returns whether it is under way,
            until end() is called. Not while messages come in numbers: then they go together.
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
        self._ready: deque[OutBatch] = deque()
        self._open: dict[str, OutBatch] = {}  # payloads that may still grow, by address
        self._bytes = 0  # accepted and not yet written
        self._yield_at = YIELD_BYTES
        self._flusher: asyncio.Future[None] | None = None
        self._is_begun = False  # something was begun and has not ended
        self._returned: list[OutBatch] = []  # what was begun, or should have been, to be taken
        self._is_quiet = True  # what was taken last was one message
        self.on_ready: Callable[[list[OutBatch]], bool] | None = None
        self._blocked: dict[str, SendStream] = {}
        self.blocking = asyncio.Event()  # set when a sender begins to wait
        self.emptied = asyncio.Event()  # set while nothing waits for the broker
        self.emptied.set()

    def blocked(self) -> list[SendStream]:
        """Streams whose senders wait."""
        return list(self._blocked.values())

    async def put(self, address: str, line: bytes) -> None:
        """Accept one message, waiting in turn for room and credit.

        Raises:
            BusFullError: There was none within the send timeout.
        """
        stream = self._streams.get(address) or self._new_stream(address)
        if stream.waiters or not self._has_room(stream, len(line)):
            await self._wait(stream, line)
            return
        self._append(stream, line)
        if self._bytes > self._yield_at:
            self._yield_at = self._bytes + YIELD_BYTES
            await asyncio.sleep(0)

    def put_nowait(self, address: str, line: bytes) -> bool:
        """Accept one message unless that needs a wait or a yield; returns False then: put() it."""
        stream = self._streams.get(address)
        if stream is None or stream.waiters or self._bytes > self._yield_at:
            return False
        if self._has_flow and not stream.has_credit(len(line) + 1):
            return False
        if self._bytes and self._bytes + len(line) >= MAX_BUFFER_BYTES:
            return False
        self._append(stream, line)
        return True

    async def next_batches(self) -> list[OutBatch]:
        """Return what is to be written next, in order; wait until there is something."""
        if self._ready and self._has_flow:
            await self._gather()
        while self._is_begun or not (self._ready or self._returned):
            self._flusher = asyncio.get_running_loop().create_future()
            await self._flusher
        if self._returned:
            returned, self._returned = self._returned, []
            return returned
        return self.take_nowait()

    def write_done(self, again: list[OutBatch]) -> None:
        """End what was begun, apart from these batches: next_batches() returns them next."""
        self._is_begun = False
        self._returned = again
        if again or self._ready:
            self._call_flusher()

    async def _gather(self) -> None:
        """Senders kept up with the last write: let small payloads grow while they go on."""
        now = asyncio.get_running_loop().time
        gives_up_at = now() + GATHER_S
        before = 0
        while before < self._bytes < len(self._ready) * FAIR_PAYLOAD_BYTES and now() < gives_up_at:
            before = self._bytes
            await asyncio.sleep(0)

    def take_nowait(self) -> list[OutBatch]:
        """As take(), perhaps nothing; at most MAX_WRITE_BYTES (or one payload)."""
        taken: list[OutBatch] = []
        size = 0
        while self._ready and (not taken or size + self._ready[0].size <= MAX_WRITE_BYTES):
            payload = self._ready.popleft()
            size += payload.size
            taken.append(payload)
        if self._ready:
            for payload in taken:  # the open ones are the last of their address: still in the line
                if self._open.get(payload.stream.address) is payload:
                    del self._open[payload.stream.address]
        else:
            self._open.clear()
        self._is_quiet = len(taken) == 1 and len(taken[0].lines) <= 1
        self._yield_at = YIELD_BYTES
        return taken

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
        self._bytes -= payload.size
        if self._bytes == 0:
            self.emptied.set()
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
            self._mark(stream)
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
            self._append(stream, line)
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
                self._mark(stream)
            elif now - stream.last_used > _IDLE_S:
                del self._streams[stream.address]

    def _mark(self, stream: SendStream) -> None:
        stream.marked = stream.next_number
        self._ready.append(OutBatch(stream))
        self._wake_flusher()

    def _new_stream(self, address: str) -> SendStream:
        self._numbers += 1
        stream = self._streams[address] = SendStream(address, self._numbers)
        return stream

    def _has_room(self, stream: SendStream, length: int) -> bool:
        size = length + 1
        if self._bytes and self._bytes + size > MAX_BUFFER_BYTES:
            return False
        return not self._has_flow or stream.has_credit(size)

    def _append(self, stream: SendStream, line: bytes) -> None:
        size = len(line) + 1
        payload = self._open.get(stream.address)
        if payload is None or payload.size + size > MAX_PAYLOAD_BYTES:
            payload = self._open_payload(stream)
        payload.lines.append(line)
        payload.size += size
        stream.next_number += 1
        stream.position += size
        if self._bytes == 0:
            self.emptied.clear()
        self._bytes += size
        if self._flusher is not None:
            self._wake_flusher()

    def _open_payload(self, stream: SendStream) -> OutBatch:
        """A new payload that later messages to the same address join.

        A broadcast closes targeted ones, and they close it: what a process is sent keeps its order.
        """
        address = stream.address
        if address == EVERYONE:
            self._open.clear()
        else:
            self._open.pop(EVERYONE, None)
        payload = self._open[address] = OutBatch(stream)
        stream.last_used = payload.created
        self._ready.append(payload)
        return payload

    def _wake_flusher(self) -> None:
        flusher = self._flusher
        if self._is_begun or flusher is None or flusher.done():
            return
        if self._is_quiet and self.on_ready is not None and not self._returned:
            payloads = self.take_nowait()
            self._is_begun = self.on_ready(payloads)
            if self._is_begun:
                return
            self._returned = payloads
        self._call_flusher()

    def _call_flusher(self) -> None:
        flusher, self._flusher = self._flusher, None
        if flusher is not None and not flusher.done():
            flusher.set_result(None)

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
        return f"{self._bytes:,} bytes wait for the broker"
