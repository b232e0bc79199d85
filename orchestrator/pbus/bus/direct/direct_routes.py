"""Routes to other processes: the owner of an address, and the socket there."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from pbus.bus.claims import Presence
from pbus.bus.direct.host_sockets import connect, socket_name
from pbus.bus.direct.outbound_link import MAX_UNACKED_BYTES, OutboundLink
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch, SendStream
from pbus.messages import Lane

logger = logging.getLogger(__name__)

MAX_OUTBOUND = 128  # connections; further processes are written to by the broker
_IDLE_S = 60.0
_ABSENT_S = 30.0  # a process that is not on this host is tried again
_MOST_FORMER = 4  # receivers of one address that are looked for
_AGAIN_S = 1.0  # likewise after a connection ended


class DirectRoutes:
    """The connections to other processes, made on first use and closed when idle.

    A stream takes a socket once its receiver has had something of it from the broker: then the
    receiver knows what to wait for. That is so when it granted credit (data), or when the broker
    told that one process took it, and the registry which (urgent).

    Args:
        channel: Of the bus.
        sender: The incarnation of this process.
        presences: Registries of this process: they know who has an address.

    Attributes:
        links: By receiver and lane.
        on_end: Called with each connection that ended, and its lane.
    """

    def __init__(self, channel: str, sender: str, presences: Sequence[Presence]) -> None:
        self.links: dict[tuple[str, Lane], OutboundLink] = {}
        self.on_end: Callable[[Lane, OutboundLink], None] = lambda _lane, _link: None
        self._channel = channel
        self._sender = sender
        self._presences = presences
        self._data: SendBuffer | None = None  # has the credit; None: no socket is used
        self._retry_at: dict[str, float] = {}  # of processes that were not there, or went away
        self._absent: set[str] = set()  # those of them that did not listen
        self._urgent: dict[str, tuple[int, str]] = {}  # what the broker took: stream, receiver

    def start(self, data: SendBuffer) -> None:
        """Use sockets from now on; the buffer of the data lane knows who granted credit."""
        self._data = data

    async def finish(self) -> None:
        """Use no socket any more, and have receivers confirm what was written. Bound it."""
        self._data = None
        await asyncio.gather(*(link.finish() for link in list(self.links.values())))

    def end(self) -> None:
        """Use no socket any more. Idempotent."""
        self._data = None
        self.cut()

    def cut(self) -> None:
        """Close all connections; what is not confirmed is published."""
        for link in list(self.links.values()):
            link.cut()

    def of(self, lane: Lane) -> list[OutboundLink]:
        """The connections of a lane."""
        return [link for (_, other), link in self.links.items() if other is lane]

    def cut_unflushed(self, lane: Lane) -> None:
        """Before a broadcast: what the receiver could not find in its socket is published first."""
        for link in self.of(lane):
            if not link.is_flushed:
                link.cut()

    def tidy(self) -> None:
        """Close what is not used; to be called now and then."""
        now = time.monotonic()
        for link in list(self.links.values()):
            if not link.unacked and now - link.last_used > _IDLE_S:
                link.cut()
        self._retry_at = {who: at for who, at in self._retry_at.items() if at > now}
        self._absent &= self._retry_at.keys()

    def find(self, lane: Lane, stream: SendStream) -> OutboundLink | None:
        """The connection for a stream; None: the broker is its way, for now at least."""
        receiver = self._receiver_of(stream.address)
        if receiver is None or not self._is_begun(lane, stream, receiver):
            return None
        link = self.links.get((receiver, lane))
        if link is None:
            self._connect(receiver, lane)
            return None
        if link.unacked_bytes > MAX_UNACKED_BYTES:
            link.cut()
        return link if link.is_open and link.is_welcome else None

    def note_published(self, lane: Lane, counts: Mapping[OutBatch, int]) -> None:
        """Note which urgent streams one process has had from the broker."""
        if lane is not Lane.SYSTEM:
            return
        for batch, count in counts.items():
            stream = batch.stream
            receiver = self._receiver_of(stream.address) if count == 1 else None
            if receiver is None:
                self._urgent.pop(stream.address, None)
            else:
                self._urgent[stream.address] = (stream.number, receiver)

    def _is_begun(self, lane: Lane, stream: SendStream, receiver: str) -> bool:
        """Whether the receiver has had something of a stream from the broker, or will have soon."""
        if lane is Lane.DATA:
            return stream.known > 0
        return self._urgent.get(stream.address) == (stream.number, receiver)

    def _receiver_of(self, address: str) -> str | None:
        """The only process that has an address, as far as its credit and the registry tell."""
        if self._data is None:
            return None
        holder = None
        for presence in self._presences:
            holder = presence.holder(address)
            if holder is not None:
                break
        stream = self._data.stream(address)
        if stream is None or not stream.known:
            return holder
        receivers = stream.receivers()
        if stream.expected > 1:
            return None
        if holder is not None:
            return holder if holder in receivers else None
        return self._only(receivers)

    def _only(self, receivers: list[str]) -> str | None:
        """The only one of those that granted credit which still listens."""
        if 1 < len(receivers) <= _MOST_FORMER:
            receivers = [one for one in receivers if self._is_there(one)]
        return receivers[0] if len(receivers) == 1 else None

    def _is_there(self, receiver: str) -> bool:
        """Whether a process that granted credit still listens; one that was killed takes none back."""
        if any((receiver, lane) in self.links for lane in Lane):
            return True
        if self._retry_at.get(receiver, 0.0) <= time.monotonic():
            connection = self._reach(receiver)
            if connection is None:
                return False
            connection.close()
        return receiver not in self._absent

    def _connect(self, receiver: str, lane: Lane) -> None:
        now = time.monotonic()
        if self._retry_at.get(receiver, 0.0) > now or len(self.links) >= MAX_OUTBOUND:
            return
        connection = self._reach(receiver)
        if connection is None:
            return

        def note_end(link: OutboundLink) -> None:
            del self.links[receiver, lane]
            self._retry_at[receiver] = time.monotonic() + _AGAIN_S
            self.on_end(lane, link)

        self.links[receiver, lane] = OutboundLink(connection, self._sender, note_end)

    def _reach(self, receiver: str) -> socket.socket | None:
        try:
            connection = connect(socket_name(self._channel, receiver))
        except OSError as error:
            logger.debug("no direct socket to %s: %s", receiver, error)
            self._retry_at[receiver] = time.monotonic() + _ABSENT_S
            self._absent.add(receiver)
            return None
        self._absent.discard(receiver)
        return connection
