"""PgmqBus: a WorkerBus over Postgres with PGMQ."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Unpack

from pbus.bus.brokered import BrokeredBus
from pbus.bus.pgmq.connections import ConnectionPair
from pbus.bus.pgmq.leases import PgLeaseStore
from pbus.bus.pgmq.queue_store import PgmqQueueStore
from pbus.bus.pgmq.server.endpoint import Endpoint, reason_of
from pbus.bus.pgmq.tap import PgmqTap
from pbus.bus.pgmq.transport import PEER_LEASE_S, PgTransport
from pbus.errors import BrokerRefusedError, BusError, BusUnavailableError
from pbus.leases import LeaseStore
from pbus.messages import Lane
from pbus.settings import BusOptions, BusSettings

if TYPE_CHECKING:
    import asyncpg
    from pgmq.async_queue import PGMQueue

_RETRY_S = 0.1


class PgmqBus(BrokeredBus):
    """The bus between processes, over one Postgres.

    Messages that must not be lost are kept in PGMQ queues until they are handled; all others wait a
    moment, in a table that is not logged, for the processes they are for. At most two connections,
    which heal by themselves. No process polls: the server notifies.

    Args:
        pgmq: A PGMQueue of the pgmq package (of pgmq.async_queue where it has a pool); its settings
            are used, its connections are not.
        dsn: Instead: postgresql://user:password@host/database.
        pool: Instead: an asyncpg pool, of which the bus keeps two connections while it runs.
        incarnation: Names this run of this process; random when not given.
        peer_lease: Seconds until others give a process up that says nothing.
        **options: As of `connect()`.

    Raises:
        BusError: Messages cannot be encoded like that here.
    """

    def __init__(
        self,
        *,
        pgmq: "PGMQueue | None" = None,
        dsn: str | None = None,
        pool: "asyncpg.Pool[Any] | None" = None,
        incarnation: str | None = None,
        peer_lease: float = PEER_LEASE_S,
        **options: Unpack[BusOptions],
    ) -> None:
        settings = BusSettings.from_keys({"backend": "pgmq"}).updated(options)
        if settings.encoding != "json":
            raise BusError("encoding 'msgpack' is for Redis: on Postgres messages are JSON")
        super().__init__(settings, incarnation=incarnation)
        self._connections = ConnectionPair(Endpoint(dsn=dsn, pgmq=pgmq, pool=pool), self.channel)
        self.url = self._connections.url
        self._is_open = False
        if settings.is_stored:
            self.queues = self._sealed(PgmqQueueStore(self._connections))
        self._transport = PgTransport(
            self._connections, self.incarnation, self._take, lease_s=peer_lease
        )
        self._init_streams(self._transport)
        self._connections.writer.on_connect = self._expect_returns

    @property
    def is_connected(self) -> bool:
        """Whether the server is connected and tells what is new."""
        return self.is_running and self._connections.reader.is_up

    def tap(self) -> PgmqTap:
        """Follow all traffic of the channel; the server makes copies while there are followers."""
        return PgmqTap(self._connections, self._seal)

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender how far it may go, ourselves without the server; see Sink."""
        if sender == self.incarnation:
            self._send_buffers[Lane.DATA].grant(sender, address, number, consumed, limit)
        else:
            super().grant(sender, address, number, consumed, limit)

    # Connections

    def _expect_returns(self) -> None:
        if self.is_running:
            for writer in self._writers.values():
                writer.expect_returns()

    async def _open(self) -> None:
        self._connections.acquire()
        self._is_open = True
        self._transport.addresses = self._own_addresses()
        await self._reach()
        self._spawn("reader", self._connections.reader.run)
        self._spawn("wire", self._transport.run)
        self._start_tasks()
        await self._open_queues()

    async def _reach(self) -> None:
        """Join for the first time; a refusal is final, anything else is tried again."""
        while True:
            try:
                await self._transport.open()
            except BrokerRefusedError:
                raise
            except BusUnavailableError as error:
                self._trouble = reason_of(error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _disconnect(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._transport.close()
            await self._connections.release()

    async def _heartbeat(self) -> None:
        await self._transport.beat()

    async def _listen(self, address: str) -> None:
        del address  # all are told at once
        await self._tell_addresses()

    async def _ignore(self, address: str) -> None:
        del address
        with contextlib.suppress(BusUnavailableError):  # said again with the next beat
            await self._tell_addresses()

    async def _tell_addresses(self) -> None:
        self._transport.addresses = self._own_addresses()
        await self._transport.join()

    def _take(self, rank: int, payload: bytes) -> None:
        """One payload from the server: messages, or a note about credit."""
        self._receive(payload, is_note=rank == 0)

    def _make_leases(self) -> LeaseStore:
        return PgLeaseStore(self._connections.writer, self.channel, self._seal)
