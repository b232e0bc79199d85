"""PgmqBus: a WorkerBus over Postgres with PGMQ."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from pbus.bus.base import DEFAULT_SEND_TIMEOUT_S, WorkerBus
from pbus.bus.dispatch import Stamped
from pbus.bus.inbox import Inbox
from pbus.bus.mailbox import SYSTEM_CAPACITY
from pbus.bus.mailroom import DeliveryOptions, MailRoom
from pbus.bus.outbox import MAX_PAYLOAD_BYTES, Outbox
from pbus.bus.pgmq.credit import Credit
from pbus.bus.pgmq.endpoint import Endpoint, reason_of
from pbus.bus.pgmq.leases import PgLeaseStore
from pbus.bus.pgmq.lines import Lines
from pbus.bus.pgmq.mail import PgmqMailStore
from pbus.bus.pgmq.publisher import Publisher
from pbus.bus.pgmq.tap import PgmqTap
from pbus.bus.pgmq.wire import PEER_LEASE_S, Wire
from pbus.bus.switchboard import EVERYONE
from pbus.codec import DEFAULT_MAX_MESSAGE_BYTES, Header, encode_message, encode_raw
from pbus.errors import BrokerRefusedError, BusUnavailableError, MessageDecodeError
from pbus.ids import new_id
from pbus.leases import LeaseStore
from pbus.messages import BusMessage, Lane

if TYPE_CHECKING:
    import asyncpg
    from pgmq.async_queue import PGMQueue

    from pbus.bus.reader import Receipt

logger = logging.getLogger(__name__)

_BEAT_S = 2.0
_DRAIN_TIMEOUT_S = 2.0
_RETRY_S = 0.1
_ENVELOPE_BYTES = 4096  # more than an envelope can take


class PgmqBus(WorkerBus):
    """The bus between processes, over one Postgres.

    Messages that must not be lost are kept in PGMQ queues until they are handled; all others wait a
    moment, in a table that is not logged, for the processes they are for. At most two connections,
    which heal by themselves. Nobody polls: the server rings.

    Args:
        pgmq: A PGMQueue of the pgmq package (of pgmq.async_queue where it has a pool); its settings
            are used, its connections are not.
        dsn: Instead: postgresql://user:password@host/database.
        pool: Instead: an asyncpg pool, of which the bus keeps two connections while it runs.
        channel: Processes on one channel hear each other.
        max_message_bytes: The largest encoded message.
        send_timeout: Seconds a send waits for room, or for the server to be back.
        incarnation: Names this life of this process; random when not given.
        delivery: "at-least-once", or "at-most-once": nothing is kept.
        mail_options: How stored messages are treated, with at-least-once.
        peer_lease: Seconds until others give a process up that says nothing.
    """

    def __init__(
        self,
        *,
        pgmq: "PGMQueue | None" = None,
        dsn: str | None = None,
        pool: "asyncpg.Pool[Any] | None" = None,
        channel: str = "pbus",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        send_timeout: float = DEFAULT_SEND_TIMEOUT_S,
        incarnation: str | None = None,
        delivery: str = "at-least-once",
        mail_options: DeliveryOptions | None = None,
        peer_lease: float = PEER_LEASE_S,
    ) -> None:
        super().__init__(
            channel=channel,
            max_message_bytes=max_message_bytes,
            send_timeout=send_timeout,
            incarnation=incarnation,
        )
        self._lines = Lines(Endpoint(dsn=dsn, pgmq=pgmq, pool=pool), channel)
        self.url = self._lines.url
        self._max_payload_bytes = max(MAX_PAYLOAD_BYTES, max_message_bytes) + _ENVELOPE_BYTES
        self._trouble = "no answer in time"
        self._tasks: list[asyncio.Task[None]] = []
        self._is_open = False
        self.delivery = delivery
        self._mail_options = mail_options or DeliveryOptions()
        self._mailroom: MailRoom | None = None
        if delivery == "at-least-once":
            self.mail = PgmqMailStore(self._lines)
        self._wire = Wire(self._lines, self.incarnation, self._take, lease_s=peer_lease)
        self._build()

    @property
    def is_connected(self) -> bool:
        """Whether the server is connected and tells what is new."""
        return self.is_running and self._lines.reader.is_up

    async def publish(self, message: BusMessage) -> None:
        """Encode a message and have it stored, or put it into its lane's buffer; see send()."""
        line = encode_message(message, limit=self.max_message_bytes)
        if self._mailroom is None or not message.is_stored:
            await self._outboxes[message.lane].put(message.target or EVERYONE, line)
        else:
            await self._store(self._mailroom, Stamped.of(message, line))

    async def send_raw(
        self,
        type_name: str,
        target: str | None,
        fields: dict[str, Any],
        *,
        source: str,
        urgent: bool = False,
    ) -> None:
        """Send a message of a type that only its receivers know; see WorkerBus.send_raw."""
        header = Header(type=type_name, source=source, target=target, id=new_id(), time=time.time())
        line = encode_raw(header, fields, limit=self.max_message_bytes)
        lane = Lane.SYSTEM if urgent else Lane.DATA
        address = target or EVERYONE
        if self._mailroom is None or urgent:
            await self._outboxes[lane].put(address, line)
        else:
            await self._store(self._mailroom, Stamped(address, lane, header.id, line))
        self.counters.sent += 1

    async def _store(self, mailroom: MailRoom, stamped: Stamped) -> None:
        if await mailroom.dispatch.put(stamped) == 0:
            self.counters.undelivered += 1

    def tap(self) -> PgmqTap:
        """Follow all traffic of the channel; the server copies it while somebody does."""
        return PgmqTap(self._lines)

    # What the inbox calls

    def deliver(
        self, address: str, lane: Lane, lines: list[bytes], receipt: "Receipt | None"
    ) -> int:
        """Put received messages into mailboxes; see Sink."""
        if lane is Lane.SYSTEM and any(
            len(mailbox.lane(lane)) >= SYSTEM_CAPACITY for mailbox in self._board.receivers(address)
        ):
            self._board.note_lost("this process, which has no room,", address, len(lines))
            return 0
        return self._board.put_lines(address, lane, lines, receipt)

    def lost(self, sender: str, address: str, count: int) -> None:
        """Messages went missing; see Sink."""
        self._board.note_lost(sender, address, count)

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender how far it may go; see Sink."""
        self._credit.grant(sender, address, number, consumed, limit)

    # The life of the connections

    def _build(self) -> None:
        self._inbox = Inbox(self)
        self._outboxes = {
            lane: Outbox(
                lane,
                self.incarnation,
                has_flow=lane is Lane.DATA,
                send_timeout=self.send_timeout,
            )
            for lane in Lane
        }
        self._publishers = [
            Publisher(outbox, self._wire, self.counters, self.send_timeout)
            for outbox in self._outboxes.values()
        ]
        data = self._outboxes[Lane.DATA]
        self._credit = Credit(self.incarnation, data, self._wire, self._inbox)
        self._lines.writer.on_connect = self._expect_returns

    def _expect_returns(self) -> None:
        if self.is_running:
            for publisher in self._publishers:
                publisher.expect_returns()

    async def _open(self) -> None:
        self._lines.hold()
        self._is_open = True
        self._wire.addresses = list(self._board.addresses)
        await self._reach()
        self._spawn("reader", self._lines.reader.run())
        self._spawn("wire", self._wire.run())
        for publisher in self._publishers:
            lane = publisher.outbox.lane.name.lower()
            self._spawn(f"{lane} writer", publisher.run())
        self._spawn("grants", self._credit.run_grants())
        self._spawn("probes", self._credit.run_probes())
        self._spawn("beat", self._beat())
        await self._open_mail()

    async def _open_mail(self) -> None:
        if self.mail is None:
            return
        self._mailroom = MailRoom(
            self.mail,
            self._board,
            self.incarnation,
            send_timeout=self.send_timeout,
            options=self._mail_options,
            send=self.send,
        )
        await self._mailroom.open()

    async def _reach(self) -> None:
        """Join for the first time; a refusal is final, anything else is tried again."""
        while True:
            try:
                await self._wire.open()
            except BrokerRefusedError:
                raise
            except BusUnavailableError as error:
                self._trouble = reason_of(error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _why_not_open(self) -> str:
        return self._trouble

    async def _close(self) -> None:
        if self._mailroom is not None:
            mailroom, self._mailroom = self._mailroom, None
            await mailroom.close()
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    for publisher in self._publishers:
                        await publisher.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._is_open:
            self._is_open = False
            await self._wire.close()
            await self._lines.release()

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine, name=f"pbus {name}")
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    @staticmethod
    def _task_ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s ended: a bug in pbus", task.get_name(), exc_info=task.exception())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            await self._wire.beat()
            self._inbox.tidy()
            for outbox in self._outboxes.values():
                outbox.mark()
            if self._mailroom is not None:
                with contextlib.suppress(BusUnavailableError):
                    await self._mailroom.beat()

    async def _join(self, address: str) -> None:
        await self._tell_addresses()
        if self._mailroom is not None:
            await self._mailroom.join(address)

    async def _leave(self, address: str) -> None:
        with contextlib.suppress(BusUnavailableError):  # said again with the next beat
            await self._tell_addresses()
        self._inbox.leave(address)
        if self._mailroom is not None:
            await self._mailroom.leave(address)

    async def _tell_addresses(self) -> None:
        self._wire.addresses = list(self._board.addresses)
        await self._wire.join()

    def _take(self, rank: int, payload: bytes) -> None:
        """One payload from the server: messages, or a note about credit."""
        try:
            if rank == 0:
                self._credit.receive(payload)
            else:
                self._inbox.receive(payload, limit=self._max_payload_bytes)
        except MessageDecodeError as error:
            self._board.refuse(error)

    def _make_leases(self) -> LeaseStore:
        return PgLeaseStore(self._lines.writer, self.channel)
