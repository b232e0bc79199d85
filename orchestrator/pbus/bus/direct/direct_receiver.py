"""The receiving half of direct sockets: connections of other processes, and the order beside the broker."""

import asyncio
import logging
import socket
from typing import Protocol

from pbus.bus.claims import Presence
from pbus.bus.coalescing import EVERYONE
from pbus.bus.direct.direct_frames import NO_BROADCASTS, Broadcasts
from pbus.bus.direct.host_sockets import is_own_user, listen
from pbus.bus.direct.inbound_link import Frame, InboundLink, Verdict
from pbus.bus.local.counters import Counters
from pbus.bus.stream.receiver import StreamReceiver
from pbus.codec import Envelope
from pbus.concurrency.forks import hold_connection
from pbus.errors import MessageDecodeError
from pbus.messages import Lane

logger = logging.getLogger(__name__)

MAX_INBOUND = 256  # connections; the senders of further ones use the broker


class PayloadSource(Protocol):
    """The bus of a receiver of direct payloads; see WorkerBus.

    Attributes:
        max_payload_bytes: The largest payload that it takes.
    """

    channel: str
    incarnation: str
    presences: list[Presence]
    counters: Counters
    send_timeout: float
    max_payload_bytes: int

    def open_payload(self, payload: bytes) -> tuple[Envelope, list[bytes]] | None:
        """Open a payload; None for one that was refused and counted."""
        ...

    def refuse(self, error: MessageDecodeError) -> None:
        """Count a payload that was refused, and say so."""
        ...

    def hosts(self, address: str) -> bool:
        """Whether an address is a subscriber's of this process."""
        ...


class DirectReceiver:
    """Takes payloads from direct sockets, in their sender's order with those from the broker.

    What a sender wrote to a socket before it published is read before the published payload is
    taken; what it published before it wrote to the socket is waited for.

    Args:
        name: The abstract name to listen at.
        source: Opens payloads.
        receiver: Takes them.
    """

    def __init__(self, name: str, source: PayloadSource, receiver: StreamReceiver) -> None:
        self.max_bytes = source.max_payload_bytes
        self._name = name
        self._source = source
        self._receiver = receiver
        self._listener: socket.socket | None = None
        self._links: set[InboundLink] = set()
        self._by_sender: dict[str, list[InboundLink]] = {}
        self._waived: dict[tuple[str, Lane], Broadcasts] = {}  # waited for in vain

    def get_extra_info(self, name: str) -> socket.socket | None:
        """The listening socket, as transports give it; forked children drop it."""
        return self._listener if name == "socket" else None

    def start(self) -> None:
        """Listen; where the system does not let us, senders use the broker."""
        try:
            self._listener = listen(self._name)
        except OSError as error:
            logger.debug("no direct socket: %s", error)
            return
        hold_connection(self, lambda receiver: receiver)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Listen no longer and end all connections. Idempotent."""
        self._unlisten()
        for link in list(self._links):
            link.close()

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        for link in list(self._links):
            link.close()

    # What the receiver of the broker's payloads calls

    def drain(self, sender: str) -> None:
        """Take what a sender has written so far."""
        for link in self._by_sender.get(sender, ()):
            link.read()

    def retry(self, sender: str) -> None:
        """Take what waited for a payload that has come."""
        for link in self._by_sender.get(sender, ()):
            link.retry()

    # What links call

    def welcome(self, link: InboundLink) -> None:
        """Note whose a link is; see FrameSink."""
        self._by_sender[link.sender] = [*self._by_sender.get(link.sender, ()), link]

    def open(self, link: InboundLink, payload: bytes, broadcasts: Broadcasts) -> Frame | None:
        """Open a payload; see FrameSink."""
        opened = self._source.open_payload(payload)
        if opened is None:
            return None
        envelope, lines = opened
        if envelope.sender != link.sender:
            error = f"a direct payload of {envelope.sender!r} on the socket of {link.sender!r}"
            self._source.refuse(MessageDecodeError(error))
            return None
        return Frame(envelope, lines, broadcasts)

    def take(self, frame: Frame, *, is_overdue: bool) -> Verdict:
        """Deliver a frame, unless something that goes before it has not come; see FrameSink."""
        envelope = frame.envelope
        if not self._source.hosts(envelope.address):
            return Verdict.REFUSED
        if is_overdue:
            self._waived[envelope.sender, envelope.lane] = frame.broadcasts
        elif not self._is_due(frame):
            return Verdict.HELD
        self._receiver.take(envelope, frame.lines)
        return Verdict.TAKEN

    def _is_due(self, frame: Frame) -> bool:
        envelope, broadcasts, has_come = frame.envelope, frame.broadcasts, self._receiver.has_come
        sender, lane = envelope.sender, envelope.lane
        if not has_come(sender, envelope.address, lane, envelope.stream, envelope.first):
            return False
        if broadcasts == NO_BROADCASTS or broadcasts == self._waived.get((sender, lane)):
            return True
        return has_come(sender, EVERYONE, lane, *broadcasts)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:  # no descriptor is left: it would be asked for again and again
            logger.debug("no direct socket is taken any more: %s", error)
            self._unlisten()
            return
        if len(self._links) >= MAX_INBOUND or not is_own_user(connection):
            connection.close()
            return
        connection.setblocking(False)  # noqa: FBT003
        self._links.add(InboundLink(connection, self, self._note_end))

    def _unlisten(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _note_end(self, link: InboundLink) -> None:
        self._links.discard(link)
        others = [one for one in self._by_sender.get(link.sender, ()) if one is not link]
        if others:
            self._by_sender[link.sender] = others
        elif self._by_sender.pop(link.sender, None) is not None:
            for lane in Lane:
                self._waived.pop((link.sender, lane), None)
