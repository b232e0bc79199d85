"""The sending half of stored mail: gathers messages, stores them in batches, tells each sender."""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterable

import msgspec

from pbus.bus.local.router import EVERYONE
from pbus.bus.queues.store import PutResult, QueueEntry, QueueStore
from pbus.concurrency.background import TaskFunction
from pbus.errors import BrokerFaultError, BusFullError, BusUnavailableError
from pbus.messages import BusJobRequestMessage, BusMessage, Lane
from pbus.settings import BusSettings

logger = logging.getLogger(__name__)

MAX_BATCH = 2_000  # messages a put
MAX_ENTRY_BYTES = 256 * 1024  # messages that share an entry
FULL_RETRY_S = 0.05
OUTAGE_PAUSE_S = 0.2
_SAY_EVERY_S = 60.0
_HELD_TRIED = 200  # of one mailbox without room at once: it has room for few


class EncodedMessage(msgspec.Struct, frozen=True, gc=False):
    """One encoded message, and where it goes.

    Attributes:
        is_alone: It shares no entry: requests to replicas are dealt out one by one.
    """

    address: str
    lane: Lane
    id: str
    line: bytes
    is_alone: bool = False

    @classmethod
    def of(cls, message: BusMessage, line: bytes) -> "EncodedMessage":
        """An encoded message."""
        is_alone = isinstance(message, BusJobRequestMessage)
        return cls(message.target or EVERYONE, message.lane, message.id, line, is_alone)


class QueueProducer:
    """Stores what is sent, each lane by itself.

    Args:
        store: Where.
        sender: This process's incarnation.
        settings: Of the bus: how long a send waits, and what it does when a queue is full.
    """

    def __init__(self, store: QueueStore, sender: str, settings: BusSettings) -> None:
        self._lanes = {lane: LaneProducer(store, sender, settings) for lane in Lane}

    def put(self, stamped: EncodedMessage) -> asyncio.Future[int]:
        """Have a message stored; the result is in how many mailboxes, once the broker confirmed it.

        Its errors: BusFullError, where the mailbox made no room in time, BrokerFaultError, where the
        broker cannot store this message, and BusUnavailableError,
        where the broker was away for the whole send timeout: stored or not, nobody knows.
        """
        return self._lanes[stamped.lane].put(stamped)

    def chores(self) -> list[TaskFunction]:
        """What stores, each until cancelled."""
        return [lane.run for lane in self._lanes.values()]

    def fail_all(self, error: Exception) -> None:
        """Nothing more will be stored: tell those who wait."""
        for lane in self._lanes.values():
            lane.fail_all(error)


class PendingPut:
    """One message on its way into the store."""

    __slots__ = ("number", "stamped", "stored", "until")

    def __init__(
        self, stamped: EncodedMessage, number: int, until: float, stored: asyncio.Future[int]
    ) -> None:
        self.stamped = stamped
        self.number = number
        self.until = until
        self.stored = stored

    @property
    def address(self) -> str:
        """Where it goes."""
        return self.stamped.address

    def fail(self, error: BaseException) -> None:
        """Tell its sender, unless that went away."""
        if not self.stored.done():
            self.stored.set_exception(error)


class LaneProducer:
    """Stores one lane's messages; one batch at a time, or order means nothing.

    Who finds a mailbox full waits aside, and with him whatever must not overtake him; the others
    go on.
    """

    def __init__(self, store: QueueStore, sender: str, settings: BusSettings) -> None:
        self._store = store
        self._sender = sender
        self._settings = settings
        self._waiting: deque[PendingPut] = deque()
        self._held: dict[str, deque[PendingPut]] = {}  # by mailbox without room
        self._behind: deque[PendingPut] = deque()  # from a broadcast that has to wait, on
        self._retry_at = 0.0
        self._numbers: Counter[str] = Counter()
        self._reached: dict[str, int] = {}  # by address: how many mailboxes there were
        self._full: dict[str, str] = {}  # by address without room: which bound was reached
        self._said: dict[str, float] = {}  # and when that was said
        self._has_mail = asyncio.Event()

    def put(self, stamped: EncodedMessage) -> asyncio.Future[int]:
        """See Dispatch."""
        number = self._numbers[stamped.address] = self._numbers[stamped.address] + 1
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[int] = loop.create_future()
        until = loop.time() + self._settings.send_timeout
        self._waiting.append(PendingPut(stamped, number, until, stored))
        if not self._has_mail.is_set():
            self._has_mail.set()
        return stored

    async def run(self) -> None:
        """Store until cancelled."""
        while True:
            await self._wait()
            if batch := self._next_batch():
                self._hold(await self._store_batch(batch))

    def fail_all(self, error: Exception) -> None:
        """See Dispatch."""
        for parcel in (*self._waiting, *self._all_held()):
            parcel.fail(error)
        self._waiting.clear()
        self._held.clear()
        self._behind.clear()

    def _all_held(self) -> list[PendingPut]:
        return [*(parcel for queue in self._held.values() for parcel in queue), *self._behind]

    async def _wait(self) -> None:
        """Until there is something new, or it is time to try again what was held up."""
        if self._waiting:
            return
        self._has_mail.clear()
        limit = None
        if self._held or self._behind:
            limit = max(0.0, self._retry_at - asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._has_mail.wait()

    def _next_batch(self) -> list[PendingPut]:
        batch: list[PendingPut] = []
        if asyncio.get_running_loop().time() >= self._retry_at:
            batch = self._released()
        while self._waiting and len(batch) < MAX_BATCH:
            parcel = self._waiting.popleft()
            if not parcel.stored.done() and not self._is_held_up(parcel):
                batch.append(parcel)
        return batch

    def _is_held_up(self, parcel: PendingPut) -> bool:
        """Whether it must wait aside; if so, it does."""
        if self._behind or (parcel.address == EVERYONE and self._held):
            self._behind.append(parcel)
        elif parcel.address in self._held:
            self._held[parcel.address].append(parcel)
        else:
            return False
        return True

    def _released(self) -> list[PendingPut]:
        """The first of each that was held up; those whose time is over are told."""
        self._drop_late()
        batch = []
        for queue in self._held.values():
            for _ in range(min(_HELD_TRIED, len(queue))):
                parcel = queue.popleft()
                if not parcel.stored.done():
                    batch.append(parcel)
        if not batch and self._behind:
            self._waiting.extendleft(reversed(self._behind))
            self._behind.clear()
        return batch

    def _drop_late(self) -> None:
        now = asyncio.get_running_loop().time()
        for address, queue in list(self._held.items()):
            self._drop_late_of(queue, now)
            if not queue:
                del self._held[address]
        self._drop_late_of(self._behind, now)

    def _drop_late_of(self, queue: deque[PendingPut], now: float) -> None:
        while queue and (queue[0].stored.done() or queue[0].until <= now):  # the oldest first
            self._refuse(queue.popleft(), self._settings.send_timeout)

    async def _store_batch(self, parcels: list[PendingPut]) -> list[PendingPut]:
        """Store what there is room for; the rest, in order, has to wait."""
        while parcels := [parcel for parcel in parcels if not parcel.stored.done()]:
            entries = entries_of(parcels)
            try:
                results = await self._store.put([self._outgoing(entry) for entry in entries])
            except BrokerFaultError as error:
                return await self._find_fault(parcels, error)
            except BusUnavailableError as error:
                parcels = _in_time(parcels, error)
                await asyncio.sleep(OUTAGE_PAUSE_S)
            except Exception as error:
                logger.exception("storing messages failed: a bug in pbus; their senders are told")
                for parcel in parcels:
                    parcel.fail(error)
                return []
            except asyncio.CancelledError as error:
                for parcel in parcels:
                    parcel.fail(error)
                raise
            else:
                return self._digest(entries, results)
        return []

    async def _find_fault(
        self, parcels: list[PendingPut], error: BrokerFaultError
    ) -> list[PendingPut]:
        """Tell the sender of what the broker cannot store; the others' messages go on, in order."""
        if len(parcels) == 1:
            parcels[0].fail(error)
            return []
        waits: list[PendingPut] = []
        refused: set[str] = set()
        try:
            for parcel in parcels:
                must_wait = _must_follow(parcel, refused)
                waits += [parcel] if must_wait else await self._store_batch([parcel])
                refused.update(one.address for one in waits[-1:])
        except asyncio.CancelledError as cancelled:
            for parcel in parcels:
                parcel.fail(cancelled)
            raise
        return waits

    def _digest(
        self, entries: list[list[PendingPut]], results: Iterable[PutResult]
    ) -> list[PendingPut]:
        refused: list[PendingPut] = []
        is_full = False
        for entry, result in zip(entries, results, strict=True):
            address = entry[0].address
            if result.is_full or (
                result.is_young and result.mailboxes < self._reached.get(address, 0)
            ):
                refused += entry
                is_full = is_full or result.is_full
                self._note_full(address, result.why)
                continue
            self._reached[address] = result.mailboxes
            self._full.pop(address, None)
            for parcel in entry:
                if not parcel.stored.done():
                    parcel.stored.set_result(result.mailboxes)
        if is_full and self._settings.delivery_options.when_full == "refuse":
            self._refuse_first(refused)
            return []
        return refused

    def _note_full(self, address: str, why: str) -> None:
        if not why:
            return
        self._full[address] = why
        now = asyncio.get_running_loop().time()
        if now - self._said.get(address, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said[address] = now
            logger.warning("no room to send to %r: %s", address, why)

    def _hold(self, refused: list[PendingPut]) -> None:
        """Put aside what found no room, before what already waits there."""
        tried = set(self._held)
        first = next((at for at, one in enumerate(refused) if one.address == EVERYONE), None)
        targeted = refused if first is None else refused[:first]
        for parcel in reversed(targeted):
            self._held.setdefault(parcel.address, deque()).appendleft(parcel)
        if first is not None:
            self._behind.extendleft(reversed(refused[first:]))
        for address in tried:
            if not self._held[address]:
                del self._held[address]
        if refused:
            self._retry_at = asyncio.get_running_loop().time() + FULL_RETRY_S

    def _refuse_first(self, refused: list[PendingPut]) -> None:
        """The first found its mailbox full; others perhaps only must not overtake it."""
        address = refused[0].address
        for parcel in refused:
            if parcel.address == address:
                self._refuse(parcel, 0.0)
        rest = [parcel for parcel in refused if parcel.address != address]
        self._waiting.extendleft(reversed(rest))

    def _refuse(self, parcel: PendingPut, waited: float) -> None:
        reason = self._full.get(parcel.address, "earlier messages wait for room")
        parcel.fail(BusFullError(repr(parcel.address), waited, reason))

    def _outgoing(self, entry: list[PendingPut]) -> QueueEntry:
        first = entry[0]
        return QueueEntry(
            address=first.stamped.address,
            lane=first.stamped.lane,
            bodies=[parcel.stamped.line for parcel in entry],
            ids=[parcel.stamped.id for parcel in entry],
            sender=self._sender,
            stream=1,
            first=first.number,
        )


def _must_follow(parcel: PendingPut, refused: set[str]) -> bool:
    """Whether what was refused at these addresses comes before it in some mailbox."""
    is_broadcast = parcel.address == EVERYONE and bool(refused)
    return is_broadcast or parcel.address in refused or EVERYONE in refused


def _in_time(parcels: list[PendingPut], error: Exception) -> list[PendingPut]:
    """Those that may wait longer for the broker; the others are told."""
    now = asyncio.get_running_loop().time()
    for parcel in parcels:
        if parcel.until <= now:
            parcel.fail(error)
    return [parcel for parcel in parcels if parcel.until > now]


def entries_of(parcels: list[PendingPut]) -> list[list[PendingPut]]:
    """Parcels of a lane that share an entry: neighbours in one stream, with nothing in between.

    A broadcast closes what is open, and the other way round, as in the outbox.
    """
    entries: list[list[PendingPut]] = []
    open_at: dict[str, int] = {}
    sizes: list[int] = []
    for parcel in parcels:
        stamped = parcel.stamped
        if stamped.address == EVERYONE:
            open_at = {key: at for key, at in open_at.items() if key == EVERYONE}
        else:
            open_at.pop(EVERYONE, None)
        at = open_at.get(stamped.address)
        follows = at is not None and entries[at][-1].number + 1 == parcel.number
        if at is None or not follows or stamped.is_alone or sizes[at] > MAX_ENTRY_BYTES:
            entries.append([parcel])
            sizes.append(len(stamped.line))
            open_at.pop(stamped.address, None)
            if not stamped.is_alone:
                open_at[stamped.address] = len(entries) - 1
        else:
            entries[at].append(parcel)
            sizes[at] += len(stamped.line)
    return entries
