"""Consuming stored messages: fetching them for the workers of a process, settling, requeueing.

Transport-free: the store does what a broker does, and this what a bus does with its messages.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from pbus.bus.local.router import LocalRouter
from pbus.bus.queues.ack_handle import AckHandle
from pbus.bus.queues.in_flight import InFlight
from pbus.bus.queues.left import LeftMessages
from pbus.bus.queues.poison import answer_to
from pbus.bus.queues.producer import FULL_RETRY_S, OUTAGE_PAUSE_S, QueueProducer
from pbus.bus.queues.refetch import Refetch
from pbus.bus.queues.settler import Settler
from pbus.bus.queues.store import QueueStore, Settlement, StoredMessage
from pbus.concurrency.background import TaskFunction, TaskOwner, run_forever
from pbus.errors import BusClosedError, BusFullError, BusUnavailableError
from pbus.messages import (
    BusMessage,
    Lane,
)
from pbus.names import names_of
from pbus.settings import BusSettings

logger = logging.getLogger(__name__)

PREFETCH = 1_000  # messages of one queue that wait in this process, where its worker says nothing
WAIT_S = 2.0  # how long a fetch waits for messages


class QueueConsumer:
    """The stored messages of one process.

    Args:
        store: The broker's side.
        router: The mailboxes of this process.
        incarnation: Ours: messages are in flight to it.
        settings: Of the bus.
        send: Sends a message of the consumer's own (the answer to a job that is dead-lettered).
    """

    def __init__(
        self,
        store: QueueStore,
        router: LocalRouter,
        incarnation: str,
        *,
        settings: BusSettings,
        send: Callable[[BusMessage], Awaitable[object]],
    ) -> None:
        self.store = store
        store.on_lost = self._note_lost
        store.on_push = self._deliver
        self.options = settings.delivery_options
        self.producer = QueueProducer(store, incarnation, settings, router.edges)
        self.in_flight = InFlight()
        self.settler = Settler(store, self.in_flight)
        self._router = router
        self._incarnation = incarnation
        self._send = send
        self._queues: dict[str, str] = {}  # queue: the address here that consumes it
        self._left = LeftMessages(self._queues, self.settler, self.in_flight)
        self._tasks: list[asyncio.Task[None]] = []
        self._answers = TaskOwner()
        self._refetch = Refetch(store)
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Open the queues of all subscribers and begin to fetch."""
        for mailbox in self._router.mailboxes():
            await self.join(mailbox.address)
        self._tasks = [
            *(self._start("producer", function) for function in self.producer.tasks()),
            self._start("fetch", self._fetch),
            self._start("settle", self.settler.run),
            self._start("refetch", self._refetch.run),
        ]

    async def close(self) -> None:
        """Settle what is settled, and requeue the rest."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._answers.close()
        try:
            await self.settler.flush()
            if tasks:
                await self.store.requeue_held_by([self._incarnation])
        except BusUnavailableError as error:
            logger.debug("what is in flight is requeued when our lease ends: %s", error)
        except Exception:
            logger.exception("what is in flight is requeued when our lease ends: a bug in pbus")
        self.producer.fail_all(BusUnavailableError("the broker", "the bus was stopped"))
        await self.store.close()

    async def join(self, address: str) -> None:
        """Consume the queue of an address, and that of the group it is a replica of.

        Raises:
            BusUnavailableError: The broker is away, or refuses.
        """
        found = self._router.find(address)
        if found is None or not getattr(found.subscriber, "is_durable", True):
            return
        for queue in names_of(address):  # its own, and the one that replicas share
            durable = queue in self.options.declared or address in self.options.declared
            async with self._opening:  # one at a time: a heartbeat gets in between hundreds
                await self.store.open(
                    queue,
                    durable=durable,
                    shared=queue != address,
                    max_backlog=self.options.max_backlog,
                    max_bytes=self.options.max_backlog_bytes,
                )
            self._left.requeue_left_queues()  # what an earlier incarnation left comes to this one by the broker
            self._queues[queue] = address
        self._request_refetch()

    async def leave(self, address: str) -> None:
        """Consume the queues of an address no longer."""
        for queue in [queue for queue, here in self._queues.items() if here == address]:
            del self._queues[queue]
        self._left.requeue()
        self._request_refetch()

    async def heartbeat(self) -> None:
        """Keep queues alive that are not durable; call it every HEARTBEAT_S."""
        for queue in await self.store.renew(list(self._queues)):
            address = self._queues.get(queue)
            if address is not None:  # not left meanwhile
                logger.warning("queue %r had been removed or damaged; it is made again", queue)
                await self.join(address)

    def _note_lost(self, queue: str, count: int) -> None:
        address = self._queues.get(queue)
        if address is not None:
            self._router.note_lost("the broker, where they were removed,", address, count)

    async def mark_started(self, message: StoredMessage) -> None:
        """Note that a suspect is about to be handled."""
        with contextlib.suppress(BusUnavailableError):
            await self.store.mark_started([message])

    def requeue(self, message: StoredMessage) -> None:
        """Leave a message to others, once this process no longer consumes its queue.

        Until then it stays in flight here: requeued at once, it would come here again.
        """
        self.exclude_from_prefetch(message)
        self._left.add(message)

    def exclude_from_prefetch(self, message: StoredMessage) -> None:
        """Fetch others beside a message that is settled later, where no other process could.

        What comes may be just what the worker waits for to settle it: an answer, a cancel. The
        broker's backlog is the bound.
        """
        if self._queues.get(message.queue) == message.queue:
            self.in_flight.exclude_from_prefetch(message, PREFETCH)

    async def _wait_for_capacity(self) -> None:
        """Wait until there may be room again; requeue what is left when nothing is consumed.

        But not before the broker knows what was handled: that would be handled again.
        """
        if self._left.are_all and self.settler.is_idle:
            await self._left.requeue_all(self.store, self._incarnation)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self.in_flight.has_room.wait()

    def _start(self, name: str, function: TaskFunction) -> asyncio.Task[None]:
        """Run something for as long as the consumer is open."""
        work = run_forever(f"the {name} of queues", function, self._router.counters.note_fault)
        return asyncio.create_task(work, name=f"pbus queues {name}")

    def _request_refetch(self) -> None:
        """Have a fetch that waits look at the queues of now."""
        self.in_flight.has_room.set()
        self._refetch.request(len(self._queues))

    async def _fetch(self) -> None:
        while True:
            self.in_flight.has_room.clear()
            plan = self._fetch_plan()
            if not plan:
                await self._wait_for_capacity()
                continue
            for message in await self._fetch_once(plan):
                self._deliver(message)
            await asyncio.sleep(0)

    async def _fetch_once(self, plan: list[tuple[str, Lane, int]]) -> list[StoredMessage]:
        # A queue without room is left out; look again soon once it may have some.
        is_all = len(plan) == len(Lane) * len(self._queues)
        wait_s = WAIT_S if is_all else FULL_RETRY_S
        try:
            return await self.store.fetch(plan, consumer=self._incarnation, wait_s=wait_s)
        except BusUnavailableError as error:
            logger.debug("fetching messages failed: %s", error)
        except Exception:
            logger.exception("fetching messages failed: a bug in pbus; going on")
        await asyncio.sleep(OUTAGE_PAUSE_S)
        return []

    def _fetch_plan(self) -> list[tuple[str, Lane, int]]:
        """Return how many messages to fetch at most of each lane of each queue."""
        plan = []
        for queue, address in self._queues.items():
            found = self._router.find(address)
            if found is None:
                continue
            # Of a queue that is not shared all is fetched: answers may be among it.
            wished = getattr(found.subscriber, "prefetch", None) if queue != address else None
            room = self.in_flight.room(queue, wished or PREFETCH)
            if room > 0:
                plan += [(queue, lane, room) for lane in (Lane.SYSTEM, Lane.DATA)]
        return plan

    def _deliver(self, message: StoredMessage) -> None:
        self.in_flight.add(message)
        mailbox = self._router.find(self._queues.get(message.queue, message.queue))
        if message.crashes >= self.options.max_crash_attempts:
            self._dead_letter_poison(message)
        elif mailbox is None:
            self.settler.enqueue(Settlement(message=message, how="requeue"))
        else:
            mailbox.lane(message.lane).put_nowait((message.body, AckHandle(self, message)))

    def _dead_letter_poison(self, message: StoredMessage) -> None:
        """Give a message up over which processes end; a job is answered before."""
        reason = f"{message.crashes} processes ended while they handled it"
        settlement = Settlement(message=message, how="dead_letter", reason=reason)
        answer = answer_to(message, reason)
        if answer is None:
            self.settler.enqueue(settlement)
        else:
            self._answers.spawn(self._answer(answer, settlement), "pbus queues answer")

    async def _answer(self, answer: BusMessage, settlement: Settlement) -> None:
        try:
            await self._send(answer)
        except BusClosedError:
            return  # it is requeued, and the next process that fetches it does both
        except asyncio.CancelledError:
            self.settler.enqueue(settlement)  # the answer may be on its way
            raise
        except (BusFullError, BusUnavailableError) as error:
            logger.debug("the answer to a dead-lettered job was not sent: %s", error)
        except Exception:
            logger.exception("the answer to a dead-lettered job was not sent: a bug in pbus")
        self.settler.enqueue(settlement)
