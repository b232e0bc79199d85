"""A subscriber's mailbox: two lanes, each with one reader."""

import asyncio
import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable, Collection
from time import perf_counter
from typing import ClassVar

from pbus.bus.local.delivery import StoredDelivery, set_current_delivery
from pbus.bus.local.lane import Entry, LaneQueue
from pbus.bus.local.lane_reader import Item, LaneDelivery, LaneReader, set_current_reader
from pbus.bus.local.loop_end import LoopEnd
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.user_code import as_handler_error
from pbus.errors import MessageDecodeError
from pbus.messages import BusMessage, Lane
from pbus.stats.edge_table import EdgeTable
from pbus.trace_context import give_cause

Decode = Callable[[bytes, Lane | None], BusMessage | None]  # with a lane: opaque ones, too

logger = logging.getLogger(__name__)

_loop_end = LoopEnd()  # a program may end that has not stopped its bus

DATA_CAPACITY = 10_000  # messages; what AsyncQueueBus lets a slow worker fall behind
SYSTEM_CAPACITY = 100_000  # a storm of cancels; far above any real use, but a bound
_CAPACITIES = {Lane.DATA: DATA_CAPACITY, Lane.SYSTEM: SYSTEM_CAPACITY}
TURN_S = 0.001  # a busy lane lets the rest of the process in after so long
_STEPS_IN = 3  # so many rounds of the loop from the socket to the handler of an urgent message


class ItemHandling:
    """Hands items to one subscriber; see ItemHandler.

    Attributes:
        is_flat: Whether the reader of a lane handles what is not stored without `_deliver`.
        received: Messages that were handled.
        lost: Messages that went missing on the way.
        failed: Messages whose handling raised.
    """

    __slots__ = (
        "_decode", "_decode_stored", "_edges", "_is_open", "_left", "failed", "lost", "name",
        "received", "subscriber",
    )  # fmt: skip

    is_flat: ClassVar[bool] = True

    def __init__(
        self,
        subscriber: BusSubscriber,
        decode: Decode,
        decode_stored: Decode | None = None,
        edges: EdgeTable | None = None,
    ) -> None:
        self.subscriber = subscriber
        self.name = subscriber.name
        self.received = self.lost = self.failed = 0
        self._left = 0  # refused since its subscriber is leaving
        self._decode = decode
        self._decode_stored = decode_stored or decode
        self._edges = edges
        self._is_open = False

    async def _handle_told(
        self, item: Item, delivery: LaneDelivery | None, reader: LaneReader
    ) -> None:
        """Handle an item whose delivery is told of it, or that is handled by `_deliver`."""
        reader.delivery = delivery
        if delivery is None:
            await self.handle_unstored(item, reader)
        elif delivery.is_stored or not self.is_flat:
            await delivery.handle_in(self, item, reader)
            reader.delivery = None
        else:
            try:
                if (rest := self._begin(item, reader)) is not None:
                    await self._end(rest, reader)
            finally:
                reader.done()

    async def handle_unstored(self, item: Item, reader: LaneReader) -> None:
        """Handle a message once; see ItemHandler."""
        try:
            message = self._decode(item, reader.opaque_lane) if isinstance(item, bytes) else item
            if message is not None and self._accepts(message):
                self.received += 1
                await self._deliver(message, reader)
            else:
                self._note_refused(message, reader)
        finally:
            if reader.delivery is not None:
                reader.done()

    async def handle_stored(self, item: Item, delivery: StoredDelivery, reader: LaneReader) -> None:
        """Handle a message that comes again unless it is settled; see ItemHandler."""
        try:
            message = (
                self._decode_stored(item, reader.opaque_lane) if isinstance(item, bytes) else item
            )
        except MessageDecodeError as refusal:
            self._note_refused(None, reader)
            delivery.dead_letter(refusal.message)
            return
        if message is not None and self._accepts(message):
            await self._deliver_stored(message, delivery, reader)
            return
        self._note_refused(None, reader)
        if message is not None and self._is_draining:
            delivery.requeue()
        else:
            delivery.done()

    async def _deliver_stored(
        self, message: BusMessage, delivery: StoredDelivery, reader: LaneReader
    ) -> None:
        self.received += 1
        try:
            await delivery.mark_started()
            set_current_delivery(delivery)
            error = await self._deliver(message, reader)
        except asyncio.CancelledError:
            delivery.requeue()
            raise
        finally:
            set_current_delivery(None)
        if not delivery.is_deferred:
            delivery.settle(error)

    def _note_refused(self, message: BusMessage | None, reader: LaneReader) -> None:
        """Count a data message that found its subscriber leaving."""
        reader.started = perf_counter()
        if message is not None and self._is_draining:
            self._left += message.category == "data"

    @property
    def _is_draining(self) -> bool:
        return bool(getattr(self.subscriber, "is_draining", False))

    def _accepts(self, message: BusMessage) -> bool:
        try:
            return self.subscriber.accepts_bus_message(message)
        except BaseException as raised:
            error = as_handler_error(raised, f"accepts_bus_message of {self.name!r}")
            if error is None:
                raise
            self.failed += 1
            text = "%s: accepts_bus_message raised for %s; refused"
            logger.error(text, self.name, message, exc_info=error)  # noqa: TRY400 - perhaps another
            return False

    def _begin(self, item: Item, reader: LaneReader) -> Awaitable[None] | None:
        """Handle an item that is not stored until the handler's first wait; log its error.

        Returns:
            The rest of the handler, after which the message is counted; None when it has ended.
        """
        message = self._decode(item, reader.opaque_lane) if isinstance(item, bytes) else item
        if message is None or not self._accepts(message):
            self._note_refused(message, reader)
            return None
        self.received += 1
        reader.message = message
        try:
            rest = self.subscriber.on_bus_message(message)
        except BaseException as raised:  # noqa: BLE001 - raised again where it is not the handler's
            rest = None
            self._note_raised(raised, reader)
        if rest is None:
            self._count(reader)
        return rest

    async def _end(self, rest: Awaitable[None], reader: LaneReader) -> None:
        """Wait for the rest of a handler, and count its message; log its error."""
        try:
            await rest
        except BaseException as raised:  # noqa: BLE001 - raised again where it is not the handler's
            self._note_raised(raised, reader)
        self._count(reader)

    async def _deliver(self, message: BusMessage, reader: LaneReader) -> BaseException | None:
        """Run the handler and count it; what it raised is logged and returned."""
        error: BaseException | None = None
        reader.message = message
        try:
            rest = self.subscriber.on_bus_message(message)
            if rest is not None:
                await rest
        except BaseException as raised:  # noqa: BLE001 - raised again where it is not the handler's
            error = self._note_raised(raised, reader)
        self._count(reader)
        return error

    def _note_raised(self, raised: BaseException, reader: LaneReader) -> BaseException:
        """Log what a handler raised, and return it as an error; raise what is not its own."""
        message = reader.message
        if isinstance(raised, asyncio.CancelledError):
            if not self._is_open:
                raise raised  # we are being stopped
            self._note_failed(message)  # the handler, or what it awaited, was cancelled
            logger.warning("%s: the handler of %s was cancelled", self.name, message)
            return raised
        error = as_handler_error(raised, f"on_bus_message of {self.name!r}", reader.task)
        if error is None:
            raise raised
        self._note_failed(message)
        text = "%s: the handler of %s raised; going on"
        logger.error(text, self.name, message, exc_info=error)
        return error

    def _count(self, reader: LaneReader) -> None:
        """Count the reader's message, which was handled."""
        edges, edge, now, message = self._edges, reader.edge, perf_counter(), reader.message
        if edges is not None and message is not None:
            if (
                message.source != edge.source
                or type(message) is not edge.kind
                or message.target != edge.address
            ):
                edge = reader.edge = edges.find(message)
            edge.handled += 1
            if now > edge.due:
                edge.sample(message.time, reader.started, now)
        reader.started = now

    def _note_failed(self, message: BusMessage | None) -> None:
        self.failed += 1
        if self._edges is not None and message is not None:
            self._edges.find(message).errors += 1


class Mailbox(ItemHandling):
    """One subscriber's two lanes and the tasks that empty them.

    The system lane is handled beside a data handler in progress; within a lane one message at a
    time, in order, by one task, unless a handler lets the lane go on: then another task reads on.
    """

    __slots__ = (
        "_context", "_lanes", "_tasks", "address", "takes_opaque",
    )  # fmt: skip

    def __init__(
        self,
        subscriber: BusSubscriber,
        decode: Decode,
        decode_stored: Decode | None = None,
        edges: EdgeTable | None = None,
    ) -> None:
        super().__init__(subscriber, decode, decode_stored, edges)
        self.address = subscriber.address
        self.takes_opaque = getattr(subscriber, "takes_opaque", False)
        self._lanes: dict[Lane, LaneQueue] = {}  # made when they are used
        self._context = contextvars.Context()
        self._tasks: set[asyncio.Task[None]] | None = None

    @property
    def queued(self) -> int:
        """Messages that wait in both lanes."""
        return sum(map(len, self._lanes.values()))

    @property
    def unhandled(self) -> int:
        """Data messages that are not handled when it is closed now, or that found it draining."""
        return self._left + (len(self._lanes[Lane.DATA]) if Lane.DATA in self._lanes else 0)

    @property
    def held(self) -> int:
        """Those of them that a handler in progress holds back."""
        return sum(queue.held for queue in self._lanes.values())

    def lane(self, lane: Lane) -> LaneQueue:
        """The queue of one lane."""
        try:
            return self._lanes[lane]
        except KeyError:
            gates = getattr(self.subscriber, "gates", {})
            queue = self._lanes[lane] = LaneQueue(_CAPACITIES[lane], gates.get(lane))
            if self._is_open:
                queue.start_reader(functools.partial(self._read_on, lane))
            return queue

    def start(self) -> None:
        """Begin to deliver; the system lane first."""
        if not self._is_open:
            self._is_open = True
            self._context = contextvars.copy_context()
            self._context.run(give_cause, None)  # of what starts it
            for lane, queue in sorted(self._lanes.items(), reverse=True):
                queue.start_reader(functools.partial(self._read_on, lane))

    async def stop(self) -> None:
        """End delivery; a handler in progress is cancelled, what waits is given back."""
        self._is_open = False
        tasks = (self._tasks or set()) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for queue in self._lanes.values():
            queue.forget_reader()
            for _, delivery in queue.drain():
                if delivery is not None:
                    delivery.abandon()

    def _read_on(self, lane: Lane) -> None:
        """Give a lane a reader, while there is delivery."""
        if not self._is_open:
            return
        queue = self._lanes[lane]
        queue.is_busy = False
        reader = LaneReader(functools.partial(self._read_on, lane), queue.gate)
        reader.opaque_lane = lane if self.takes_opaque else None
        task = asyncio.create_task(
            self._read(lane, reader), name=f"pbus {self.name} {lane}", context=self._context.copy()
        )
        self._tasks = self._tasks or set()
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._note_end, lane, reader))

    def _note_end(self, lane: Lane, reader: LaneReader, task: asyncio.Task[None]) -> None:
        (self._tasks or set()).discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: a reader ended: a bug in pbus", self.name, exc_info=error)
        if self._is_open and not reader.is_released and not _loop_end.has_come():
            self._read_on(lane)  # a handler was cancelled from outside: its lane goes on

    async def _read(self, lane: Lane, reader: LaneReader) -> None:
        set_current_reader(reader)
        queue, urgent = self._lanes[lane], self.lane(Lane.SYSTEM)
        urgent_items = self._urgent_beside(lane)
        reader.started = perf_counter()
        turn_ends = reader.started + TURN_S
        while not self._is_over(reader):
            if urgent_items and not urgent.is_busy:
                await asyncio.sleep(0)  # between any two messages the urgent ones come first
                reader.started = perf_counter()
                continue
            queue.is_busy = True
            is_empty = await self._handle_run(queue, reader, urgent_items, turn_ends)
            if reader.is_released:
                return
            queue.is_busy = False
            if is_empty:
                reader.message = None
                await queue.wait()
                reader.started = perf_counter()
                turn_ends = reader.started + TURN_S
            elif reader.started > turn_ends:
                reader.started = await _let_others_in()
                turn_ends = reader.started + TURN_S

    async def _handle_run(
        self, queue: LaneQueue, reader: LaneReader, others: Collection[Entry], turn_ends: float
    ) -> bool:
        """Handle the items of a lane one by one, with no task and no coroutine of its own for each.

        Args:
            queue: The lane.
            reader: Reads it.
            others: The items that come first.
            turn_ends: When others get their turn, by `time.perf_counter`.

        Returns:
            Whether there is no further item; False where it ended for another reason.
        """
        while True:
            try:
                item, delivery = queue.get_nowait()
            except IndexError:
                return True
            if delivery is not None or not self.is_flat:
                await self._handle_told(item, delivery, reader)
            elif (rest := self._begin(item, reader)) is not None:
                try:
                    await rest
                except BaseException as raised:  # noqa: BLE001 - raised again where it is not the handler's
                    self._note_raised(raised, reader)
                self._count(reader)
            if others or reader.started > turn_ends or self._is_over(reader):
                return False

    def _is_over(self, reader: LaneReader) -> bool:
        """Whether a reader handles no further item: it is released, or ended."""
        task = reader.task
        return reader.is_released or not self._is_open or task is None or task.cancelling() > 0

    def _urgent_beside(self, lane: Lane) -> Collection[Entry]:
        """The items that come before the next one of a lane."""
        return () if lane is Lane.SYSTEM else self.lane(Lane.SYSTEM).items


async def _let_others_in() -> float:
    """Give the rest of the process its turn; returns the time after it."""
    for _ in range(_STEPS_IN):
        await asyncio.sleep(0)
    return perf_counter()
