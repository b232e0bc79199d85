"""At-least-once delivery on top of a MailStore: sending, taking, settling, trying again.

Transport-free: what a broker does is in the store; what a bus does with mail is here.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from pbus.bus.mail import Letter, MailStore, Outgoing, Settle
from pbus.bus.mailbox import StoredReceipt
from pbus.bus.switchboard import EVERYONE, Switchboard
from pbus.codec import decode_message
from pbus.errors import BusFullError, BusUnavailableError, MessageDecodeError
from pbus.messages import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    Lane,
)

logger = logging.getLogger(__name__)

PREFETCH = 1_000  # letters of one mailbox in this process at once, where its worker says nothing
MAX_BATCH = 2_000  # messages a put
MAX_ENTRY_BYTES = 256 * 1024  # messages that share an entry
WAIT_S = 2.0  # how long a take waits for mail before it looks around again
FULL_RETRY_S = 0.05
_FIRST_RETRY_S = 0.5
_MAX_RETRY_S = 30.0
_OUTAGE_PAUSE_S = 0.2
_REPLICA = re.compile(r"(.+)\.\d+")


class DeliveryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How stored messages are treated.

    Attributes:
        max_attempts: Handler starts that may raise before a message is buried.
        max_crash_attempts: Processes that may end while handling it before it is buried.
        max_backlog: Messages a mailbox holds at most.
        refuse_when_full: Raise at once when it is full, rather than wait for the send timeout.
        declared: Worker names whose mailboxes outlive their processes.
    """

    max_attempts: int = 5
    max_crash_attempts: int = 20
    max_backlog: int = 100_000
    refuse_when_full: bool = False
    declared: frozenset[str] = frozenset()


class Stamped(msgspec.Struct, frozen=True):
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
    def of(cls, message: BusMessage, line: bytes) -> "Stamped":
        """An encoded message."""
        is_alone = isinstance(message, BusJobRequestMessage)
        return cls(message.target or EVERYONE, message.lane, message.id, line, is_alone)


class _Parcel:
    """One message on its way into the store."""

    __slots__ = ("address", "id", "is_alone", "lane", "line", "number", "stored", "until")

    def __init__(self, stored: Stamped, number: int, until: float) -> None:
        self.address = stored.address
        self.lane = stored.lane
        self.line = stored.line
        self.id = stored.id
        self.number = number
        self.until = until
        self.is_alone = stored.is_alone
        self.stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def stream(self) -> tuple[str, Lane]:
        return self.address, self.lane


class Dispatch:
    """The sending half: gathers messages, stores them in batches, tells each sender.

    Args:
        store: Where.
        sender: This process's incarnation.
        send_timeout: Seconds until a message that could not be stored is given back.
    """

    def __init__(
        self, store: MailStore, sender: str, send_timeout: float, options: DeliveryOptions
    ) -> None:
        self._store = store
        self._sender = sender
        self._send_timeout = send_timeout
        self._options = options
        self._waiting: deque[_Parcel] = deque()
        self._numbers: Counter[tuple[str, Lane]] = Counter()
        self._has_mail = asyncio.Event()

    async def put(self, stamped: Stamped) -> int:
        """Store a message; returns in how many mailboxes, once the broker confirmed it.

        Raises:
            BusFullError: The mailbox made no room in time.
            BusUnavailableError: The broker was away for the whole send timeout. The message may
                or may not have been stored.
        """
        stream = (stamped.address, stamped.lane)
        self._numbers[stream] += 1
        until = asyncio.get_running_loop().time() + self._send_timeout
        parcel = _Parcel(stamped, self._numbers[stream], until)
        self._waiting.append(parcel)
        self._has_mail.set()
        return await parcel.stored

    async def run(self) -> None:
        """Store until cancelled."""
        while True:
            await self._has_mail.wait()
            self._has_mail.clear()
            while self._waiting:
                count = min(len(self._waiting), MAX_BATCH)
                await self._store_batch([self._waiting.popleft() for _ in range(count)])

    def fail_all(self, error: Exception) -> None:
        """Nothing more will be stored: tell those who wait."""
        for parcel in self._waiting:
            if not parcel.stored.done():
                parcel.stored.set_exception(error)
        self._waiting.clear()

    async def _store_batch(self, parcels: list[_Parcel]) -> None:
        while parcels := [parcel for parcel in parcels if not parcel.stored.done()]:
            entries = _entries(parcels)
            try:
                results = await self._store.put([self._outgoing(entry) for entry in entries])
            except BusUnavailableError as error:
                parcels = self._expire(parcels, error)
                await asyncio.sleep(_OUTAGE_PAUSE_S)
                continue
            except BaseException as error:
                self._fail(parcels, error)
                raise
            full = [entry for entry, result in zip(entries, results, strict=True) if result.is_full]
            for entry, result in zip(entries, results, strict=True):
                if not result.is_full:
                    for parcel in entry:
                        if not parcel.stored.done():
                            parcel.stored.set_result(result.mailboxes)
            parcels = self._give_up_full([parcel for entry in full for parcel in entry])
            if parcels:
                await asyncio.sleep(FULL_RETRY_S)
                parcels += self._join_later(parcels)

    def _join_later(self, held: list[_Parcel]) -> list[_Parcel]:
        """Those that came meanwhile; behind the ones held up, so that order is kept."""
        del held
        count = min(len(self._waiting), MAX_BATCH)
        return [self._waiting.popleft() for _ in range(count)]

    def _outgoing(self, entry: list[_Parcel]) -> Outgoing:
        first = entry[0]
        return Outgoing(
            address=first.address,
            lane=first.lane,
            bodies=[parcel.line for parcel in entry],
            ids=[parcel.id for parcel in entry],
            sender=self._sender,
            stream=1,
            first=first.number,
        )

    def _expire(self, parcels: list[_Parcel], error: Exception) -> list[_Parcel]:
        now = asyncio.get_running_loop().time()
        late = [parcel for parcel in parcels if parcel.until <= now]
        self._fail(late, error)
        return [parcel for parcel in parcels if parcel.until > now]

    def _give_up_full(self, parcels: list[_Parcel]) -> list[_Parcel]:
        now = asyncio.get_running_loop().time()
        kept = []
        for parcel in parcels:
            if parcel.until > now and not self._options.refuse_when_full:
                kept.append(parcel)
            elif not parcel.stored.done():
                reason = f"its mailbox holds {self._options.max_backlog:,} messages"
                waited = 0.0 if self._options.refuse_when_full else self._send_timeout
                parcel.stored.set_exception(BusFullError(repr(parcel.address), waited, reason))
        return kept

    @staticmethod
    def _fail(parcels: list[_Parcel], error: BaseException) -> None:
        for parcel in parcels:
            if not parcel.stored.done():
                parcel.stored.set_exception(error)


def _entries(parcels: list[_Parcel]) -> list[list[_Parcel]]:
    """Parcels that share an entry: neighbours in one stream, with nothing of theirs in between.

    A broadcast closes what is open, and the other way round, as in the outbox.
    """
    entries: list[list[_Parcel]] = []
    open_at: dict[tuple[str, Lane], int] = {}
    sizes: list[int] = []
    for parcel in parcels:
        if parcel.address == EVERYONE:
            open_at = {key: at for key, at in open_at.items() if key[0] == EVERYONE}
        else:
            open_at.pop((EVERYONE, parcel.lane), None)
        at = open_at.get(parcel.stream)
        follows = at is not None and entries[at][-1].number + 1 == parcel.number
        if at is None or not follows or parcel.is_alone or sizes[at] > MAX_ENTRY_BYTES:
            entries.append([parcel])
            sizes.append(len(parcel.line))
            open_at.pop(parcel.stream, None)
            if not parcel.is_alone:
                open_at[parcel.stream] = len(entries) - 1
        else:
            entries[at].append(parcel)
            sizes[at] += len(parcel.line)
    return entries


class _Receipt(StoredReceipt):
    """One letter in the hands of its receiver."""

    def __init__(self, room: "MailRoom", letter: Letter) -> None:
        self._room = room
        self._letter: Letter | None = letter
        self.attempt = letter.attempt
        self.is_last_attempt = letter.attempt >= room.options.max_attempts

    async def starting(self) -> None:
        if self._letter is not None and self._letter.is_suspect:
            await self._room.note_start(self._letter)

    def finish(self, error: BaseException | None = None) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            self._room.settle(letter, error, is_last=self.is_last_attempt)

    def bury(self, reason: str) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            self._room.settle_as(Settle(letter=letter, how="bury", reason=reason))

    def give_back(self) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            self._room.give_back(letter)


class MailRoom:
    """Stored mail of one process.

    Args:
        store: The broker's side.
        board: The mailboxes of this process.
        incarnation: Ours: what we hold is held in its name.
        send_timeout: Seconds a send waits.
        options: How messages are treated.
        send: Sends a message of the room's own (the answer to a job that was buried).
    """

    def __init__(
        self,
        store: MailStore,
        board: Switchboard,
        incarnation: str,
        *,
        send_timeout: float,
        options: DeliveryOptions,
        send: Callable[[BusMessage], Awaitable[None]],
    ) -> None:
        self.store = store
        self.options = options
        self.dispatch = Dispatch(store, incarnation, send_timeout, options)
        self._board = board
        self._incarnation = incarnation
        self._send = send
        self._mailboxes: dict[str, str] = {}  # mailbox: the address here that takes from it
        self._held: Counter[str] = Counter()
        self._returned: list[Letter] = []
        self._settles: list[Settle] = []
        self._has_settles = asyncio.Event()
        self._has_room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Open the mailboxes of everyone subscribed and begin to take mail."""
        for mailbox in self._board.mailboxes():
            await self.join(mailbox.address)
        self._tasks = [
            self._spawn("dispatch", self.dispatch.run()),
            self._spawn("take", self._take()),
            self._spawn("settle", self._settle()),
        ]

    async def close(self) -> None:
        """Settle what is settled, give back the rest."""
        for task in self._tasks[:2]:
            task.cancel()
        with contextlib.suppress(BusUnavailableError):
            if self._settles:
                batch, self._settles = self._settles, []
                await self.store.settle(batch)
            if self._tasks:
                await self.store.requeue([self._incarnation])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.dispatch.fail_all(BusUnavailableError("the broker", "the bus was stopped"))
        await self.store.close()

    async def join(self, address: str) -> None:
        """Take mail for an address, and for the group it is a replica of."""
        found = self._board.find(address)
        if found is None or not getattr(found.subscriber, "takes_mail", True):
            return
        match = _REPLICA.fullmatch(address)
        shared = [match[1]] if match else []
        for mailbox in (address, *shared):
            keep = mailbox in self.options.declared or address in self.options.declared
            backlog = self.options.max_backlog
            is_shared = mailbox in shared
            await self.store.open(mailbox, keep=keep, shared=is_shared, max_backlog=backlog)
            self._mailboxes[mailbox] = address
        await self._look_again()

    async def leave(self, address: str) -> None:
        """Take no more mail for an address."""
        for mailbox in [box for box, here in self._mailboxes.items() if here == address]:
            del self._mailboxes[mailbox]
        self._return()
        await self._look_again()

    async def beat(self) -> None:
        """Keep mailboxes that nobody declared alive; call it every HEARTBEAT_S."""
        for mailbox in await self.store.touch(list(self._mailboxes)):
            logger.warning("mailbox %r had been removed; it begins anew, empty", mailbox)
            await self.join(self._mailboxes[mailbox])

    # What receipts call

    async def note_start(self, letter: Letter) -> None:
        """A suspect is about to be handled."""
        with contextlib.suppress(BusUnavailableError):
            await self.store.started([letter])

    def settle(self, letter: Letter, error: BaseException | None, *, is_last: bool) -> None:
        """A letter was handled, or its handler raised."""
        if error is None:
            self.settle_as(Settle(letter=letter))
            return
        reason = f"{type(error).__name__}: {error}"
        if is_last:
            self.settle_as(Settle(letter=letter, how="bury", reason=reason))
        else:
            delay = min(_MAX_RETRY_S, _FIRST_RETRY_S * 2 ** (letter.attempt - 1))
            self.settle_as(Settle(letter=letter, how="retry", delay_s=delay, reason=reason))

    def settle_as(self, settle: Settle) -> None:
        """Settle a letter, soon, together with others."""
        self.forget(settle.letter)
        self._settles.append(settle)
        self._has_settles.set()

    def give_back(self, letter: Letter) -> None:
        """A letter is for others, once this process takes no more from its mailbox.

        Until then it counts as in hand here: given back at once, it would come here again.
        """
        self._returned.append(letter)
        self._return()

    def forget(self, letter: Letter) -> None:
        """A letter is no longer in hand here."""
        self._held[letter.mailbox] -= 1
        self._has_room.set()

    def _return(self) -> None:
        """Give back what is for others; all at once, uncounted, when this process takes nothing."""
        if not self._mailboxes:
            self._has_room.set()
            return
        leaving = [one for one in self._returned if one.mailbox not in self._mailboxes]
        self._returned = [one for one in self._returned if one.mailbox in self._mailboxes]
        for letter in leaving:
            self.settle_as(Settle(letter=letter, how="retry", reason="its worker has left"))

    async def _rest(self) -> None:
        """Wait until there may be room again; meanwhile others may have what is for them."""
        if not self._mailboxes and self._returned:
            await self._return_all()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._has_room.wait()

    async def _return_all(self) -> None:
        returned, self._returned = self._returned, []
        try:
            await self.store.requeue([self._incarnation])
        except BusUnavailableError:
            self._returned += returned
            await asyncio.sleep(_OUTAGE_PAUSE_S)
        else:
            self._held.subtract(letter.mailbox for letter in returned)

    # The tasks

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=f"pbus mail {name}")

    async def _look_again(self) -> None:
        self._has_room.set()
        if self._tasks:
            with contextlib.suppress(BusUnavailableError):
                await self.store.interrupt()

    async def _take(self) -> None:
        while True:
            self._has_room.clear()
            wanted = self._wanted()
            if not wanted:
                await self._rest()
                continue
            # A mailbox without room is left out; look again soon once it may have some.
            is_all = len(wanted) == len(Lane) * len(self._mailboxes)
            wait_s = WAIT_S if is_all else FULL_RETRY_S
            try:
                letters = await self.store.take(wanted, holder=self._incarnation, wait_s=wait_s)
            except BusUnavailableError as error:
                logger.debug("taking mail failed: %s", error)
                await asyncio.sleep(_OUTAGE_PAUSE_S)
                continue
            for letter in letters:
                self._deliver(letter)
            await asyncio.sleep(0)

    def _wanted(self) -> list[tuple[str, Lane, int]]:
        wanted = []
        for mailbox, address in self._mailboxes.items():
            found = self._board.find(address)
            if found is None:
                continue
            # Of mail that is for nobody else everything is taken: answers may be among it.
            wished = getattr(found.subscriber, "prefetch", None) if mailbox != address else None
            prefetch = wished or PREFETCH
            room = prefetch - self._held[mailbox]
            if room > 0:
                wanted += [(mailbox, lane, room) for lane in (Lane.SYSTEM, Lane.DATA)]
        return wanted

    def _deliver(self, letter: Letter) -> None:
        self._held[letter.mailbox] += 1
        mailbox = self._board.find(self._mailboxes.get(letter.mailbox, letter.mailbox))
        if letter.crashes >= self.options.max_crash_attempts:
            self._bury_killer(letter)
        elif mailbox is None:
            self.settle_as(Settle(letter=letter, how="retry", reason="its worker has left"))
        else:
            mailbox.lane(letter.lane).put_nowait((letter.body, _Receipt(self, letter)))

    def _bury_killer(self, letter: Letter) -> None:
        reason = f"{letter.crashes} processes ended while they handled it"
        self.settle_as(Settle(letter=letter, how="bury", reason=reason))
        try:
            message = decode_message(letter.body)
        except MessageDecodeError:
            return
        if isinstance(message, BusJobRequestMessage):
            answer = BusJobResponseMessage(
                source=letter.mailbox,
                target=message.source,
                job_id=message.job_id,
                status=JobStatus.ERROR,
                response={"error": reason, "type": "buried"},
            )
            self._tasks.append(self._spawn("answer", self._answer(answer)))

    async def _answer(self, message: BusMessage) -> None:
        with contextlib.suppress(BusFullError, BusUnavailableError):
            await self._send(message)

    async def _settle(self) -> None:
        while True:
            await self._has_settles.wait()
            self._has_settles.clear()
            batch, self._settles = self._settles, []
            while batch:
                try:
                    await self.store.settle(batch)
                except BusUnavailableError:
                    await asyncio.sleep(_OUTAGE_PAUSE_S)
                else:
                    batch = []
