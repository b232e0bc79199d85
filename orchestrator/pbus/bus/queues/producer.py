"""The sending half of stored messages: gathers them, stores them in batches, tells each sender."""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterable

from pbus.bus.coalescing import EVERYONE
from pbus.bus.queues.full_queues import FullQueues
from pbus.bus.queues.pending_put import EncodedMessage, PendingPut, Receipt, entries_of
from pbus.bus.queues.store import PutResult, QueueEntry, QueueStore
from pbus.codec import Encoding, check_key, encode_message, known_form
from pbus.concurrency.background import TaskFunction
from pbus.errors import BrokerFaultError, BusFullError, BusUnavailableError
from pbus.messages import BusMessage, Lane
from pbus.settings import BusSettings
from pbus.stats.edge_table import EdgeTable

logger = logging.getLogger(__name__)

MAX_BATCH = 2_000  # messages a put
FULL_RETRY_S = 0.05
OUTAGE_PAUSE_S = 0.2
_BLOCKED_TRIED = 200  # of one queue without room at once: it has room for few


class QueueProducer:
    """Stores what is sent, each lane by itself.

    Args:
        store: Where.
        sender: This process's incarnation.
        settings: Of the bus: how long a send waits, and what it does when a queue is full.
        edges: Where messages are counted by source and type, if they are.
    """

    def __init__(
        self,
        store: QueueStore,
        sender: str,
        settings: BusSettings,
        edges: EdgeTable | None = None,
    ) -> None:
        self._limit, self._encoding = settings.max_message_bytes, Encoding(settings.encoding)
        self._lanes = {lane: LaneProducer(store, sender, settings, edges) for lane in Lane}

    def put(self, encoded: EncodedMessage) -> asyncio.Future[int]:
        """Have a message stored; the result is in how many queues, once the broker confirmed it.

        Its errors: BusFullError, where the queue made no room in time, BrokerFaultError, where the
        broker cannot store this message, and BusUnavailableError,
        where the broker was away for the whole send timeout: stored or not, which is unknown.
        """
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._lanes[encoded.lane].put(encoded, stored)
        return stored

    def enqueue(self, message: BusMessage, receipt: Receipt) -> None:
        """Encode a message and have it stored, with the outcome of put() in a receipt.

        Raises:
            MessageEncodeError: A field cannot be carried unchanged, or its key is none.
        """
        if message.is_opaque:
            message = known_form(message)
        if message.key is not None:
            check_key(message.key, type(message).__name__)
        line = encode_message(message, limit=self._limit, encoding=self._encoding)
        receipt.size = len(line)
        self._lanes[message.lane].put(EncodedMessage.of(message, line), receipt)

    def tasks(self) -> list[TaskFunction]:
        """The functions that store, each until cancelled."""
        return [lane.run for lane in self._lanes.values()]

    def fail_all(self, error: Exception) -> None:
        """Nothing more will be stored: tell those who wait."""
        for lane in self._lanes.values():
            lane.fail_all(error)


class LaneProducer:
    """Stores one lane's messages; one batch at a time, or order means nothing.

    What finds a queue full waits aside, with whatever must not overtake it; the others go on.
    """

    def __init__(
        self,
        store: QueueStore,
        sender: str,
        settings: BusSettings,
        edges: EdgeTable | None = None,
    ) -> None:
        self._edges = edges
        self._store = store
        self._put_now = store.put_now
        self._sender = sender
        self._settings = settings
        self._waiting: deque[PendingPut] = deque()
        self._blocked_by_queue: dict[str, deque[PendingPut]] = {}  # by queue without room
        # From a broadcast that has to wait, on.
        self._blocked_behind_broadcast: deque[PendingPut] = deque()
        self._retry_at = 0.0
        self._numbers: Counter[str] = Counter()
        self._reached: dict[str, int] = {}  # by address: how many queues there were
        self._full = FullQueues()
        self._has_waiting = asyncio.Event()
        self._is_running = False
        self._is_storing = False  # by run()
        self._posted: PendingPut | None = None  # being stored outside of run()
        self._are_single = True  # the last one was stored by itself, and no other came meanwhile

    def put(self, encoded: EncodedMessage, stored: asyncio.Future[int] | Receipt) -> None:
        """See QueueProducer."""
        number = self._numbers[encoded.address] = self._numbers[encoded.address] + 1
        until = asyncio.get_running_loop().time() + self._settings.send_timeout
        pending = PendingPut(encoded, number, until, stored)
        if self._are_single and self._is_idle and self._post(pending):
            return
        self._waiting.append(pending)
        if not self._has_waiting.is_set() and self._posted is None:
            self._has_waiting.set()

    async def run(self) -> None:
        """Store until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._wait()
                if batch := self._next_batch():
                    self._is_storing = True
                    self._block(await self._store_batch(batch))
                    self._is_storing = False
                    self._are_single = len(batch) == 1 and not self._waiting
        finally:
            self._is_running = self._is_storing = False

    @property
    def _is_idle(self) -> bool:
        """Whether nothing is under way, or waits before what comes now."""
        is_busy = self._is_storing or self._posted is not None or self._waiting
        return self._is_running and not (
            is_busy or self._blocked_by_queue or self._blocked_behind_broadcast
        )

    def _post(self, pending: PendingPut) -> bool:
        """Have a message stored without a turn of the loop; returns False where the store cannot."""
        entry = _outgoing(self._sender, [pending])
        if self._put_now is None or not self._put_now(entry, self._end_post):
            return False
        self._posted = pending
        return True

    def _end_post(self, result: PutResult | None) -> None:
        pending, self._posted = self._posted, None
        if pending is None:
            return  # its sender was told
        self._are_single = not self._waiting
        if result is None:
            self._waiting.appendleft(
                pending
            )  # run() has more ways; its number tells that it is the same
        else:
            self._apply_results([[pending]], [result])
        if self._waiting:
            self._has_waiting.set()

    def fail_all(self, error: Exception) -> None:
        """See QueueProducer."""
        posted, self._posted = self._posted, None
        for put in (*([posted] if posted else ()), *self._waiting, *self._all_blocked()):
            put.fail(error)
        self._waiting.clear()
        self._blocked_by_queue.clear()
        self._blocked_behind_broadcast.clear()

    def _all_blocked(self) -> list[PendingPut]:
        by_queue = self._blocked_by_queue.values()
        return [*(put for queue in by_queue for put in queue), *self._blocked_behind_broadcast]

    async def _wait(self) -> None:
        """Until there is something new, or it is time to try again what was held up."""
        if self._waiting and self._posted is None:
            return
        self._has_waiting.clear()
        limit = None
        if self._blocked_by_queue or self._blocked_behind_broadcast:
            limit = max(0.0, self._retry_at - asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._has_waiting.wait()

    def _next_batch(self) -> list[PendingPut]:
        batch: list[PendingPut] = []
        if asyncio.get_running_loop().time() >= self._retry_at:
            batch = self._released()
        while self._waiting and len(batch) < MAX_BATCH:
            put = self._waiting.popleft()
            if not put.stored.done() and not self._block_if_needed(put):
                batch.append(put)
        return batch

    def _block_if_needed(self, put: PendingPut) -> bool:
        """Whether it must wait aside; if so, it does."""
        if self._blocked_behind_broadcast or (put.address == EVERYONE and self._blocked_by_queue):
            self._blocked_behind_broadcast.append(put)
        elif put.address in self._blocked_by_queue:
            self._blocked_by_queue[put.address].append(put)
        else:
            return False
        return True

    def _released(self) -> list[PendingPut]:
        """The first of each that was held up; those whose time is over are told."""
        self._expire_blocked()
        batch = []
        for queue in self._blocked_by_queue.values():
            for _ in range(min(_BLOCKED_TRIED, len(queue))):
                put = queue.popleft()
                if not put.stored.done():
                    batch.append(put)
        if not batch and self._blocked_behind_broadcast:
            self._waiting.extendleft(reversed(self._blocked_behind_broadcast))
            self._blocked_behind_broadcast.clear()
        return batch

    def _expire_blocked(self) -> None:
        now = asyncio.get_running_loop().time()
        for address, queue in list(self._blocked_by_queue.items()):
            self._expire_queue(queue, now)
            if not queue:
                del self._blocked_by_queue[address]
        self._expire_queue(self._blocked_behind_broadcast, now)

    def _expire_queue(self, queue: deque[PendingPut], now: float) -> None:
        while queue and (queue[0].stored.done() or queue[0].until <= now):  # the oldest first
            self._refuse(queue.popleft(), self._settings.send_timeout)

    async def _store_batch(self, puts: list[PendingPut]) -> list[PendingPut]:
        """Store what there is room for; returns the rest, in order, which has to wait."""
        while puts := [put for put in puts if not put.stored.done()]:
            entries = entries_of(puts)
            try:
                results = await self._store.put([_outgoing(self._sender, one) for one in entries])
            except BrokerFaultError as error:
                return await self._find_fault(puts, error)
            except BusUnavailableError as error:
                puts = _in_time(puts, error)
                await asyncio.sleep(OUTAGE_PAUSE_S)
            except BaseException as error:
                _fail(puts, error)
                if not isinstance(error, Exception):
                    raise
                logger.exception("storing messages failed: a bug in pbus; their senders are told")
                return []
            else:
                return self._apply_results(entries, results)
        return []

    async def _find_fault(
        self, puts: list[PendingPut], error: BrokerFaultError
    ) -> list[PendingPut]:
        """Tell the sender of what the broker cannot store; the others' messages go on, in order."""
        if len(puts) == 1:
            puts[0].fail(error)
            return []
        waits: list[PendingPut] = []
        refused: set[str] = set()
        try:
            for put in puts:
                must_wait = _must_follow(put, refused)
                waits += [put] if must_wait else await self._store_batch([put])
                refused.update(one.address for one in waits[-1:])
        except asyncio.CancelledError as cancelled:
            _fail(puts, cancelled)
            raise
        return waits

    def _apply_results(
        self, entries: list[list[PendingPut]], results: Iterable[PutResult]
    ) -> list[PendingPut]:
        refused: list[PendingPut] = []
        is_full = False
        for entry, result in zip(entries, results, strict=True):
            address = entry[0].address
            if result.is_full or (
                result.is_young and result.queues < self._reached.get(address, 0)
            ):
                refused += entry
                is_full = is_full or result.is_full
                self._full.note(address, result.why)
                continue
            self._reached[address] = result.queues
            self._full.forget(address)
            _count(self._edges, entry, is_undelivered=result.queues == 0)
            for put in entry:
                if not put.stored.done():
                    put.stored.set_result(result.queues)
        if is_full and self._settings.delivery_options.when_full == "refuse":
            self._refuse_first(refused)
            return []
        return refused

    def _block(self, refused: list[PendingPut]) -> None:
        """Put aside what found no room, before what already waits there."""
        tried = set(self._blocked_by_queue)
        first = next((at for at, one in enumerate(refused) if one.address == EVERYONE), None)
        targeted = refused if first is None else refused[:first]
        for put in reversed(targeted):
            self._blocked_by_queue.setdefault(put.address, deque()).appendleft(put)
        if first is not None:
            self._blocked_behind_broadcast.extendleft(reversed(refused[first:]))
        for address in tried:
            if not self._blocked_by_queue[address]:
                del self._blocked_by_queue[address]
        if refused:
            self._retry_at = asyncio.get_running_loop().time() + FULL_RETRY_S

    def _refuse_first(self, refused: list[PendingPut]) -> None:
        """The first found its queue full; others perhaps only must not overtake it."""
        address = refused[0].address
        for put in refused:
            if put.address == address:
                self._refuse(put, 0.0)
        rest = [put for put in refused if put.address != address]
        self._waiting.extendleft(reversed(rest))

    def _refuse(self, put: PendingPut, waited: float) -> None:
        put.fail(BusFullError(repr(put.address), waited, self._full.reason(put.address)))


def _outgoing(sender: str, puts: list[PendingPut]) -> QueueEntry:
    """The entry of messages that are stored as one."""
    first = puts[0]
    return QueueEntry(
        address=first.encoded.address,
        lane=first.encoded.lane,
        bodies=[put.encoded.line for put in puts],
        ids=[put.encoded.id for put in puts],
        sender=sender,
        stream=1,
        first=first.number,
    )


def _count(edges: EdgeTable | None, puts: list[PendingPut], *, is_undelivered: bool) -> None:
    if edges is None:
        return
    lines = [put.encoded.line for put in puts]
    edges.note_sent(puts[0].address, lines, sum(map(len, lines)), is_undelivered=is_undelivered)


def _must_follow(put: PendingPut, refused: set[str]) -> bool:
    """Whether what was refused at these addresses comes before it in some queue."""
    is_broadcast = put.address == EVERYONE and bool(refused)
    return is_broadcast or put.address in refused or EVERYONE in refused


def _fail(puts: list[PendingPut], error: BaseException) -> None:
    for put in puts:
        put.fail(error)


def _in_time(puts: list[PendingPut], error: Exception) -> list[PendingPut]:
    """Those that may wait longer for the broker; the others are told."""
    now = asyncio.get_running_loop().time()
    for put in puts:
        if put.until <= now:
            put.fail(error)
    return [put for put in puts if put.until > now]
