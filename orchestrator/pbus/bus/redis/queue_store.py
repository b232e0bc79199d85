"""RedisQueueStore: queues on Redis Streams; each call is one script."""

import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from pbus.bus.queues.store import (
    DeadLetter,
    FallenDead,
    PutNow,
    PutResult,
    QueueEntry,
    QueueStats,
    Settlement,
    StoredMessage,
    no_room,
    parts_of,
)
from pbus.bus.redis.encoding import Batch, read_dead, slot_of, write_batch, write_single
from pbus.bus.redis.fetcher import Fetcher
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.scripts.admin_lua import DROP_DEAD, OPEN, PURGE, REPORTS, REQUEUE, REVIVE, TOUCH
from pbus.bus.redis.scripts.common_lua import Script
from pbus.bus.redis.scripts.delivery_lua import (
    PASS_ON,
    PUT,
    PUT_ONE,
    SETTLE,
    STARTED,
)
from pbus.bus.redis.scripts.script_client import ScriptClient
from pbus.bus.redis.server.endpoint import Endpoint
from pbus.bus.redis.wakeups import Pair, Pushed, WakeupHub
from pbus.concurrency.background import TaskOwner
from pbus.errors import BusUnavailableError
from pbus.leases import LEASE_S
from pbus.messages import Lane
from pbus.settings import MAX_BACKLOG, MAX_BACKLOG_BYTES

logger = logging.getLogger(__name__)

_DEAD_SHOWN = 10_000
_DEAD_PAGE = 100  # dead letters read at once; each may be megabytes
_DEAD_KEY = re.compile(r"(.+)/(\d+-\d+)")


class RedisQueueStore:
    """A QueueStore on the server of a RedisBus; see the protocol for its methods.

    Args:
        endpoint: The server.
        names: How keys are named.
        lease_s: How long a queue that is not durable outlives its last renewal.
        on_fault: Called when a task of the store ended by an error, and begins again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        names: Keys,
        *,
        lease_s: float = LEASE_S,
        on_fault: Callable[[], None] | None = None,
    ) -> None:
        key = names.key("queues")
        self._key = key
        self._lease_ms = int(lease_s * 1000)
        self._scripts = ScriptClient(endpoint, key)
        self._wakeups = WakeupHub(
            endpoint,
            key,
            self._pass_on,
            on_push=self._read_push,
            on_stray_push=self._requeue_pushed,
            on_fault=on_fault,
        )
        self._fetcher = Fetcher(self._scripts, self._wakeups)
        self._passing = TaskOwner()
        self._since: bytes | None = None  # when queues began, as of the last touch
        self._waiting: dict[str, int] = {}  # how many messages waited then
        self._fallen = FallenDead()
        self.on_lost: Callable[[str, int], None] = _say_lost
        self.put_now: PutNow | None = self._post
        self.on_push: Callable[[StoredMessage], None] | None = None

    async def open(
        self,
        queue: str,
        *,
        durable: bool,
        shared: bool = False,
        max_backlog: int = MAX_BACKLOG,
        max_bytes: int = MAX_BACKLOG_BYTES,
    ) -> None:
        """Make sure a queue exists; see QueueStore."""
        limits = (max_backlog, self._lease_ms, max_bytes)
        await self._scripts.run("care", OPEN, queue, int(durable), int(shared), *limits)

    async def renew(self, queues: Sequence[str]) -> list[str]:
        """Renew leases; see QueueStore."""
        reply = await self._scripts.run("care", TOUCH, self._lease_ms, *queues)
        missing, waiting, emptied, since = reply
        is_again = self._since is not None and since != self._since
        self._since = since
        lost = _counts_of(emptied)
        for name, count in self._waiting.items():
            if is_again or name.encode() in missing:
                lost.setdefault(name, count)
        self._waiting = _counts_of(waiting)
        for name, count in lost.items():
            if count > 0:
                self.on_lost(name, count)
        return [name.decode() for name in missing]

    async def put(self, batch: Sequence[QueueEntry]) -> list[PutResult]:
        """Store a batch; see QueueStore."""
        if not batch:
            return []
        purpose = _purpose_of(batch[0])
        if (single := write_single(batch)) is not None:
            count = await self._scripts.run(purpose, PUT_ONE, *single)
            if count is not None:
                return [PutResult(count)]
        counts = await self._scripts.run(purpose, PUT, *write_batch(batch))
        return [_stored(count) for count in counts]

    async def fetch(
        self, wanted: Sequence[tuple[str, Lane, int]], *, consumer: str, wait_s: float
    ) -> list[StoredMessage]:
        """Take messages; see QueueStore."""
        return await self._fetcher.fetch(wanted, consumer, wait_s, on_push=self.on_push)

    async def wake_fetchers(self) -> None:
        """End waits; see QueueStore."""
        self._wakeups.interrupt()

    async def mark_started(self, messages: Sequence[StoredMessage]) -> None:
        """Note the start of suspects; see QueueStore."""
        cells: list[str] = []
        for message in messages:
            if message.is_poison_suspect:
                queue, slot = slot_of(message)
                cells += (queue, slot[0], slot[1:])
        if cells:
            await self._scripts.run("settle", STARTED, *cells)

    async def settle(self, settles: Sequence[Settlement]) -> None:
        """Settlement a batch; see QueueStore."""
        for part in parts_of(settles):
            await self._settle(part)

    async def _settle(self, settles: Sequence[Settlement]) -> None:
        batch = Batch(settles)
        closed, fallen = await self._scripts.run("settle", SETTLE, *batch.arguments())
        for name, count in _counts_of(fallen).items():
            self._fallen.note(name, count)
        self._fetcher.settled(batch.simple)
        self._fetcher.settled(
            slot for slot, is_closed in zip(batch.slots, closed, strict=True) if is_closed
        )
        if any(settle.delay_s > 0 for settle in settles):
            self._fetcher.look_again()  # and learn when the next retry is due

    async def requeue_held_by(self, incarnations: Sequence[str]) -> int:
        """Give back what the dead hold; see QueueStore."""
        prefixes = [one for one in incarnations if one]
        if not prefixes:
            return 0
        count = int(await self._scripts.run("care", REQUEUE, *prefixes))
        self._fetcher.forget(tuple(prefixes))
        return count

    async def stats(self, *, names_only: bool = False) -> list[QueueStats]:
        """All queues by name; see QueueStore."""
        if names_only:
            return [QueueStats(name=name) for name in sorted(await self._names())]
        reports = [
            QueueStats(
                name=name.decode(errors="replace"), backlog=backlog, in_flight=held, retries=tried, dead=dead,
                oldest_s=oldest_ms / 1000 if oldest_ms >= 0 else None, backlog_bytes=max(0, size),
                dead_fell=fell,
            )
            for name, backlog, held, tried, dead, oldest_ms, size, fell in await self._scripts.run("care", REPORTS)
        ]  # fmt: skip
        return sorted(reports, key=lambda report: report.name)

    async def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, oldest first; see QueueStore."""
        names = await self._names() if queue is None else [queue]
        seconds, micros = await self._scripts.plain("TIME")
        now = int(seconds) + int(micros) / 1e6
        found = [message for name in names for message in await self._dead_of(name, now)]
        return sorted(found, key=lambda message: message.dead_since)[:_DEAD_SHOWN]

    async def requeue_dead(self, keys: Sequence[str]) -> int:
        """Put dead letters back; see QueueStore."""
        return await self._run_on_dead(REVIVE, keys)

    async def drop_dead(self, keys: Sequence[str]) -> int:
        """Remove dead letters for good."""
        return await self._run_on_dead(DROP_DEAD, keys)

    async def _run_on_dead(self, script: Script, keys: Sequence[str]) -> int:
        count = 0
        for part in parts_of(keys):
            if cells := _cells_of(part):
                count += await self._scripts.run("care", script, *cells)
        return count

    async def purge(self, queue: str, *, remove: bool = False, if_empty: bool = False) -> int:
        """Empty a queue; see QueueStore."""
        total, is_more, choices = 0, True, (int(remove), int(if_empty))
        while is_more:
            fell, is_more = await self._scripts.run("care", PURGE, queue, *choices)
            total += fell
        return total

    async def close(self) -> None:
        """Close connections; a later call opens new ones."""
        await self._passing.close()
        await self._wakeups.close()
        await self._scripts.close()

    def _post(self, entry: QueueEntry, on_end: Callable[[PutResult | None], None]) -> bool:
        def end(outcome: list[Any] | Exception) -> None:
            is_stored = isinstance(outcome, list) and isinstance(outcome[0], int)
            on_end(PutResult(1) if is_stored else None)

        single = write_single([entry])
        return single is not None and self._scripts.post(_purpose_of(entry), PUT_ONE, single, end)

    async def _names(self) -> list[str]:
        index = await self._scripts.plain("ZRANGE", self._key, 0, -1)
        return [name.decode(errors="replace") for name in index]

    def _pass_on(self, pair: Pair) -> None:
        self._passing.spawn(self._wake_another(pair), "pbus queues waking")

    async def _wake_another(self, pair: Pair) -> None:
        queue, lane = pair
        with contextlib.suppress(BusUnavailableError):  # then the others look by themselves
            await self._scripts.run("take", PASS_ON, lane, queue)

    def _read_push(self, payload: bytes) -> Pushed | None:
        return self._fetcher.read_push(payload)

    def _requeue_pushed(self, message: StoredMessage) -> None:
        self._passing.spawn(self._requeue(message), "pbus queues requeueing")

    async def _requeue(self, message: StoredMessage) -> None:
        try:
            await self.settle([Settlement(message=message, how="requeue")])
        except BusUnavailableError:
            self._fetcher.put_back(message)

    async def _dead_of(self, queue: str, now: float) -> list[DeadLetter]:
        messages: list[DeadLetter] = []
        stream, start = f"{self._key}:dead:{queue}", "-"
        while len(messages) < _DEAD_SHOWN:
            page = await self._scripts.plain("XRANGE", stream, start, "+", "COUNT", _DEAD_PAGE)
            messages += [read_dead(queue, entry, fields, now) for entry, fields in page]
            if len(page) < _DEAD_PAGE:
                break
            start = f"({page[-1][0].decode()}"
        return messages


def _purpose_of(one: QueueEntry) -> str:
    """Name the connection: an urgent batch does not wait for one of the data lane."""
    return f"put {one.lane}"


def _counts_of(flat: Sequence[Any]) -> dict[str, int]:
    return {name.decode(): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)}


def _say_lost(queue: str, count: int) -> None:
    logger.warning("about %d messages of queue %r were removed from the broker", count, queue)


def _stored(count: int | list[Any]) -> PutResult:
    """Read the answer of PUT about one entry."""
    if isinstance(count, list):
        kind, queue, there, limit = count
        return PutResult(0, is_full=True, why=no_room(kind.decode(), queue.decode(), there, limit))
    if count >= 0:
        return PutResult(count)
    return PutResult(0, is_full=True) if count == -1 else PutResult(-2 - count, is_young=True)


def _cells_of(keys: Sequence[str]) -> list[str]:
    return [cell for key in keys if (found := _DEAD_KEY.fullmatch(key)) for cell in found.groups()]
