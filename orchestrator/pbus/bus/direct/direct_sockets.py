"""Direct sockets of one bus: both halves, and when they are used."""

from collections.abc import Mapping

from pbus.bus.direct.direct_receiver import DirectReceiver, PayloadSource
from pbus.bus.direct.direct_routes import DirectRoutes
from pbus.bus.direct.direct_transport import Copy, DirectTransport
from pbus.bus.direct.host_sockets import IS_SUPPORTED, socket_name
from pbus.bus.stream.receiver import StreamReceiver
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.transport import Transport
from pbus.messages import Lane
from pbus.settings import BusSettings


class DirectSockets:
    """The direct sockets of a bus.

    Args:
        bus: Whose.
        receiver: Takes what arrives.
        transport: The way by the broker.
        copy: Gives followers of the channel what passes the broker by.

    Attributes:
        inbound: Takes the connections of others.
        outbound: Writes to others; a transport.
    """

    def __init__(
        self, bus: PayloadSource, receiver: StreamReceiver, transport: Transport, copy: Copy
    ) -> None:
        name = socket_name(bus.channel, bus.incarnation)
        self._receiver = receiver
        self.inbound = DirectReceiver(name, bus, receiver)
        routes = DirectRoutes(bus.channel, bus.incarnation, bus.presences)
        self.outbound = DirectTransport(transport, routes, bus.counters, bus.send_timeout, copy)

    @staticmethod
    def are_wanted(settings: BusSettings) -> bool:
        """Whether a bus with these settings uses direct sockets, where its broker allows."""
        return settings.direct and not settings.is_stored and IS_SUPPORTED

    def start(self, buffers: Mapping[Lane, SendBuffer]) -> None:
        """Use them from now on; what the broker brings to this process arrives by then."""
        self._receiver.links = self.inbound
        self.inbound.start()
        self.outbound.start(buffers)

    def end(self) -> None:
        """Close all connections. Idempotent."""
        self.inbound.close()
        self.outbound.end()
