"""The receiving side of a transport: notices gaps, drops repeats, grants credit."""

import logging
import time
from typing import Protocol, TypeAlias

from pbus.bus.coalescing import BROADCASTS
from pbus.bus.local.delivery import UnstoredDelivery
from pbus.codec import Envelope, decode_payload
from pbus.errors import MessageDecodeError
from pbus.messages import Lane

logger = logging.getLogger(__name__)

BUDGET_BYTES = 6 * 1024 * 1024  # unhandled data of all senders; Redis cuts off at 8 MiB for 60 s
MAX_SHARE_BYTES = 1024 * 1024
MIN_SHARE_BYTES = 64 * 1024
BROADCAST_CREDIT_BYTES = 64 * 1024  # well below what senders may send before any credit
MAX_URGENT_BYTES = 64 * 1024 * 1024  # unhandled; a handler of urgent messages must hang for that
_ACTIVE_S = 10.0  # a sender heard within so long has a share of the budget
_FORGET_S = 600.0  # a stream silent for so long is forgotten
_MAX_STREAMS = 10_000  # some 5 MB; more senders than one process can serve
_KEY = tuple[str, str, str]  # sender, address, lane


class Sink(Protocol):
    """The bus of a receiver."""

    def deliver(
        self,
        sender: str,
        address: str,
        lane: Lane,
        lines: list[bytes],
        completion: "Completion",
    ) -> int:
        """Put messages into mailboxes; returns how many times the completion will be told."""
        ...

    def lost(self, sender: str, address: str, count: int) -> None:
        """Messages went missing."""
        ...

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender how far it may go."""
        ...


class DirectLinks(Protocol):
    """The direct sockets of other processes, which are read in turn with the broker."""

    def drain(self, sender: str) -> None:
        """Take what a sender has written so far."""
        ...

    def retry(self, sender: str) -> None:
        """Take what waited for a payload that has come."""
        ...


class ReceiveStream:
    """The messages that one process sends us at one address in one lane."""

    __slots__ = (
        "address", "end", "granted", "heard", "is_wanted", "next_number", "number", "outstanding",
        "sender",
    )  # fmt: skip

    def __init__(self, envelope: Envelope) -> None:
        self.sender = envelope.sender
        self.address = envelope.address
        self.number = envelope.stream
        self.next_number = envelope.first
        self.end = envelope.position  # bytes received
        self.outstanding = 0  # bytes received and not yet handled
        self.granted = -1  # bytes handled when we last granted
        self.is_wanted = False  # the sender waits: grant as soon as anything is handled
        self.heard = 0.0


class BatchCompletion(UnstoredDelivery):
    """Counts the messages of one payload until all are handled.

    Attributes:
        size: Of the payload, in bytes.
        left: How many times it will still be told.
    """

    __slots__ = ("_receiver", "_stream", "left", "size")

    def __init__(self, receiver: "StreamReceiver", stream: ReceiveStream, size: int) -> None:
        self._receiver = receiver
        self._stream = stream
        self.size = size
        self.left = 0

    def done(self) -> None:
        """One more is handled."""
        self.left -= 1
        if self.left == 0:
            self._receiver.consumed(self._stream, self.size)


class UrgentCompletion(UnstoredDelivery):
    """Counts the bytes of one urgent payload until it is handled; see BatchCompletion."""

    __slots__ = ("_receiver", "_size", "left")

    def __init__(self, receiver: "StreamReceiver", size: int) -> None:
        self._receiver = receiver
        self._size = size
        self.left = 0

    def done(self) -> None:
        """One more is handled."""
        self.left -= 1
        if self.left == 0:
            self._receiver.urgent_bytes -= self._size


Completion: TypeAlias = BatchCompletion | UrgentCompletion


class StreamReceiver:
    """All streams that reach this process.

    Attributes:
        urgent_bytes: Of urgent messages that are not handled yet; they need no credit.
        links: Direct sockets, where there are some.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._streams: dict[_KEY, ReceiveStream] = {}
        self._share = MAX_SHARE_BYTES
        self.urgent_bytes = 0
        self.links: DirectLinks | None = None

    def receive(self, payload: bytes, *, limit: int) -> None:
        """Take one payload of at most `limit` bytes from the transport.

        Raises:
            MessageDecodeError: It is none of ours.
        """
        if len(payload) > limit:
            raise MessageDecodeError(f"a payload of {len(payload):,} bytes, over max_message_bytes")
        envelope, lines = decode_payload(payload)
        if self.links is None:
            self.take(envelope, lines)
            return
        self.links.drain(envelope.sender)
        self.take(envelope, lines)
        self.links.retry(envelope.sender)

    def take(self, envelope: Envelope, lines: list[bytes]) -> None:
        """Take the messages of one payload.

        Raises:
            MessageDecodeError: There is no room for its sender.
        """
        stream = self._stream(envelope)
        if stream is None:
            return
        stream.heard = time.monotonic()
        size = _size_of(lines)
        gap = envelope.first - stream.next_number
        if gap > 0:
            self._sink.lost(envelope.sender, envelope.address, gap)
        elif gap < 0:  # sent again after a reconnection: we have some of it
            lines = lines[-gap:]
        stream.next_number = max(stream.next_number, envelope.first + envelope.count)
        stream.end = max(stream.end, envelope.position + size)
        lane = envelope.lane
        if lines:
            self._deliver(stream, lane, lines, size if gap >= 0 else _size_of(lines))
        if lane is Lane.DATA and (gap > 0 or self._is_due_first(stream)):
            self._grant(stream)  # the sender knows us now, and waits for nothing that is lost

    @staticmethod
    def _is_due_first(stream: ReceiveStream) -> bool:
        """Whether to grant a sender credit that has none; few broadcasts need none, from any number."""
        return stream.granted < 0 and (
            stream.address not in BROADCASTS or stream.end >= BROADCAST_CREDIT_BYTES
        )

    def has_come(
        self, sender: str, address: str, lane: Lane, number: int, next_number: int
    ) -> bool:
        """Whether a stream, or a later one of its sender, has come up to a message."""
        stream = self._streams.get((sender, address, lane))
        if stream is None or stream.number != number:
            return stream is not None and stream.number > number
        return stream.next_number >= next_number

    def consumed(self, stream: ReceiveStream, size: int) -> None:
        """A payload of so many bytes has been handled."""
        stream.outstanding -= size
        done = stream.end - stream.outstanding
        is_due = done - stream.granted >= self._share // 4
        if is_due or (stream.is_wanted and done > stream.granted):
            self._grant(stream)

    def probe(self, sender: str, address: str, number: int) -> bool:
        """A sender waits for credit and asks how far it may go; False: we do not know the stream."""
        stream = self._streams.get((sender, address, Lane.DATA.value))
        if stream is None or stream.number != number:
            return False
        stream.is_wanted = stream.outstanding > 0
        self._grant(stream, is_wanted=stream.is_wanted)
        return True

    def leave(self, address: str) -> None:
        """We no longer listen at an address: its senders need not wait for us."""
        for key, stream in list(self._streams.items()):
            if stream.address == address:
                del self._streams[key]
                self._sink.grant(stream.sender, address, stream.number, 0, -1)

    def tidy(self) -> None:
        """Share the budget among senders heard lately; forget streams silent for long."""
        now = time.monotonic()
        active = 0
        for key, stream in list(self._streams.items()):
            if now - stream.heard < _ACTIVE_S:
                active += 1
            elif now - stream.heard > _FORGET_S and not stream.outstanding:
                del self._streams[key]
        share = BUDGET_BYTES // max(1, active)
        self._share = max(MIN_SHARE_BYTES, min(MAX_SHARE_BYTES, share))

    def _stream(self, envelope: Envelope) -> ReceiveStream | None:
        """The stream a payload belongs to; None for one that its sender has given up."""
        key = (envelope.sender, envelope.address, envelope.lane)
        held = self._streams.get(key)
        if held is not None and held.number == envelope.stream:
            return held
        if held is not None and held.number > envelope.stream:
            return None
        if held is None and len(self._streams) >= _MAX_STREAMS:
            self._make_room(envelope)
        stream = self._streams[key] = ReceiveStream(envelope)
        if held is not None:
            stream.next_number = 1  # we were listening when it began: a gap shows
        return stream

    def _make_room(self, envelope: Envelope) -> None:
        """Forget the streams that were silent longest; a gap in those goes unnoticed.

        Raises:
            MessageDecodeError: All streams have messages that are not handled yet.
        """
        idle = [(s.heard, key) for key, s in self._streams.items() if not s.outstanding]
        if not idle:
            raise MessageDecodeError(
                f"{len(self._streams):,} senders have messages here that are not handled yet;"
                f" those of {envelope.sender!r} to {envelope.address!r} are refused"
            )
        idle.sort()
        for _, key in idle[: max(1, _MAX_STREAMS // 4)]:
            del self._streams[key]
        logger.warning(
            "over %d senders wrote to this process, the last is %r (to %r):"
            " %d that were silent longest are forgotten",
            _MAX_STREAMS, envelope.sender, envelope.address, min(len(idle), _MAX_STREAMS // 4),
        )  # fmt: skip

    def _deliver(self, stream: ReceiveStream, lane: Lane, lines: list[bytes], size: int) -> None:
        if lane is Lane.SYSTEM:
            self._deliver_urgent(stream, lines, size)
            return
        completion = BatchCompletion(self, stream, size)
        stream.outstanding += size
        completion.left = self._sink.deliver(stream.sender, stream.address, lane, lines, completion)
        if completion.left == 0:
            stream.outstanding -= size

    def _deliver_urgent(self, stream: ReceiveStream, lines: list[bytes], size: int) -> None:
        if self.urgent_bytes and self.urgent_bytes + size > MAX_URGENT_BYTES:
            self._sink.lost(
                f"{stream.sender}, for which there is no room,", stream.address, len(lines)
            )
            return
        completion = UrgentCompletion(self, size)
        self.urgent_bytes += size
        completion.left = self._sink.deliver(
            stream.sender, stream.address, Lane.SYSTEM, lines, completion
        )
        if completion.left == 0:
            self.urgent_bytes -= size

    def _grant(self, stream: ReceiveStream, *, is_wanted: bool = False) -> None:
        stream.is_wanted = is_wanted
        stream.granted = stream.end - stream.outstanding
        self._sink.grant(
            stream.sender,
            stream.address,
            stream.number,
            stream.granted,
            stream.granted + self._share,
        )


def _size_of(lines: list[bytes]) -> int:
    """The bytes of messages, one a line."""
    return sum(map(len, lines)) + len(lines)
