"""One lane of a mailbox: a bounded first-in-first-out queue, and what its gate holds back."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from pbus.bus.lane_gate import LaneGate
from pbus.bus.local.lane_reader import Item, LaneDelivery
from pbus.codec import type_of
from pbus.messages import BusMessage

HELD_BYTES = 16 * 1024 * 1024  # held back in one lane before its senders are made to wait
_SCAN = 500  # messages looked at before the rest of the process gets its turn


Entry = tuple[Item, LaneDelivery | None]
Turn = asyncio.Future[None]


class ReaderStart:
    """Stands in for the turn of a reader that is not there yet: its result starts it.

    Args:
        queue: The reader's.
        start: Starts it.
    """

    __slots__ = ("_queue", "_start")

    def __init__(self, queue: "LaneQueue", start: Callable[[], None]) -> None:
        self._queue = queue
        self._start = start

    def done(self) -> bool:
        """Whether the reader is there: never, since this is replaced then."""
        return False

    def set_result(self, result: None) -> None:
        """Start the reader, unless a gate was opened before nothing."""
        del result
        if not self._queue.items:
            return
        self._queue.forget_reader()
        self._start()


class ReaderTurn(asyncio.Future[None]):
    """A future for one waiting task, which go_on() resumes without a turn of the loop.

    From the socket to the handler it is one turn then, not two: of a message to an idle receiver that
    is a tenth of the processor time.
    """

    __slots__ = ("_wake_context", "_wake_up")

    def __init__(self) -> None:
        super().__init__()
        self._wake_up: Callable[..., Any] | None = None
        self._wake_context: contextvars.Context | None = None

    def add_done_callback(
        self, callback: Callable[..., Any], /, *, context: contextvars.Context | None = None
    ) -> None:
        """Note the one task that waits."""
        self._wake_up, self._wake_context = callback, context
        if self.done():
            self._resume_soon()

    def set_result(self, result: None, /) -> None:
        """Have the task resumed in the next turn of the loop."""
        super().set_result(result)
        self._resume_soon()

    def cancel(self, msg: Any | None = None) -> bool:
        """Have the task resumed with a CancelledError; returns whether it waited."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._resume_soon()
        return is_cancelled

    def go_on(self) -> None:
        """Resume the task here and now, or soon where another task runs here. Idempotent."""
        if self.done():
            return
        resume, context = self._wake_up, self._wake_context
        if resume is None or context is None or asyncio.current_task() is not None:
            self.set_result(None)
            return
        super().set_result(None)
        context.run(resume, self)

    def _resume_soon(self) -> None:
        if self._wake_up is not None:
            self.get_loop().call_soon(self._wake_up, self, context=self._wake_context)


class ReaderTurns:
    """The turns that end together, once what was put is accounted for.

    Attributes:
        collected: Those so far; None where each ends by itself.
    """

    __slots__ = ("collected",)

    def __init__(self) -> None:
        self.collected: list[ReaderTurn] | None = None

    def begin(self) -> None:
        """Let readers wait until end()."""
        self.collected = []

    def end(self) -> None:
        """Have those readers go on here and now, or soon where a task is running."""
        turns, self.collected = self.collected, None
        for turn in turns or ():
            turn.go_on()


class LaneQueue:
    """A bounded FIFO for one reader and many writers; writers wait for room in turn.

    While the gate is held, what may not pass is put aside in order, and is the next when it opens.
    What passes does not wait behind it for room: the handler in progress may wait for just that.

    Args:
        capacity: Messages, those held back included.
        gate: Of the lane.

    Attributes:
        items: What was not looked at yet.
        is_busy: A handler is in progress: the reader takes nothing meanwhile.
    """

    __slots__ = (
        "_ahead", "_held", "_held_bytes", "_reader", "_writers", "capacity", "gate", "is_busy",
        "items",
    )  # fmt: skip

    def __init__(self, capacity: int, gate: LaneGate | None = None) -> None:
        self.capacity = capacity
        self.gate = gate or LaneGate()
        self.gate.on_change = self._wake_reader
        self.items: deque[Entry] = deque()
        self.is_busy = False
        # Made when they are needed: most of very many lanes never hold anything back.
        self._held: deque[tuple[Entry, int]] | None = None  # and their bytes
        self._held_bytes = 0
        self._reader: ReaderTurn | ReaderStart | None = None
        self._writers: deque[Turn] | None = None
        self._ahead: deque[Turn] | None = None  # writers of what passes

    def __len__(self) -> int:
        return len(self.items) + self.held

    @property
    def held(self) -> int:
        """The number of messages that are held back."""
        return 0 if self._held is None else len(self._held)

    def takes(self, kind: type[BusMessage]) -> bool:
        """Whether a message of this class need not wait for room."""
        if self._goes_ahead(kind):
            return len(self.items) < self.capacity and not self._ahead
        return len(self) < self.capacity and not self._writers

    def put_nowait(self, item: Entry) -> None:
        """Append without a look at the capacity: for transports that bound what comes in."""
        self.items.append(item)
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    def extend_nowait(self, items: Iterable[Entry], turns: list[ReaderTurn] | None = None) -> None:
        """As put_nowait(), several at once.

        Args:
            items: At least one.
            turns: The turn of a reader that waits is put there, to be ended by the caller; None to
                have it end here.
        """
        self.items.extend(items)
        reader = self._reader
        if turns is not None and type(reader) is ReaderTurn:
            turns.append(reader)
        elif reader is not None and not reader.done():
            reader.set_result(None)

    async def put(self, item: Item, kind: type[BusMessage]) -> None:
        """Append, waiting for room behind earlier writers. Bound it with a deadline.

        Args:
            item: A message, perhaps encoded.
            kind: Its class.
        """
        if not self.takes(kind):
            if self._goes_ahead(kind):
                writers = self._ahead = self._ahead or deque()
            else:
                writers = self._writers = self._writers or deque()
            await self._wait_for_room(writers)
        self.put_nowait((item, None))

    def start_reader(self, start: Callable[[], None]) -> None:
        """Have a reader started as soon as there is something for it."""
        if self.items:
            start()
        else:
            self._reader = ReaderStart(self, start)

    def forget_reader(self) -> None:
        """Start no reader any more."""
        self._reader = None

    async def wait(self) -> None:
        """Wait until there may be something for the reader. Only one reader at a time."""
        while not self._has_next():
            if self.items and not self.gate.is_shut:
                await asyncio.sleep(0)  # there is more to look at
                continue
            turn = self._reader = ReaderTurn()
            await turn

    def get_nowait(self) -> Entry:
        """The next item; IndexError when there is none that may be handled now."""
        if self.gate.is_free:
            item = self._next_held(self._held) if self._held else self.items.popleft()
        elif self._has_next():
            item = self.items.popleft()
        else:
            raise IndexError
        if self._writers or self._ahead:
            self._wake_writer()
        return item

    def drain(self) -> list[Entry]:
        """Take everything that waits."""
        taken = [*(item for item, _ in self._held or ()), *self.items]
        self._held = None
        self._held_bytes = 0
        self.items.clear()
        while self._writers or self._ahead:
            self._wake_writer()
        return taken

    def _goes_ahead(self, kind: type[BusMessage]) -> bool:
        return not self.gate.is_free and self.gate.lets(kind)

    def _has_next(self) -> bool:
        """Whether something may be handled now; while the lane is held it is the first item then."""
        gate, items = self.gate, self.items
        if gate.is_free:
            return bool(items or self._held)
        if gate.is_shut:
            return False
        for _ in range(_SCAN):
            if not items:
                return False
            body = items[0][0]
            if gate.lets(type_of(body) if isinstance(body, bytes) else type(body)):
                return True
            self._hold_back(items.popleft())
            if self._ahead:
                self._wake_writer()
        return False

    def _hold_back(self, item: Entry) -> None:
        body, delivery = item
        size = _size_of(item)
        self._held_bytes += size
        if delivery is not None and self._held_bytes <= HELD_BYTES:
            delivery = delivery.hold_back()
        held = self._held = self._held or deque()
        held.append(((body, delivery), size))

    def _next_held(self, held: deque[tuple[Entry, int]]) -> Entry:
        item, size = held.popleft()
        self._held_bytes -= size
        return item

    def _wake_reader(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def _wait_for_room(self, writers: deque[Turn]) -> None:
        turn: Turn = asyncio.get_running_loop().create_future()
        writers.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake_writer()  # our turn came as we gave up: pass it on
            else:
                writers.remove(turn)
            raise

    def _wake_writer(self) -> None:
        """Let one writer go on, if there is room for what it has."""
        for writers, used in ((self._ahead, len(self.items)), (self._writers, len(self))):
            while writers and used < self.capacity:
                turn = writers.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return


def _size_of(item: Entry) -> int:
    """Its bytes; a broadcast is decoded on arrival: its payload's, which came with the receipt."""
    body, delivery = item
    if isinstance(body, bytes):
        return len(body)
    return 0 if delivery is None else delivery.size
