"""The sending end of a direct socket: keeps payloads until the receiver has taken them."""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable

from pbus.bus.direct.direct_frames import ACK, HEADER, NO_BROADCASTS, REFUSED, Broadcasts
from pbus.bus.stream.send_stream import OutBatch
from pbus.concurrency.forks import hold_connection

MAX_UNACKED_BYTES = 4 * 1024 * 1024  # a receiver that is further behind is written to by the broker
_READ_BYTES = 4096


class OutboundLink:
    """One lane to one process.

    Args:
        connection: Connected, not blocking.
        sender: The incarnation of this process.
        on_end: Called once when the connection ends, for whatever reason.

    Attributes:
        unacked: Payloads that the receiver has not confirmed, oldest first.
        unacked_bytes: Their size.
        is_refused: The receiver has not the address of the oldest one.
        is_open: Whether the connection is there.
        is_welcome: Whether the receiver knows whose it is; before that it could not keep its order.
        last_used: When a payload was written last.
    """

    def __init__(
        self,
        connection: socket.socket,
        sender: str,
        on_end: Callable[["OutboundLink"], None],
    ) -> None:
        self.unacked: deque[OutBatch] = deque()
        self.unacked_bytes = 0
        self.is_refused = False
        self.is_open = True
        self.is_welcome = False
        self.last_used = time.monotonic()
        self._socket = connection
        self._on_end = on_end
        self._acked = 0
        self._unsent = bytearray()
        self._reply = bytearray()
        self._is_finishing = False
        self._ended = asyncio.Event()
        self._taken: asyncio.Future[None] | None = None  # resolved at a confirmation
        self._expected = 0  # payloads that are to be confirmed soon
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._read)
        hold_connection(self, lambda link: link)
        self._write(sender.encode(), NO_BROADCASTS)

    def get_extra_info(self, name: str) -> socket.socket | None:
        """The socket, as transports give it; forked children drop it."""
        return self._socket if name == "socket" else None

    @property
    def is_flushed(self) -> bool:
        """Whether the system has all that was written."""
        return not self._unsent

    def push(self, batch: OutBatch, payload: bytes, broadcasts: Broadcasts) -> None:
        """Write a payload, or keep what the system does not take; never waits.

        Args:
            batch: Of the payload; it is kept until it is confirmed.
            payload: The encoded batch.
            broadcasts: Those that the receiver waits for before it takes the payload.
        """
        self.unacked.append(batch)
        self.unacked_bytes += len(payload)
        if len(batch.lines) > 1:
            self._expected = self._acked + len(self.unacked)
        self.last_used = batch.created
        self._write(payload, broadcasts)

    async def until_taken(self) -> None:
        """Wait until the receiver has confirmed the last payload of several messages. Bound it.

        It does so as soon as it has read one. Returns at once where none is expected.
        """
        while self._acked < self._expected and self.is_open:
            self._taken = self._loop.create_future()
            await self._taken

    def expect_none(self) -> None:
        """Wait no longer for what is not confirmed: a receiver that hangs holds up no other."""
        self._expected = 0

    async def finish(self) -> None:
        """Say that nothing more comes, and wait for the receiver's last confirmation. Bound it."""
        self._is_finishing = True
        if not self._unsent:
            self._shut()
        await self._ended.wait()

    def cut(self) -> None:
        """End the connection now. Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._unsent.clear()
        self._ended.set()
        self._tell_taken()
        self._on_end(self)

    def _tell_taken(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None and not taken.done():
            taken.set_result(None)

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut()

    def _write(self, payload: bytes, broadcasts: Broadcasts) -> None:
        header = HEADER.pack(len(payload), *broadcasts)
        if self._unsent:
            self._unsent += header
            self._unsent += payload
            return
        try:
            sent = self._socket.sendmsg((header, payload))
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end()
            return
        if sent < len(header) + len(payload):
            self._unsent += (header + payload)[sent:]
            self._loop.add_writer(self._socket, self._flush)

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._socket)
            if self._is_finishing:
                self._shut()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._take_reply(self._receive())

    def _end(self) -> None:
        """The receiver has closed the connection: take its last words, which may be a refusal."""
        while self.is_open:
            try:
                self._take_reply(self._receive())
            except BlockingIOError:
                self.cut()

    def _take_reply(self, data: bytes) -> None:
        if not data:
            self.cut()
            return
        self._reply += data
        whole = len(self._reply) - len(self._reply) % ACK.size
        for (count,) in ACK.iter_unpack(self._reply[:whole]):
            self._take_ack(count)
        del self._reply[:whole]

    def _receive(self) -> bytes:
        for _ in range(2):  # an error is told first, where the other end left something unread
            with contextlib.suppress(ConnectionResetError):
                return self._socket.recv(_READ_BYTES)
        return b""

    def _take_ack(self, count: int) -> None:
        if count == REFUSED:
            self.is_refused = True
            self.cut()
            return
        self.is_welcome = True
        while self._acked < count and self.unacked:
            self._acked += 1
            self.unacked_bytes -= len(self.unacked.popleft().encoded or b"")
        self._tell_taken()
