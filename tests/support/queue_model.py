"""Random use of a queue, and the model that say what must be in it."""

import asyncio
import random

from pbus.bus.queues.store import QueueStore, Settlement, StoredMessage
from support.queue_helpers import DATA, SYSTEM, Writer, kept_bytes, texts

_HOLDERS = ("h1", "h2", "h3")


class QueueModel:
    """What a queue should hold.

    Args:
        store: Under test; it has a queue "box".
        seed: Decides what is done.
    """

    def __init__(self, store: QueueStore, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._writer = Writer()
        self._next = 0
        self._stored: set[str] = set()  # and not in flight
        self._held: dict[str, dict[str, StoredMessage]] = {holder: {} for holder in _HOLDERS}
        self._attempts: dict[str, int] = {}
        self._handled: set[str] = set()
        self._dead: set[str] = set()
        self._done = [self._put, self._take, self._take, self._settle, self._settle, self._requeue]

    async def do_something(self) -> None:
        """Put, take, settle, or see a holder die."""
        await self._random.choice(self._done)()

    async def check(self) -> None:
        """Compare the report with the model."""
        (report,) = await self._store.stats()
        held = sum(map(len, self._held.values()))
        alive = [*self._stored, *(text for messages in self._held.values() for text in messages)]
        tried = sum(self._attempts[text] > 1 for text in alive)

        assert (len(alive), held, tried, len(self._dead)) == (
            report.backlog, report.in_flight, report.retries, report.dead,
        )  # fmt: skip
        assert (report.oldest_s is None) == (not alive)
        assert await kept_bytes(self._store) == report.backlog_bytes
        assert (report.backlog_bytes == 0) == (not alive)

    async def finish(self) -> None:
        """Handle all that is left: nothing was lost, nothing came twice."""
        for messages in self._held.values():
            await self._store.settle([Settlement(message) for message in messages.values()])
            self._handled |= messages.keys()
            messages.clear()
        while self._stored:
            await self._take(wait_s=1)
            for messages in self._held.values():
                await self._store.settle([Settlement(message) for message in messages.values()])
                self._handled |= messages.keys()
                messages.clear()
        await self.check()
        dead = texts(await self._store.dead_letters())

        assert sorted(self._dead) == sorted(dead)
        assert {str(number) for number in range(self._next)} == self._handled | self._dead

    async def _put(self) -> None:
        batch = []
        for _ in range(self._random.randint(1, 3)):
            count = self._random.choice((1, 1, 2, 5, 30))
            names = [str(self._next + offset) for offset in range(count)]
            self._next += count
            lane = self._random.choice((DATA, SYSTEM))
            batch.append(self._writer.to("box", *names, lane=lane, ids=[f"id-{n}" for n in names]))
            self._stored.update(names)
            self._attempts.update(dict.fromkeys(names, 1))
        for _ in range(self._random.choice((1, 1, 2))):  # as if the first answer was lost
            await self._store.put(batch)

    async def _take(self, wait_s: float = 0.0) -> None:
        holder = self._random.choice(_HOLDERS)
        wanted = [("box", lane, self._random.randint(1, 20)) for lane in (SYSTEM, DATA)]
        messages = await self._store.fetch(wanted, consumer=holder, wait_s=wait_s)
        for message, text in zip(messages, texts(messages), strict=True):
            assert text in self._stored, f"{text} is not there to be taken"
            assert f"id-{text}" == message.id
            assert self._attempts[text] == message.attempt
            self._stored.remove(text)
            self._held[holder][text] = message

    async def _settle(self) -> None:
        settles = []
        for messages in self._held.values():
            for text in self._random.sample(sorted(messages), len(messages) * 2 // 3):
                message = messages.pop(text)
                how = self._random.choice(("ack", "ack", "retry", "requeue", "dead_letter"))
                delay_s = self._random.choice((0.0, 0.02))
                settles.append(Settlement(message, how=how, delay_s=delay_s, reason="so it goes"))
                if how == "ack":
                    self._handled.add(text)
                elif how == "dead_letter":
                    self._dead.add(text)
                else:
                    self._stored.add(text)
                    self._attempts[text] += how == "retry"
        await asyncio.gather(self._store.settle(settles), self._store.settle(settles))

    async def _requeue(self) -> None:
        holder = self._random.choice(_HOLDERS)
        messages = self._held[holder]
        await self._store.mark_started(list(messages.values()))

        assert len(messages) == await self._store.requeue_held_by([holder])
        self._stored |= messages.keys()
        messages.clear()
