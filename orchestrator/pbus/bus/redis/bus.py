"""RedisBus: a WorkerBus over Redis or Valkey publish/subscribe."""

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
from pbus.bus.reader import Receipt
from pbus.bus.redis.credit import CREDIT_NOTES, Credit
from pbus.bus.redis.endpoint import REFUSALS, TROUBLE, Endpoint, reason_of
from pbus.bus.redis.leases import RedisLeaseStore
from pbus.bus.redis.links import Backoff, RequestLink, SubscribeLink
from pbus.bus.redis.names import FOLLOWED, Names
from pbus.bus.redis.publisher import Publisher
from pbus.bus.redis.tap import FOLLOWER_LEASE_S, FOLLOWER_NOTE, RedisTap
from pbus.bus.switchboard import EVERYONE
from pbus.codec import DEFAULT_MAX_MESSAGE_BYTES, Encoding, Header, encode_message, encode_raw
from pbus.errors import BusUnavailableError, MessageDecodeError
from pbus.ids import new_id
from pbus.leases import LeaseStore
from pbus.messages import BusMessage, Lane

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

_BEAT_S = 2.0
_DRAIN_TIMEOUT_S = 2.0
_ENVELOPE_BYTES = 4096  # more than an envelope can take


class RedisBus(WorkerBus):
    """The bus between processes, over one Redis or Valkey.

    A targeted message travels only to the process that hosts its target. Each lane has its own
    connections, so a system message overtakes queued data everywhere. Connections heal by
    themselves; what was lost meanwhile is counted and said.

    Args:
        redis: A redis.asyncio client; its settings are used, its connections are not.
        url: Instead of a client.
        channel: Processes on one channel hear each other.
        max_message_bytes: The largest encoded message.
        send_timeout: Seconds a send waits for room.
        incarnation: Names this life of this process; random when not given.
    """

    def __init__(
        self,
        *,
        redis: "Redis | None" = None,
        url: str | None = None,
        channel: str = "pbus",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        send_timeout: float = DEFAULT_SEND_TIMEOUT_S,
        incarnation: str | None = None,
        encoding: str = Encoding.JSON,
        delivery: str = "at-most-once",
        mail_options: DeliveryOptions | None = None,
    ) -> None:
        super().__init__(
            channel=channel,
            max_message_bytes=max_message_bytes,
            send_timeout=send_timeout,
            incarnation=incarnation,
        )
        self._names = Names(channel)
        self._endpoint = Endpoint(url=url, redis=redis, key=self._names.key(""))
        self.url = self._endpoint.url
        self._encoding = Encoding(encoding)
        self._max_payload_bytes = max(MAX_PAYLOAD_BYTES, max_message_bytes) + _ENVELOPE_BYTES
        self._trouble = "no answer in time"
        self._tasks: list[asyncio.Task[None]] = []
        self.delivery = delivery
        self._mail_options = mail_options or DeliveryOptions()
        self._mailroom: MailRoom | None = None
        if delivery == "at-least-once":
            from pbus.bus.redis.mail import RedisMailStore  # noqa: PLC0415 - most buses need none

            self.mail = RedisMailStore(self._endpoint, self._names)
        self._followed_until = 0.0
        self._build()

    @property
    def is_connected(self) -> bool:
        """Whether every connection is up and every subscription confirmed."""
        return self.is_running and all(link.is_up for link in self._listeners.values())

    async def publish(self, message: BusMessage) -> None:
        """Encode a message and put it into its lane's buffer; see WorkerBus.send."""
        line = encode_message(message, limit=self.max_message_bytes, encoding=self._encoding)
        if self._mailroom is None or not message.is_stored:
            outbox, address = self._outboxes[message.lane], message.target or EVERYONE
            if not outbox.put_nowait(address, line):
                await outbox.put(address, line)
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
        line = encode_raw(header, fields, limit=self.max_message_bytes, encoding=self._encoding)
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
        if self._followed_until > time.monotonic():
            await self._outboxes[stamped.lane].put(FOLLOWED + stamped.address, stamped.line)

    def tap(self) -> RedisTap:
        """Follow all traffic of the channel; it costs the workers nothing."""
        return RedisTap(self._endpoint, self._names, asks=self.delivery == "at-least-once")

    # What the inbox calls

    def deliver(self, address: str, lane: Lane, lines: list[bytes], receipt: Receipt | None) -> int:
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
        self._publishers = {
            lane: Publisher(
                self._outboxes[lane],
                RequestLink(self._endpoint, f"{lane.name.lower()} writer"),
                self._names,
                self.counters,
                self.send_timeout,
            )
            for lane in Lane
        }
        self._listeners = {
            Lane.DATA: SubscribeLink(self._endpoint, "data reader", self._take),
            Lane.SYSTEM: SubscribeLink(self._endpoint, "system reader", self._take),
        }
        system = self._publishers[Lane.SYSTEM].link
        self._credit = Credit(self.incarnation, self._publishers[Lane.DATA], system, self._names)
        self._credit.inbox = self._inbox
        self._listeners[Lane.SYSTEM].want([self._names.control(self.incarnation)])

    async def _open(self) -> None:
        await self._reach()
        for lane, listener in self._listeners.items():
            addresses = (EVERYONE, *self._board.addresses)
            listener.want([self._names.lane(lane.value, address) for address in addresses])
        self._spawn("data reader", self._listeners[Lane.DATA].run())
        self._spawn("system reader", self._listeners[Lane.SYSTEM].run())
        for lane, publisher in self._publishers.items():
            self._spawn(f"{lane.name.lower()} writer", publisher.run())
        self._spawn("grants", self._credit.run_grants())
        self._spawn("probes", self._credit.run_probes())
        self._spawn("beat", self._beat())
        for listener in self._listeners.values():
            await listener.wait_up()
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
        link = self._publishers[Lane.SYSTEM].link
        (followed,) = await link.request([(b"PTTL", self._names.key("followed"))])
        if isinstance(followed, int) and followed > 0:
            self._note_follower()

    def _note_follower(self) -> None:
        self._followed_until = time.monotonic() + FOLLOWER_LEASE_S

    async def _reach(self) -> None:
        """Connect for the first time; a refusal is final, anything else is tried again."""
        backoff = Backoff()
        while True:
            try:
                for publisher in self._publishers.values():
                    await publisher.link.connect()
            except REFUSALS as error:
                raise BusUnavailableError(self.url, reason_of(error)) from error
            except TROUBLE as error:
                self._trouble = reason_of(error)
                await backoff.pause()
            else:
                return

    def _why_not_open(self) -> str:
        troubles = (listener.trouble for listener in self._listeners.values())
        return next((reason_of(trouble) for trouble in troubles if trouble), self._trouble)

    async def _close(self) -> None:
        if self._mailroom is not None:
            mailroom, self._mailroom = self._mailroom, None
            await mailroom.close()
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    for publisher in self._publishers.values():
                        await publisher.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for publisher in self._publishers.values():
            await publisher.link.close()
        if isinstance(self._leases, RedisLeaseStore):
            await self._leases.close()

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
            await self._ask_whether_moved()
            for listener in self._listeners.values():
                await listener.beat()
            self._inbox.tidy()
            for outbox in self._outboxes.values():
                outbox.mark()
            if self._mailroom is not None:
                with contextlib.suppress(BusUnavailableError):
                    await self._mailroom.beat()

    async def _ask_whether_moved(self) -> None:
        """In a cluster, have the node say whether it still has the channel."""
        if self._endpoint.may_move:
            with contextlib.suppress(*TROUBLE):
                link = self._publishers[Lane.SYSTEM].link
                await link.request([(b"EXISTS", self._names.key("version"))])

    async def _join(self, address: str) -> None:
        await asyncio.gather(
            *(
                listener.add([self._names.lane(lane.value, address)])
                for lane, listener in self._listeners.items()
            )
        )
        if self._mailroom is not None:
            await self._mailroom.join(address)

    async def _leave(self, address: str) -> None:
        for lane, listener in self._listeners.items():
            await listener.remove([self._names.lane(lane.value, address)])
        self._inbox.leave(address)
        if self._mailroom is not None:
            await self._mailroom.leave(address)

    def _take(self, payload: bytes) -> None:
        """One payload from the server: messages, or a note about credit."""
        try:
            if payload == FOLLOWER_NOTE:
                self._note_follower()
            elif payload.startswith(CREDIT_NOTES):
                self._credit.receive(payload)
            else:
                self._inbox.receive(payload, limit=self._max_payload_bytes)
        except MessageDecodeError as error:
            self._board.refuse(error)

    def _make_leases(self) -> LeaseStore:
        return RedisLeaseStore(self._endpoint, self._names)
