"""Messages for queues, and what came out of them."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence

import msgspec

from pbus.bus.queues.store import (
    COMING_BACK_S,
    QueueEntry,
    QueueStore,
    Settlement,
    StoredMessage,
)
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.ids import new_id
from pbus.messages import Lane

DATA, SYSTEM = Lane.DATA, Lane.SYSTEM


class Writer:
    """A sending process: numbers what it writes, as the bus does.

    Args:
        sender: Its incarnation.
        stream: Its stream number, the same for all addresses.
    """

    def __init__(self, sender: str = "writer", stream: int = 1) -> None:
        self.sender = sender
        self.stream = stream
        self._next: dict[tuple[str, Lane], int] = {}

    def to(
        self, address: str, *texts: str, lane: Lane = DATA, ids: list[str] | None = None
    ) -> QueueEntry:
        """One entry that holds these texts as messages."""
        first = self._next.get((address, lane), 1)
        self._next[address, lane] = first + len(texts)
        return QueueEntry(
            address=address,
            lane=lane,
            bodies=[json.dumps({"text": text}).encode() for text in texts],
            ids=ids or [new_id() for _ in texts],
            sender=self.sender,
            stream=self.stream,
            first=first,
        )

    def each(self, address: str, *texts: str, lane: Lane = DATA) -> list[QueueEntry]:
        """An entry for each text."""
        return [self.to(address, text, lane=lane) for text in texts]


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    """What messages say, in order."""
    return [json.loads(message.body)["text"] for message in messages]


async def fetch(
    store: QueueStore, queue: str = "box", *, consumer: str = "consumer", wait_s: float = 0.0
) -> list[StoredMessage]:
    """Take up to 1,000 messages of each lane."""
    wanted = [(queue, SYSTEM, 1000), (queue, DATA, 1000)]
    return await store.fetch(wanted, consumer=consumer, wait_s=wait_s)


async def handle(store: QueueStore, messages: Sequence[StoredMessage]) -> None:
    """Settle messages as handled."""
    await store.settle([Settlement(message) for message in messages])


async def backlog(store: QueueStore, queue: str = "box") -> int:
    """How many messages a queue holds."""
    return {report.name: report.backlog for report in await store.stats()}[queue]


async def kept_bytes(store: QueueStore) -> int:
    """How many bytes the entries in a channel's queues have, by the broker's keys and tables."""
    if isinstance(store, RedisQueueStore):
        return await _kept_on_redis(store)
    total = 0
    sql = "SELECT base FROM pbus.queue WHERE channel = $1"
    for (queue,) in await store._writer.call(sql, store._channel):
        for lane in ("d", "s"):
            count = f"SELECT coalesce(sum(pbus.queue_entry_bytes(headers)), 0) FROM pgmq.q_{queue}_{lane}"
            total += int((await store._writer.call(count))[0][0])
    return total


async def _kept_on_redis(store: RedisQueueStore) -> int:
    ask = store._scripts.plain
    total = 0
    for name in await ask("ZRANGE", store._key, 0, -1):
        for queue in "dsDS":
            stream = f"{store._key}:q:{queue}:{name.decode()}"
            total += sum(len(fields[3]) for _, fields in await ask("XRANGE", stream, "-", "+"))
        for member in await ask("ZRANGE", f"{store._key}:later:{name.decode()}", 0, -1):
            total += len(msgspec.msgpack.decode(member)[1]["body"])
    return total


async def pass_time(store: QueueStore, seconds: float) -> None:
    """Let the leases of queues age; there are some."""
    if isinstance(store, RedisQueueStore):
        for name in await store._scripts.plain("ZRANGE", store._key, 0, -1):
            await store._scripts.plain("ZINCRBY", store._key, -1000 * seconds, name)
        return
    sql = "UPDATE pbus.queue SET ends_at = ends_at - $1::float8 * interval '1 s' WHERE channel = $2"
    await store._writer.call(sql, seconds, store._channel)


async def be_away(store: QueueStore, seconds: float) -> None:
    """Let time pass in which the broker was away from everyone."""
    await pass_time(store, seconds)
    if isinstance(store, RedisQueueStore):
        key = f"{store._key}:touched"
        last = int(await store._scripts.plain("GET", key))
        await store._scripts.plain("SET", key, last - int(1000 * seconds))
        return
    sql = "UPDATE pbus.last_renewal SET at = at - $1::float8 * interval '1 s' WHERE channel = $2"
    await store._writer.call(sql, seconds, store._channel)


async def grow_old(store: QueueStore) -> None:
    """Let a broker be so old that no queue is expected to come back."""
    inner = getattr(store, "_store", store)
    if isinstance(inner, RedisQueueStore):
        key = f"{inner._key}:since"
        since = int(await inner._scripts.plain("GET", key))
        await inner._scripts.plain("SET", key, since - int(1000 * COMING_BACK_S))


@contextlib.asynccontextmanager
async def closing(store: QueueStore) -> AsyncIterator[QueueStore]:
    """A store, closed at the end."""
    try:
        yield store
    finally:
        await store.close()
