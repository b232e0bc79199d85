"""Batches: several messages that are sent with one wait for all, failures told by position."""

import abc
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import force_setattr

from pbus.bus.local.causes import current_traceparent, inherit_trace
from pbus.bus.local.counters import Counters
from pbus.bus.queues.pending_put import Receipt
from pbus.errors import BatchError, BusClosedError, BusError, BusFullError, PbusError
from pbus.messages import BusMessage, Lane

_MAX_BYTES = 4 * 1024 * 1024  # of a batch, encoded and not confirmed
_YIELD_BYTES = 256 * 1024  # the loop turns after so much

Add = Callable[[int, BusMessage], Awaitable[None]]
Again = Callable[[], Awaitable[object]]


class BatchSending:
    """Gives the messages of one batch to a bus, in order, and waits for all of them together.

    Args:
        bus: Running.

    Attributes:
        sent: The number of messages that the bus took.
    """

    def __init__(self, bus: "BatchingBus") -> None:
        self._failures: dict[int, PbusError] = {}
        self.sent = 0
        self._bus = bus
        self._traceparent = current_traceparent()
        self._receipts: list[tuple[Receipt, int, BusMessage, Again | None]] = []
        self._full: dict[tuple[str | None, Lane], BusFullError] = {}
        self._bytes = 0  # not confirmed
        self._turn_at = _YIELD_BYTES
        self._most = 0
        self._waiter: asyncio.Future[None] | None = None

    async def run(self, messages: Sequence[BusMessage], add: Add) -> None:
        """Send messages, and wait for all of them; when cancelled, what is not stored yet is not stored.

        Args:
            messages: The whole batch.
            add: Gives each to add(), perhaps to another target or several.

        Raises:
            BatchError: Some were not sent.
        """
        try:
            for position, message in enumerate(messages):
                try:
                    await add(position, message)
                except PbusError as error:
                    self._note(position, error)
            await self._wait(0)
            await self._settle()
        finally:
            self._cancel()
        if self._failures:
            raise BatchError(dict(sorted(self._failures.items())), len(messages))

    async def add(self, position: int, message: BusMessage, on_absent: Again | None = None) -> None:
        """Give the bus a message, unless its target had no room for an earlier one of the batch.

        Waits while too much of the batch is not confirmed, and as send() where nothing is stored.

        Args:
            position: Its place in the batch, at which a failure is told.
            message: The message.
            on_absent: Sends it elsewhere, where the broker has no queue of its target.
        """
        if self._full and (full := self._full.get((message.target, message.lane))) is not None:
            self._note(position, full)
            return
        if self._traceparent is not None and message.traceparent is None:
            force_setattr(message, "traceparent", self._traceparent)
        receipt = Receipt(self._note_end)
        try:
            if self._bus.enqueue(message, receipt):
                self._receipts.append((receipt, position, message, on_absent))
            else:
                await self._bus.send(message)
                self.sent += 1
                return
        except PbusError as error:
            self._note(position, error, message)
            return
        self._bytes += receipt.size
        if self._bytes > _MAX_BYTES:
            await self._wait(_MAX_BYTES // 2)
            await self._settle()
        elif self._bytes > self._turn_at:
            await asyncio.sleep(0)
        else:
            return
        self._turn_at = self._bytes + _YIELD_BYTES

    async def _settle(self) -> None:
        """Note the outcomes that have come."""
        receipts, self._receipts = self._receipts, []
        for sent in receipts:
            receipt, position, message, on_absent = sent
            if not receipt.done():
                self._receipts.append(sent)
                continue
            error = receipt.error
            try:
                if error is None:
                    await self._note_stored(receipt, message, on_absent)
                    continue
            except PbusError as raised:
                error = raised
            # A cancelled producer belongs to a bus that stops.
            failure = error if isinstance(error, PbusError) else BusClosedError("stopped")
            self._note(position, failure, message)

    def _cancel(self) -> None:
        """Wait for nothing any more; what the producer has not stored yet is not stored."""
        for receipt, *_ in self._receipts:
            if not receipt.done():
                receipt.set_exception(asyncio.CancelledError())

    def _note(self, position: int, error: PbusError, message: BusMessage | None = None) -> None:
        """Note the failure of a message; one to several replicas has the first."""
        self._failures.setdefault(position, error)
        if isinstance(error, BusFullError) and message is not None:
            self._full.setdefault((message.target, message.lane), error)

    async def _note_stored(
        self, receipt: Receipt, message: BusMessage, on_absent: Again | None
    ) -> None:
        self._bus.counters.sent += 1
        if not receipt.queues:
            self._bus.counters.note_undelivered(message.target or "*")
            if on_absent is not None:
                await on_absent()
        self.sent += 1

    async def _wait(self, most: int) -> None:
        """Wait until at most so many bytes are not confirmed.

        The producer ends each put by the send timeout, and when the bus stops.
        """
        if self._bytes > most:
            self._most = most
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _note_end(self, receipt: Receipt) -> None:
        self._bytes -= receipt.size
        waiter = self._waiter
        if waiter is not None and self._bytes <= self._most and not waiter.done():
            waiter.set_result(None)


class Batch:
    """Messages that are sent together at the end of an `async with` block."""

    def __init__(self) -> None:
        self.messages: list[BusMessage] = []
        self._is_over = False

    def send(self, message: BusMessage) -> None:
        """Have a message sent at the end of the block.

        Raises:
            BusError: The block has ended.
        """
        if self._is_over:
            raise BusError("this batch has ended", hint="begin another with bus.batch()")
        inherit_trace(message)
        self.messages.append(message)

    def end(self) -> None:
        """Take no more messages."""
        self._is_over = True


class BatchingBus(abc.ABC):
    """Adds batches to a bus."""

    counters: Counters
    is_running: bool

    async def send_all(self, messages: Sequence[BusMessage]) -> None:
        """Send messages as send() does, in order, all at once, with one wait for all.

        Raises:
            BatchError: Some were not sent: `failures` has the error of each by its position.
            BusClosedError: The bus is not started, or stopped: nothing was sent.
            BusLoopError: The bus belongs to another event loop.
        """
        sending = await self.begin_batch()
        await sending.run(messages, sending.add)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """Gather messages, and send them at the end of the block as send_all() does.

        Nothing is sent when the block raises.
        """
        batch = Batch()
        try:
            yield batch
        finally:
            batch.end()
        await self.send_all(batch.messages)

    async def begin_batch(self) -> BatchSending:
        """Begin a batch; raises as send() where the bus cannot send."""
        if not self.is_running:
            await self._until_running()
        return BatchSending(self)

    def enqueue(self, message: BusMessage, receipt: Receipt) -> bool:  # noqa: ARG002 - for stores
        """Have a message stored, without waiting for it.

        Returns:
            Whether the receipt tells the outcome; False where the message is for send().

        Raises:
            PbusError: As of send(), where the message cannot be carried.
        """
        return False

    def __init_subclass__(cls, **options: Any) -> None:
        """Have a send() of a subclass's own called for all that is sent."""
        super().__init_subclass__(**options)
        names = {"send", "begin_send"}
        owner = next(base for base in cls.__mro__ if names.intersection(vars(base)))
        if "begin_send" not in vars(owner):
            cls.begin_send = BatchingBus.begin_send  # type: ignore[method-assign]

    def begin_send(self, message: BusMessage) -> Awaitable[bool] | None:
        """Send a message as far as nothing is to be waited for; raises as send().

        Returns:
            The rest, to be awaited, which returns as send(); None when the bus has taken it.
        """
        return self.send(message)

    @abc.abstractmethod
    async def send(self, message: BusMessage) -> bool:
        """See WorkerBus."""

    @abc.abstractmethod
    async def _until_running(self) -> None:
        """Wait for a start that is under way."""
