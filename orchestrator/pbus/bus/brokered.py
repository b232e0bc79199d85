"""BrokeredBus: what every bus over a broker does; a backend brings the connections."""

import abc
import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable
from typing import Any

from pbus.bus.base import new_header
from pbus.bus.claims import Claims
from pbus.bus.coalescing import EVERYONE, NEWS
from pbus.bus.direct.direct_sockets import DirectSockets
from pbus.bus.direct.direct_transport import Copy
from pbus.bus.queues.consumer import QueueConsumer
from pbus.bus.queues.pending_put import EncodedMessage, Receipt
from pbus.bus.queues.sealed_store import SealedQueueStore
from pbus.bus.queues.store import QueueStore
from pbus.bus.receiving import ReceivingBus
from pbus.bus.stream.flow_control import FlowControl
from pbus.bus.stream.provenance import Provenance
from pbus.bus.stream.receiver import StreamReceiver
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.transport import Transport
from pbus.bus.stream.write_queue import MAX_PAYLOAD_BYTES
from pbus.bus.stream.writer import LaneWriter
from pbus.codec import (
    Encoding,
    Header,
    check_key,
    check_plain,
    encode_checked,
    encode_message,
    within_packed,
)
from pbus.concurrency.background import TaskFunction, run_forever
from pbus.errors import (
    BusUnavailableError,
    MessageTooLargeError,
)
from pbus.messages import BusMessage, Lane
from pbus.seal import NO_SEAL, seal_of
from pbus.settings import BusSettings

logger = logging.getLogger(__name__)

_BEAT_S = 2.0
_DRAIN_TIMEOUT_S = 2.0
_KEPT_BYTES = 1024 * 1024  # the C library keeps twice as much of what was freed
_ENVELOPE_BYTES = 4096  # more than an envelope can take


class BrokeredBus(ReceivingBus):
    """The bus between processes.

    A backend makes its connections and calls `_init_streams`; when they are open it calls
    `_start_tasks` and `_open_queues`, and it hands what arrives to `_receive`.

    Args:
        settings: All but how the broker is reached.
        incarnation: Names this run of this process; random when not given.

    Attributes:
        encoding: Of what is sent.
    """

    _send_buffers: dict[Lane, SendBuffer]
    _writers: dict[Lane, LaneWriter]

    def __init__(self, settings: BusSettings, *, incarnation: str | None = None) -> None:
        super().__init__(
            channel=settings.channel,
            max_message_bytes=settings.max_message_bytes,
            send_timeout=settings.send_timeout,
            incarnation=incarnation,
            stats=settings.stats,
        )
        self._settings = settings
        self.encoding = Encoding(settings.encoding)
        self._is_packed = self.encoding is Encoding.MSGPACK
        self._seal = seal_of(settings.key, self.channel, encrypt=settings.encrypt)
        self._claims = Claims(self.presences, lambda: self.leases.leases())  # noqa: PLW0108 - made later
        self.max_payload_bytes = max(MAX_PAYLOAD_BYTES, self.max_message_bytes) + _ENVELOPE_BYTES
        self._carried_bytes = self.max_message_bytes  # of what is not stored; the broker's
        self._limit_hint, self._trouble = "", "no answer in time"
        self.delivery = settings.delivery
        self._consumer: QueueConsumer | None = None

    async def publish(self, message: BusMessage) -> bool:
        """Encode a message and have it stored, or put it into its lane's buffer; see send()."""
        rest = self._begin_publish(message)
        return rest is None or await rest is not False

    def _begin_publish(self, message: BusMessage) -> Awaitable[bool | None] | None:
        if message.key is not None:
            check_key(message.key, type(message).__name__)
        consumer = self._consumer
        if consumer is not None and message.is_stored:
            line = encode_message(message, limit=self.max_message_bytes, encoding=self.encoding)
            return self._store(consumer, EncodedMessage.of(message, line))
        try:
            line = encode_message(message, limit=self._carried_bytes, encoding=self.encoding)
        except MessageTooLargeError as error:
            return self._publish_large(message, error)
        send_buffer = self._send_buffers[message.lane]
        address = message.target or (NEWS if message.is_news else EVERYONE)
        if self._is_packed:
            line = within_packed(line)
        return None if send_buffer.put_nowait(address, line) else send_buffer.put(address, line)

    async def _publish_large(self, message: BusMessage, error: MessageTooLargeError) -> None:
        await self._see_limit(error)
        await self.publish(message)

    def enqueue(self, message: BusMessage, receipt: Receipt) -> bool:
        """See BatchingBus."""
        consumer = self._consumer
        is_own = message.is_local or message.target in self._router.local_names
        if is_own or consumer is None or not message.is_stored:
            return False
        consumer.producer.enqueue(message, receipt)
        return True

    async def send_raw(
        self,
        type_name: str,
        target: str | None,
        fields: dict[str, Any],
        *,
        source: str,
        urgent: bool = False,
        key: str | None = None,
    ) -> bool:
        """Send a message of a type that only its receivers know; see WorkerBus.send_raw."""
        check_plain(fields, type_name, "data")
        if key is not None:
            check_key(key, type_name)
        header = new_header(type_name, source, target, key)
        return await self.send_checked(header, fields, urgent=urgent)

    async def send_checked(
        self, header: Header, fields: dict[str, Any], *, urgent: bool = False
    ) -> bool:
        """Send a message as `send_raw` does, with values that were checked; bytes may be among them.

        Args:
            header: The header.
            fields: Values that JSON, or MessagePack where the bus encodes so, carries unchanged.
            urgent: It goes in the system lane.

        Raises:
            MessageTooLargeError: It is longer than the bus carries; also as `send`, like its return.
        """
        if not self.is_running:
            await self._until_running()
        consumer = None if urgent else self._consumer
        line = encode_checked(header, fields, limit=self.max_message_bytes, encoding=self.encoding)
        if consumer is None and len(line) > self._carried_bytes:
            await self._see_limit(MessageTooLargeError(header.type, len(line), self._carried_bytes))
        lane, address = Lane.SYSTEM if urgent else Lane.DATA, header.target or EVERYONE
        is_taken = True
        if consumer is None:
            await self._send_buffers[lane].put(address, line)
        else:
            is_taken = await self._store(consumer, EncodedMessage(address, lane, header.id, line))
        self.counters.sent += 1
        return is_taken

    async def _see_limit(self, error: MessageTooLargeError) -> None:
        """Raise it, unless the broker turns out to carry messages of that size."""
        if error.size > self.max_message_bytes:
            raise error
        await self._ask_limit()
        if error.size > self._carried_bytes:
            limit, hint = self._carried_bytes, self._limit_hint
            raise MessageTooLargeError(error.type_name, error.size, limit, hint=hint) from None

    async def _store(self, consumer: QueueConsumer, encoded: EncodedMessage) -> bool:
        if await consumer.producer.put(encoded) == 0:
            self.counters.note_undelivered(encoded.address)
            return False
        return True

    # Opening and closing

    def _sealed(self, store: QueueStore) -> QueueStore:
        """A store of the backend, with a seal around each message where the channel has a key."""
        if self._seal is NO_SEAL:
            return store
        return SealedQueueStore(store, self._seal, self.names, self._claims, self._refuse)

    def _init_streams(self, transport: Transport, copy: Copy | None = None) -> None:
        _keep_freed_memory()
        self._receiver = StreamReceiver(self)
        transport = self._with_direct(transport, copy)
        self._send_buffers = {
            lane: SendBuffer(
                lane,
                self.incarnation,
                has_flow=lane is Lane.DATA,
                send_timeout=self.send_timeout,
                seal=self._seal,
            )
            for lane in Lane
        }
        self._writers = {
            lane: LaneWriter(send_buffer, transport, self.counters, self.send_timeout, self.edges)
            for lane, send_buffer in self._send_buffers.items()
        }
        data = self._send_buffers[Lane.DATA]
        self._flow_control = FlowControl(
            self.incarnation, data, transport, self._receiver, self._seal, self.presences
        )
        if self._seal is not NO_SEAL:
            self._provenance = Provenance(self._claims, self._router, self._put)

    def _start_tasks(self) -> None:
        """Start what writes and what looks after it; the broker has been reached."""
        for lane, writer in self._writers.items():
            self._spawn(f"{lane.name.lower()} writer", writer.run)
        self._spawn("grants", self._flow_control.run_grants)
        self._spawn("probes", self._flow_control.run_probes)
        self._spawn("beat", self._beat)
        if self._provenance is not None:
            self._spawn("provenance", self._provenance.run)

    async def _open_queues(self) -> None:
        if self.queues is None:
            return
        self._consumer = QueueConsumer(
            self.queues, self._router, self.incarnation, settings=self._settings, send=self.send
        )
        await self._consumer.open()

    def _why_not_open(self) -> str:
        return self._trouble

    async def _close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.close()
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    await _drain(self._writers.values(), self._direct)
        await self._tasks.close()
        await self._disconnect()

    def _spawn(self, name: str, function: TaskFunction) -> None:
        """Do something for as long as the bus runs."""
        work = run_forever(f"the {name} of the bus", function, self.counters.note_fault)
        self._tasks.spawn(work, f"pbus {name}")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                await self._beat_once()
            except BusUnavailableError as error:
                logger.debug("a beat was missed: %s", error)

    async def _beat_once(self) -> None:
        await self._heartbeat()
        self._receiver.tidy()
        self._router.tidy()
        for send_buffer in self._send_buffers.values():
            send_buffer.send_watermarks()
        for writer in self._writers.values():
            writer.say_undelivered()
        if self._consumer is not None:
            await self._consumer.heartbeat()

    async def _join(self, address: str) -> None:
        await self._listen(address)
        await self.hear_news()
        if self._consumer is not None:
            await self._consumer.join(address)

    async def _leave(self, address: str) -> None:
        await self._ignore(address)
        self._receiver.leave(address)
        if self._consumer is not None:
            await self._consumer.leave(address)

    async def _ask_limit(self) -> None:
        """Ask the broker what it carries, into _carried_bytes; a backend without limits need not."""

    # What a backend brings, beside _open()

    @abc.abstractmethod
    async def _ignore(self, address: str) -> None:
        """Have it come no longer."""

    @abc.abstractmethod
    async def _heartbeat(self) -> None:
        """Called at each beat: see that the connections live, and say that we do."""

    @abc.abstractmethod
    async def _disconnect(self) -> None:
        """Close the connections, as far as they are open; nothing uses them any more."""


def _keep_freed_memory() -> None:
    """Have payloads that are freed leave their memory to the next ones.

    glibc gives the end of the heap back above a limit, 128 KiB at first, and each page of it is a fault
    when it is used again: a twentieth of the processor time of a fan-out. It raises the limit to twice
    the largest piece that was freed.
    """
    bytearray(_KEPT_BYTES)


async def _drain(writers: Iterable[LaneWriter], direct: DirectSockets | None) -> None:
    """Write out what was accepted, and what a direct socket did not carry to its end."""
    for writer in writers:
        await writer.drain()
    if direct is not None and await direct.outbound.finish():
        for writer in writers:
            await writer.drain()
