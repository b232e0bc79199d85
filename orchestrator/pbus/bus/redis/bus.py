"""RedisBus: a WorkerBus over Redis or Valkey publish/subscribe."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Unpack

from redis.exceptions import ResponseError

from pbus.bus.brokered import BrokeredBus
from pbus.bus.coalescing import EVERYONE
from pbus.bus.queues.consumer import QueueConsumer
from pbus.bus.queues.pending_put import EncodedMessage
from pbus.bus.redis.connections import (
    CommandConnection,
    SubscriberConnection,
    close,
    open_connection,
)
from pbus.bus.redis.follower_copies import FollowerCopies
from pbus.bus.redis.keys import FOLLOWED, Keys
from pbus.bus.redis.leases import KEYS_LIVE_MS, RedisLeaseStore
from pbus.bus.redis.server.endpoint import CONNECT_TIMEOUT_S, REFUSALS, TROUBLE, Endpoint, reason_of
from pbus.bus.redis.tap import COPYING_NOTE, FOLLOWER_NOTE, QUESTION_BYTES, WHO_COPIES, RedisTap
from pbus.bus.redis.transport import RedisTransport
from pbus.bus.stream.flow_control import CREDIT_NOTES
from pbus.bus.stream.receiver import BUDGET_BYTES
from pbus.bus.tap_base import FOLLOWER_LEASE_S
from pbus.concurrency.backoff import Backoff
from pbus.errors import BrokerRefusedError, BusUnavailableError, MessageDecodeError
from pbus.leases import HEARTBEAT_S, LeaseStore
from pbus.messages import Lane
from pbus.settings import BusOptions, BusSettings

NOTES = (*CREDIT_NOTES, FOLLOWER_NOTE)  # a payload begins otherwise

if TYPE_CHECKING:
    from redis.asyncio import Redis


SUBSCRIBER_BYTES = 32 * 1024 * 1024  # what a server lets a subscriber have before it
_HEADROOM_BYTES = BUDGET_BYTES + 1024 * 1024  # for what else is under way to it


class RedisBus(BrokeredBus):
    """The bus between processes, over one Redis or Valkey.

    A targeted message travels only to the process that hosts its target. Each lane has its own
    connections, so a system message overtakes queued data everywhere. Connections heal by
    themselves; what was lost meanwhile is counted and said.

    Args:
        redis: A redis.asyncio client; its settings are used, its connections are not.
        url: Instead of a client.
        incarnation: Names this run of this process; random when not given.
        **options: As of `connect()`.
    """

    def __init__(
        self,
        *,
        redis: "Redis | None" = None,
        url: str | None = None,
        incarnation: str | None = None,
        **options: Unpack[BusOptions],
    ) -> None:
        settings = BusSettings.from_keys({"backend": "redis"}).updated(options)
        super().__init__(settings, incarnation=incarnation)
        self._endpoint = Endpoint(url=url, redis=redis, key=Keys(self.channel).key(""))
        self._names = Keys(self.channel, self._endpoint.database)
        self.url = self._endpoint.url
        if settings.is_stored:
            from pbus.bus.redis.queue_store import RedisQueueStore  # noqa: PLC0415 - most buses need none

            note = self.counters.note_fault
            store = RedisQueueStore(self._endpoint, self._names, on_fault=note)
            self.queues = self._sealed(store)
        self._carried_bytes = min(self.max_message_bytes, SUBSCRIBER_BYTES - _HEADROOM_BYTES)
        self._limit_hint = (
            "the server cuts off subscribers with more before them (client-output-buffer-limit"
            " pubsub): raise that, send it in parts, or use delivery at-least-once"
        )
        self._followed_until = 0.0
        self._links = {
            lane: CommandConnection(self._endpoint, f"{lane.name.lower()} writer") for lane in Lane
        }
        self._listeners = {
            Lane.DATA: SubscriberConnection(self._endpoint, "data reader", self._take),
            Lane.SYSTEM: SubscriberConnection(self._endpoint, "system reader", self._take),
        }
        self._listeners[Lane.SYSTEM].preset([self._names.control(self.incarnation)])
        self._copies = FollowerCopies(self._endpoint, self._names)
        transport = RedisTransport(self._endpoint, self._links, self._names)
        self._init_streams(transport, self._copy)

    @property
    def is_connected(self) -> bool:
        """Whether every connection is up and every subscription confirmed."""
        return self.is_running and all(link.is_up for link in self._listeners.values())

    async def _store(self, consumer: QueueConsumer, encoded: EncodedMessage) -> bool:
        is_taken = await super()._store(consumer, encoded)
        is_followed = self._followed_until > time.monotonic()
        if is_followed and len(encoded.line) <= self._carried_bytes:
            await self._send_buffers[encoded.lane].put(FOLLOWED + encoded.address, encoded.line)
        return is_taken

    def tap(self) -> RedisTap:
        """Follow all traffic of the channel; it costs the workers nothing."""
        return RedisTap(self._endpoint, self._names, self._seal, asks=self._has_copies)

    @property
    def _has_copies(self) -> bool:
        """Whether followers need copies of what travels apart from the lanes."""
        return self.queues is not None or self._is_direct

    # Connections

    async def _open(self) -> None:
        await self._reach()
        addresses = (EVERYONE, *self._own_addresses())
        for lane, listener in self._listeners.items():
            listener.preset([self._names.lane(lane.value, address) for address in addresses])
            self._spawn(listener.name, listener.run)
        self._start_tasks()
        if self._has_copies:
            self._spawn("follower copies", self._copies.run)
        self._spawn("server", self._watch_server)
        for listener in self._listeners.values():
            await listener.wait_up()
        await self._open_queues()
        await self._look_for_followers()
        if self._direct is not None:
            self._direct.start(self._send_buffers)

    def _copy(self, lane: Lane, address: str, payload: bytes) -> None:
        """Give followers, if there are some, what a direct socket carries."""
        if self._followed_until > time.monotonic():
            self._copies.put(lane, address, payload)

    async def _look_for_followers(self) -> None:
        if not self._has_copies:
            return
        link = self._links[Lane.SYSTEM]
        try:
            (followed,) = await link.request([(b"PTTL", self._names.key("followed"))])
        except TROUBLE as error:
            raise BusUnavailableError(self.url, reason_of(error)) from error
        if isinstance(followed, int) and followed > 0:
            self._note_follower()

    def _note_follower(self) -> None:
        self._followed_until = time.monotonic() + FOLLOWER_LEASE_S

    async def _reach(self) -> None:
        """Connect for the first time; a refusal is final, anything else is tried again."""
        backoff = Backoff()
        while True:
            try:
                await self._see_it_serves()
                for link in self._links.values():
                    await link.connect()
            except REFUSALS as error:
                raise BrokerRefusedError(self.url, reason_of(error)) from error
            except TROUBLE as error:
                self._trouble = reason_of(error)
                await backoff.pause()
            else:
                return

    async def _see_it_serves(self) -> None:
        """Have the server say that it is ready; one that loads its file connects, and refuses."""
        connection = await open_connection(self._endpoint)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.send_command("PING", check_health=False)
                with contextlib.suppress(ResponseError):  # that is an answer, if a bad one
                    await connection.read_response()
        finally:
            await close(connection)

    def _why_not_open(self) -> str:
        troubles = (listener.trouble for listener in self._listeners.values())
        return next((reason_of(trouble) for trouble in troubles if trouble), self._trouble)

    async def _disconnect(self) -> None:
        self._end_direct()
        for link in self._links.values():
            await link.close()
        await self._copies.close()
        if isinstance(self._leases, RedisLeaseStore):
            await self._leases.close()

    async def _heartbeat(self) -> None:
        self._tidy_direct()
        for listener in self._listeners.values():
            await listener.beat()

    async def _ask_limit(self) -> None:
        """Ask what subscribers may have before them; who may not ask has what servers begin with."""
        with contextlib.suppress(*TROUBLE):
            link = self._links[Lane.SYSTEM]
            (reply,) = await link.request([(b"CONFIG", b"GET", b"client-output-buffer-limit")])
            words = reply[1].split() if isinstance(reply, list) and reply else []
            if b"pubsub" in words:
                limit = int(words[words.index(b"pubsub") + 1]) or self.max_message_bytes << 1
                self._carried_bytes = min(self.max_message_bytes, limit - _HEADROOM_BYTES)

    async def _watch_server(self) -> None:
        """Have the server say whether it may still be written to; see Endpoint.heed()."""
        link, key = self._links[Lane.SYSTEM], self._names.key("version")
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with contextlib.suppress(*TROUBLE):
                await link.request([(b"PEXPIRE", key, KEYS_LIVE_MS)])

    async def _listen(self, address: str) -> None:
        await asyncio.gather(
            *(
                listener.add([self._names.lane(lane.value, address)])
                for lane, listener in self._listeners.items()
            )
        )

    async def _ignore(self, address: str) -> None:
        for lane, listener in self._listeners.items():
            await listener.remove([self._names.lane(lane.value, address)])

    def _take(self, payload: bytes) -> None:
        """One payload from the server: messages, or a note about credit."""
        self._receive(payload, is_note=payload.startswith(NOTES))

    def _take_note(self, note: bytes) -> None:
        if not note.startswith(FOLLOWER_NOTE):
            super()._take_note(note)
            return
        text = self._seal.open("note", note)
        is_question = text.startswith(WHO_COPIES) and len(text) <= QUESTION_BYTES
        if text != FOLLOWER_NOTE and not is_question:
            raise MessageDecodeError("a follower's note with more behind it")
        self._note_follower()
        if is_question and self._has_copies:
            answer = COPYING_NOTE + text.removeprefix(WHO_COPIES)
            self._copies.put(Lane.SYSTEM, "", self._seal.close("note", answer))

    def _make_leases(self) -> LeaseStore:
        return RedisLeaseStore(self._endpoint, self._names, self._seal)
