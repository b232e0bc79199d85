"""Retirement of a queue: its messages are moved to the replicas that are left, then it is removed.

Senders see the replica until its queue is removed, so what they send meanwhile is moved, too, and comes
before what they send to its successors afterwards.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pbus.bus.queues.store import QueueEntry, QueueStore, Settlement, StoredMessage
from pbus.codec import decode_header, with_target
from pbus.errors import MessageDecodeError
from pbus.messages import BusJobCancelMessage, BusJobRequestMessage, BusMessage, Lane
from pbus.names import group_of
from pbus.routing_keys import owner_of

_BATCH: Final = 500  # messages moved at once
_PAUSE_S: Final = 0.05  # while a successor is full, a message is in flight or waits for its retry


class Retired(msgspec.Struct):
    """The outcome of a retirement.

    Attributes:
        moved: Messages that were moved to other queues.
        dropped: Messages that were of use to the retired worker only: answers, activations, its copies of
            broadcasts.
        left: Messages in the queue, which is there still; 0 once it is removed.
    """

    moved: int = 0
    dropped: int = 0
    left: int = 0


async def retire(
    store: QueueStore, name: str, successors: Sequence[str], *, consumer: str, limit_s: float
) -> Retired:
    """Move the messages of a replica that is gone for good, and remove its queue.

    Messages with a key go to its owner among the successors, others to the queue that replicas share. Safe to
    repeat: a message that was moved twice is handled once.

    Args:
        store: The queues.
        name: The replica's; no process consumes its queue any more.
        successors: The replicas that are left; they have queues.
        consumer: A new name, under which messages are in flight meanwhile.
        limit_s: Seconds until it is given up. Then the queue stays.

    Raises:
        BusUnavailableError: The broker does not answer.
    """
    work = _Retirement(store, name, successors, consumer)
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    try:
        while True:
            if loop.time() < until and await work.is_held_elsewhere():
                await asyncio.sleep(_PAUSE_S)
                continue
            is_moving = await work.move_some()
            if is_moving:
                continue
            work.result.left = await store.purge(name, remove=True, if_empty=True)
            if not work.result.left or loop.time() >= until:
                return work.result
            await asyncio.sleep(_PAUSE_S)
    finally:
        if work.is_holding:
            await store.requeue_held_by([consumer])


class _Retirement:
    """The state of one retirement."""

    def __init__(
        self, store: QueueStore, name: str, successors: Sequence[str], consumer: str
    ) -> None:
        self.result = Retired()
        self.is_holding = False
        self._store = store
        self._name = name
        self._group = group_of(name) or name
        self._successors = successors
        self._consumer = consumer
        self._numbers: Counter[tuple[str, Lane]] = Counter()

    async def is_held_elsewhere(self) -> bool:
        """Whether messages are in flight: they are requeued soon, and come before those behind them."""
        return any(one.in_flight for one in await self._store.stats() if one.name == self._name)

    async def move_some(self) -> bool:
        """Move a batch; returns whether there was one, and all of it was moved."""
        wanted = [(self._name, lane, _BATCH) for lane in (Lane.SYSTEM, Lane.DATA)]
        self.is_holding = True
        fetched = await self._store.fetch(wanted, consumer=self._consumer, wait_s=0.0)
        is_complete = bool(fetched)
        for lane in Lane:
            messages = [message for message in fetched if message.lane is lane]
            is_complete = await self._move(messages) and is_complete
        self.is_holding = False
        return is_complete

    async def _move(self, messages: list[StoredMessage]) -> bool:
        moves = [self._entries_of(message) for message in messages]
        results = iter(await self._store.put([one for move in moves for one in move]))
        settlements = []
        for message, move in zip(messages, moves, strict=True):
            copies = [next(results).queues > 0 for _ in move]
            is_stored = all(copies)
            self.result.moved += bool(move) and is_stored
            self.result.dropped += not move
            settlements.append(Settlement(message, how="ack" if is_stored else "requeue"))
        await self._store.settle(settlements)
        return all(one.how == "ack" for one in settlements)

    def _entries_of(self, message: StoredMessage) -> list[QueueEntry]:
        """The message as it is stored in other queues; nothing where it is of no use there."""
        entries = []
        for address in self._addresses_of(message.body):
            self._numbers[address, message.lane] += 1
            entry = QueueEntry(
                address=address,
                lane=message.lane,
                bodies=[with_target(message.body, address)],
                ids=[message.id],
                sender=self._consumer,
                stream=1,
                first=self._numbers[address, message.lane],
                is_vouched=True,
            )
            entries.append(entry)
        return entries

    def _addresses_of(self, body: bytes) -> Iterable[str]:
        try:
            header = decode_header(body)
        except MessageDecodeError:
            return ()
        kind = BusMessage.catalogue.get(header.type)
        if header.target is None:  # the others have copies of their own
            return ()
        if kind is BusJobCancelMessage:  # the job may be at any of them
            return self._successors
        is_for_any = (
            kind is None or kind.category == "data" or issubclass(kind, BusJobRequestMessage)
        )
        if not is_for_any:
            return ()
        return (
            (None if header.key is None else owner_of(header.key, self._successors)) or self._group,
        )
