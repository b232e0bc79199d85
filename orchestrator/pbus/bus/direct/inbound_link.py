"""The receiving end of a direct socket: splits what comes into frames, and confirms those taken."""

import asyncio
import enum
import socket
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pbus.bus.direct.direct_frames import ACK, HEADER, REFUSED, Broadcasts
from pbus.codec import Envelope
from pbus.concurrency.forks import hold_connection

_PIECE_BYTES = 256 * 1024
_TURN_BYTES = 1024 * 1024  # read in one turn; more than the system keeps for a socket
_ACK_FRAMES = 64
_ACK_BYTES = 128 * 1024
_ACK_LATE_S = 0.02  # the sender keeps a payload for so long
_MAX_NAME_BYTES = 256
_HOLD_S = 2.0  # then what should have come before, by the broker, counts as lost

_piece = memoryview(bytearray(_PIECE_BYTES))  # read into by all links; they read one after another


class Verdict(enum.Enum):
    """The fate of a frame."""

    TAKEN = enum.auto()
    HELD = enum.auto()
    REFUSED = enum.auto()


class Frame(NamedTuple):
    """A payload that was opened, and the broadcasts that go before it."""

    envelope: Envelope
    lines: list[bytes]
    broadcasts: Broadcasts


class FrameSink(Protocol):
    """The taker of frames; see DirectReceiver.

    Attributes:
        max_bytes: The largest payload.
    """

    max_bytes: int

    def welcome(self, link: "InboundLink") -> None:
        """Note whose a link is."""
        ...

    def open(self, link: "InboundLink", payload: bytes, broadcasts: Broadcasts) -> Frame | None:
        """Open a payload; None for one that was refused and counted."""
        ...

    def take(self, frame: Frame, *, is_overdue: bool) -> Verdict:
        """Deliver a frame, unless something that goes before it has not come."""
        ...


class InboundLink:
    """One lane from one process.

    Args:
        connection: Accepted, not blocking.
        sink: Takes the frames.
        on_end: Called once when the connection ends.

    Attributes:
        sender: The incarnation of the process at the other end; "" before its first frame, which
            names it.
    """

    def __init__(
        self,
        connection: socket.socket,
        sink: FrameSink,
        on_end: Callable[["InboundLink"], None],
    ) -> None:
        self.sender = ""
        self._socket = connection
        self._sink = sink
        self._on_end = on_end
        self._is_open = True
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # bytes until it can be split off
        self._held: Frame | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._is_busy = False  # messages come in numbers: their sender waits for confirmation
        self._taken = 0
        self._acked = 0
        self._bytes = 0  # taken since the last confirmation
        self._ack_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self.read)
        hold_connection(self, lambda link: link)

    def get_extra_info(self, name: str) -> socket.socket | None:
        """The socket, as transports give it; forked children drop it."""
        return self._socket if name == "socket" else None

    def read(self) -> None:
        """Take what is there, unless a frame is held."""
        left = _TURN_BYTES
        while self._is_open and self._held is None and left > 0:
            try:
                count = self._socket.recv_into(_piece)
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if count == 0:
                self.close()
                return
            left -= count
            if self._rest:
                self._rest += _piece[:count]
                self._split_rest()
            else:
                self._split(bytes(_piece[:count]))
            if self._is_busy:
                self._is_busy = False
                self._ack()
            if count < _PIECE_BYTES:
                return

    def retry(self) -> None:
        """Take the held frame, if there is one, and what came before it has arrived."""
        if self._held is not None:
            self._go_on(is_overdue=False)

    def close(self) -> None:
        """Confirm what was taken and end the connection. Idempotent."""
        if not self._is_open:
            return
        self._ack()
        self._is_open = False
        for timer in (self._ack_timer, self._overdue):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._held = None
        self._rest.clear()
        self._on_end(self)

    def _split_rest(self) -> None:
        if len(self._rest) >= self._needed:
            data = bytes(self._rest)
            self._rest.clear()
            self._split(data)

    def _split(self, data: bytes) -> None:
        at, size = 0, len(data)
        self._needed = 0
        while self._is_open and self._held is None and size - at >= HEADER.size:
            length, stream, number = HEADER.unpack_from(data, at)
            if length > self._sink.max_bytes:
                self.close()
                return
            begin, end = at + HEADER.size, at + HEADER.size + length
            if end > size:
                self._needed = end - at
                break
            at = end
            self._take(data[begin:end], Broadcasts(stream, number))
        if self._is_open:
            self._rest += data[at:]

    def _take(self, payload: bytes, broadcasts: Broadcasts) -> None:
        if not self.sender:
            self.sender = payload[:_MAX_NAME_BYTES].decode(errors="replace")
            self._sink.welcome(self)
            self._send(0)
            return
        frame = self._sink.open(self, payload, broadcasts)
        if frame is None:
            self._note_taken(len(payload))
            return
        self._held = frame
        self._is_busy |= len(frame.lines) > 1
        self._bytes += len(payload)
        self._settle(self._sink.take(frame, is_overdue=False))

    def _settle(self, verdict: Verdict) -> None:
        if verdict is Verdict.HELD:
            if self._overdue is None:
                self._loop.remove_reader(self._socket)
                self._overdue = self._loop.call_later(_HOLD_S, self._let_in)
            return
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
            self._loop.add_reader(self._socket, self.read)
        self._held = None
        if verdict is Verdict.REFUSED:
            self._ack()
            self._send(REFUSED)
            self.close()
        else:
            self._note_taken(0)

    def _let_in(self) -> None:
        self._go_on(is_overdue=True)

    def _go_on(self, *, is_overdue: bool) -> None:
        assert self._held is not None  # noqa: S101 - the callers have looked
        self._settle(self._sink.take(self._held, is_overdue=is_overdue))
        if self._held is None and self._rest:
            self._split_rest()

    def _note_taken(self, size: int) -> None:
        self._taken += 1
        self._bytes += size
        if self._taken - self._acked >= _ACK_FRAMES or self._bytes >= _ACK_BYTES:
            self._ack()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(_ACK_LATE_S, self._ack_late)

    def _ack_late(self) -> None:
        self._ack_timer = None
        self._ack()

    def _ack(self) -> None:
        if self._taken == self._acked:
            return
        if self._send(self._taken):
            self._acked, self._bytes = self._taken, 0
        elif self._is_open and self._ack_timer is None:
            self._ack_timer = self._loop.call_later(_ACK_LATE_S, self._ack_late)

    def _send(self, count: int) -> bool:
        """Write a count; False where the sender reads none: the next one says as much."""
        if not self._is_open:
            return False
        try:
            return self._socket.send(ACK.pack(count)) == ACK.size
        except OSError:
            return False
