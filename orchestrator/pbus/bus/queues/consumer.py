"""At-least-once delivery on top of a MailStore: sending, taking, settling, trying again.

Transport-free: what a broker does is in the store; what a bus does with mail is here.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pbus.bus.local.lane import AckHandle
from pbus.bus.local.router import LocalRouter
from pbus.bus.queues.producer import FULL_RETRY_S, OUTAGE_PAUSE_S, QueueProducer
from pbus.bus.queues.store import (
    QueueStore,
    Settlement,
    StoredMessage,
)
from pbus.codec import decode_message
from pbus.concurrency.background import TaskFunction, run_forever
from pbus.concurrency.backoff import delay_after
from pbus.errors import BusFullError, BusUnavailableError, MessageDecodeError, kind_of, text_of
from pbus.messages import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    Lane,
)
from pbus.settings import BusSettings

logger = logging.getLogger(__name__)

PREFETCH = 1_000  # letters of one mailbox that wait in this process, where its worker says nothing
GATHER_S = 0.005  # letters settled meanwhile share a call, while others are in hand
_LOOK_EVERY_S = 0.001  # for each mailbox here: a look costs so much, and hundreds may come at once
WAIT_S = 2.0  # how long a take waits for mail before it looks around again
_FIRST_RETRY_S = 0.5
_MAX_RETRY_S = 30.0
_REPLICA = re.compile(r"(.+)\.\d+")


class _AckHandle(AckHandle):
    """One letter in the hands of its receiver."""

    def __init__(self, room: "QueueConsumer", letter: StoredMessage) -> None:
        self._room = room
        self._letter: StoredMessage | None = letter
        self.attempt = letter.attempt
        self.is_last_attempt = letter.attempt >= room.options.max_attempts
        self.stored_at = letter.stored_at

    def hold(self) -> None:
        super().hold()
        self.set_aside()

    def set_aside(self) -> None:
        if self._letter is not None:
            self._room.set_aside(self._letter)

    async def starting(self) -> None:
        if self._letter is not None and self._letter.is_poison_suspect:
            await self._room.note_start(self._letter)

    def finish(self, error: BaseException | None = None) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            self._room.settle(letter, error, is_last=self.is_last_attempt)

    def bury(self, reason: str) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            self._room.settle_as(Settlement(message=letter, how="dead_letter", reason=reason))

    def give_back(self) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            self._room.give_back(letter)


class QueueConsumer:
    """Stored mail of one process.

    Args:
        store: The broker's side.
        board: The mailboxes of this process.
        incarnation: Ours: what we hold is held in its name.
        settings: Of the bus.
        send: Sends a message of the room's own (the answer to a job that was buried).
    """

    def __init__(
        self,
        store: QueueStore,
        board: LocalRouter,
        incarnation: str,
        *,
        settings: BusSettings,
        send: Callable[[BusMessage], Awaitable[None]],
    ) -> None:
        self.store = store
        store.on_lost = self._note_lost
        self.options = settings.delivery_options
        self.dispatch = QueueProducer(store, incarnation, settings)
        self._board = board
        self._incarnation = incarnation
        self._send = send
        self._mailboxes: dict[str, str] = {}  # mailbox: the address here that takes from it
        self._held: Counter[str] = Counter()
        self._aside: dict[str, set[str]] = {}  # keys of those in hand that take no room
        self._returned: list[StoredMessage] = []
        self._settles: list[Settlement] = []
        self._settling: list[Settlement] = []  # on their way to the broker
        self._has_settles = asyncio.Event()
        self._has_room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._has_changed = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Open the mailboxes of everyone subscribed and begin to take mail."""
        for mailbox in self._board.mailboxes():
            await self.join(mailbox.address)
        self._tasks = [
            *(self._keep("dispatch", chore) for chore in self.dispatch.chores()),
            self._keep("take", self._take),
            self._keep("settle", self._settle),
        ]

    async def close(self) -> None:
        """Settle what is settled, give back the rest."""
        tasks, self._tasks = self._tasks, []
        others = [*self._answers, *([self._looking] if self._looking else [])]
        for task in (*tasks, *others):
            task.cancel()
        await asyncio.gather(*tasks, *others, return_exceptions=True)
        unsettled, self._settling, self._settles = self._settling + self._settles, [], []
        try:
            if unsettled:
                await self.store.settle(unsettled)
            if tasks:
                await self.store.requeue_held_by([self._incarnation])
        except BusUnavailableError as error:
            logger.debug("what is in hand goes back when our lease ends: %s", error)
        except Exception:
            logger.exception("what is in hand goes back when our lease ends: a bug in pbus")
        self.dispatch.fail_all(BusUnavailableError("the broker", "the bus was stopped"))
        await self.store.close()

    async def join(self, address: str) -> None:
        """Take mail for an address, and for the group it is a replica of."""
        found = self._board.find(address)
        if found is None or not getattr(found.subscriber, "is_durable", True):
            return
        match = _REPLICA.fullmatch(address)
        shared = [match[1]] if match else []
        for mailbox in (address, *shared):
            durable = mailbox in self.options.declared or address in self.options.declared
            limits = {
                "max_backlog": self.options.max_backlog,
                "max_bytes": self.options.max_backlog_bytes,
            }
            is_shared = mailbox in shared
            async with self._opening:  # one at a time: a beat gets in between hundreds of them
                await self.store.open(mailbox, durable=durable, shared=is_shared, **limits)
            self._send_back()  # what an earlier life here left comes to this one by the broker
            self._mailboxes[mailbox] = address
        self._look_again()

    async def leave(self, address: str) -> None:
        """Take no more mail for an address."""
        for mailbox in [box for box, here in self._mailboxes.items() if here == address]:
            del self._mailboxes[mailbox]
        self._return()
        self._look_again()

    async def beat(self) -> None:
        """Keep mailboxes that nobody declared alive; call it every HEARTBEAT_S."""
        for mailbox in await self.store.renew(list(self._mailboxes)):
            address = self._mailboxes.get(mailbox)
            if address is not None:  # not left meanwhile
                logger.warning("mailbox %r had been removed or damaged; it is made anew", mailbox)
                await self.join(address)

    def _note_lost(self, mailbox: str, count: int) -> None:
        address = self._mailboxes.get(mailbox)
        if address is not None:
            self._board.note_lost("the broker, where they were removed,", address, count)

    # What receipts call

    async def note_start(self, letter: StoredMessage) -> None:
        """A suspect is about to be handled."""
        with contextlib.suppress(BusUnavailableError):
            await self.store.mark_started([letter])

    def settle(self, letter: StoredMessage, error: BaseException | None, *, is_last: bool) -> None:
        """A letter was handled, or its handler raised."""
        if error is None:
            self.settle_as(Settlement(message=letter))
            return
        reason = f"{kind_of(error)}: {text_of(error)}"
        if is_last:
            self.settle_as(Settlement(message=letter, how="dead_letter", reason=reason))
        else:
            delay = delay_after(letter.attempt, _FIRST_RETRY_S, _MAX_RETRY_S)
            self.settle_as(Settlement(message=letter, how="retry", delay_s=delay, reason=reason))

    def settle_as(self, settle: Settlement) -> None:
        """Settle a letter, soon, together with others."""
        self.forget(settle.message)
        self._settles.append(settle)
        self._has_settles.set()

    def give_back(self, letter: StoredMessage) -> None:
        """A letter is for others, once this process takes no more from its mailbox.

        Until then it is kept here: given back at once, it would come here again.
        """
        self.set_aside(letter)
        self._returned.append(letter)
        if letter.mailbox not in self._mailboxes:
            self._return()

    def set_aside(self, letter: StoredMessage) -> None:
        """A letter is to be settled later: where nobody else could take them, others come after it.

        What comes may be just what the worker waits for to settle it: an answer, a cancel. The
        broker's backlog is the bound.
        """
        name = letter.mailbox
        if self._mailboxes.get(name) == name:
            self._aside.setdefault(name, set()).add(letter.receipt_handle)
            if self._held[name] >= PREFETCH:
                self._has_room.set()

    def forget(self, letter: StoredMessage) -> None:
        """A letter is no longer in hand here."""
        self._held[letter.mailbox] -= 1
        if (aside := self._aside.get(letter.mailbox)) is not None:
            aside.discard(letter.receipt_handle)
        self._has_room.set()

    def _return(self) -> None:
        """Give back what is for others; all at once, uncounted, when this process takes nothing."""
        if self._mailboxes:
            self._send_back()
        else:
            self._has_room.set()

    def _send_back(self) -> None:
        leaving = [one for one in self._returned if one.mailbox not in self._mailboxes]
        self._returned = [one for one in self._returned if one.mailbox in self._mailboxes]
        for letter in leaving:
            self.settle_as(Settlement(message=letter, how="requeue"))

    async def _rest(self) -> None:
        """Wait until there may be room again; meanwhile others may have what is for them.

        But not before the broker knows what was handled: that would be handled again.
        """
        is_settled = not (self._settles or self._settling)
        if not self._mailboxes and self._returned and is_settled:
            await self._return_all()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._has_room.wait()

    async def _return_all(self) -> None:
        returned, self._returned = self._returned, []
        try:
            await self.store.requeue_held_by([self._incarnation])
        except BusUnavailableError:
            self._returned += returned
            await asyncio.sleep(OUTAGE_PAUSE_S)
        else:
            for letter in returned:
                self.forget(letter)

    # The tasks

    def _keep(self, name: str, function: TaskFunction) -> asyncio.Task[None]:
        """Do something for as long as the room is open."""
        work = run_forever(f"the {name} of mail", function, self._board.counters.note_fault)
        return asyncio.create_task(work, name=f"pbus mail {name}")

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"pbus mail {name}")
        task.add_done_callback(_log_task_failure)
        return task

    def _look_again(self) -> None:
        """Have a take that waits look at the mailboxes of now; not for each of many that come."""
        self._has_room.set()
        self._has_changed = True
        if self._tasks and (self._looking is None or self._looking.done()):
            self._looking = self._spawn("look", self._interrupt())

    async def _interrupt(self) -> None:
        now = asyncio.get_running_loop().time
        while self._has_changed:
            await asyncio.sleep(self._looked_at + len(self._mailboxes) * _LOOK_EVERY_S - now())
            self._has_changed = False
            self._looked_at = now()
            with contextlib.suppress(BusUnavailableError):
                await self.store.wake_fetchers()

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
                letters = await self.store.fetch(wanted, consumer=self._incarnation, wait_s=wait_s)
            except BusUnavailableError as error:
                logger.debug("taking mail failed: %s", error)
                await asyncio.sleep(OUTAGE_PAUSE_S)
                continue
            except Exception:
                logger.exception("taking mail failed: a bug in pbus; going on")
                await asyncio.sleep(OUTAGE_PAUSE_S)
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
            room = prefetch - self._held[mailbox] + len(self._aside.get(mailbox, ()))
            if room > 0:
                wanted += [(mailbox, lane, room) for lane in (Lane.SYSTEM, Lane.DATA)]
        return wanted

    def _deliver(self, letter: StoredMessage) -> None:
        self._held[letter.mailbox] += 1
        mailbox = self._board.find(self._mailboxes.get(letter.mailbox, letter.mailbox))
        if letter.crashes >= self.options.max_crash_attempts:
            self._bury_killer(letter)
        elif mailbox is None:
            self.settle_as(Settlement(message=letter, how="requeue"))
        else:
            mailbox.lane(letter.lane).put_nowait((letter.body, _AckHandle(self, letter)))

    def _bury_killer(self, letter: StoredMessage) -> None:
        reason = f"{letter.crashes} processes ended while they handled it"
        self.settle_as(Settlement(message=letter, how="dead_letter", reason=reason))
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
                response={"error": reason, "type": "dead-lettered"},
            )
            task = self._spawn("answer", self._answer(answer))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer(self, message: BusMessage) -> None:
        with contextlib.suppress(BusFullError, BusUnavailableError):
            await self._send(message)

    async def _settle(self) -> None:
        while True:
            await self._has_settles.wait()
            if any(self._held.values()):  # their entries may be among them: whole ones cost least
                await asyncio.sleep(GATHER_S)
            self._has_settles.clear()
            self._settling, self._settles = self._settles, []
            while self._settling:
                try:
                    await self.store.settle(self._settling)
                except BusUnavailableError:
                    await asyncio.sleep(OUTAGE_PAUSE_S)
                    continue
                except Exception:  # what it left unsettled comes again after our end
                    logger.exception("settling mail failed: a bug in pbus; going on")
                self._settling = []
                self._has_room.set()


def _log_task_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s ended: a bug in pbus", task.get_name(), exc_info=task.exception())
