"""Stored messages in Postgres: PGMQ queues, and functions of the schema that each do one step."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from pbus.bus.coalescing import EVERYONE
from pbus.bus.pgmq.connections import ConnectionPair
from pbus.bus.pgmq.encoding import (
    dead_letter,
    fallen_of,
    key_of,
    message_of,
    numbers_of,
    sanitize_text,
    why_full,
)
from pbus.bus.pgmq.fetcher import Fetcher
from pbus.bus.pgmq.server.endpoint import Endpoint
from pbus.bus.queues.store import (
    DEAD_BYTES,
    DEAD_KEPT,
    HANDLED_KEPT,
    HANDLED_KEPT_S,
    DeadLetter,
    FallenDead,
    PutNow,
    PutResult,
    QueueEntry,
    QueueStats,
    Settlement,
    StoredMessage,
    parts_of,
)
from pbus.leases import LEASE_S
from pbus.messages import Lane
from pbus.settings import MAX_BACKLOG, MAX_BACKLOG_BYTES

HOLD_S = 30.0  # a consumer silent for so long lost what it held, if no supervisor said so before
_TIDY_S = 30.0
_GATHER_S = 0.01  # a settlement waits for others
_HURRY_S = 1.0  # but none after a suspect was started
_DEAD_SHOWN = 10_000
PURGED_AT_ONCE = 5_000  # entries that are deleted by one statement

_PUT = "SELECT * FROM pbus.queue_put($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_PUT_ONE = "SELECT * FROM pbus.queue_put_one($1, $2, $3, $4, $5, $6, $7, $8)"
_SETTLE = "SELECT pbus.queue_settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_DEAD = """SELECT d.*, m.name,
  extract(epoch FROM clock_timestamp() - d.dead_since)::float8 AS age_s FROM pbus.dead_letter d CROSS JOIN LATERAL (
    SELECT * FROM pbus.queue m WHERE m.id = d.queue_id AND m.channel = $1
      AND ($2::text IS NULL OR m.name = $2) OFFSET 0) m
  ORDER BY d.key LIMIT $3"""
_NAMES = 'SELECT name FROM pbus.queue WHERE channel = $1 ORDER BY name COLLATE "C"'
_REMOVE = "SELECT pbus.queue_purge_whole($1, $2)"
_PURGE_AT_ONCE = "SELECT pbus.queue_purge_at_once($1, $2)"
_PURGE_SOME = "SELECT * FROM pbus.queue_purge_some($1, $2, $3, $4, $5)"
_REMOVE_EMPTY = "SELECT pbus.queue_remove_empty($1, $2)"
_REQUEUE_DEAD = "SELECT pbus.queue_requeue_dead($1, $2)"
_DROP_DEAD = "SELECT pbus.queue_drop_dead($1, $2)"


class PgmqQueueStore:
    """A QueueStore in a database with PGMQ; see the protocol for its methods.

    Args:
        connections: The connections.
        holds_connections: Hold the connections until close().
        lease_s: How long a queue is kept that is neither durable nor renewed.
        hold_s: How long a consumer may be silent.
    """

    def __init__(
        self,
        connections: ConnectionPair,
        *,
        holds_connections: bool = False,
        lease_s: float = LEASE_S,
        hold_s: float = HOLD_S,
    ) -> None:
        self.fetcher = Fetcher(connections, hold_s)
        self._connections = connections
        self._holds_connections = holds_connections
        if holds_connections:
            connections.acquire()
        self._reader = connections.reader
        self._writer = connections.writer
        self._channel = connections.channel
        self._lease_s = lease_s
        self._hold_s = hold_s
        self._next_tidy = 0.0
        self._hurry = asyncio.Event()
        self._hurry_until = 0.0
        self._fallen = FallenDead()
        self.on_lost: Callable[[str, int], None] = lambda *_: None
        self.put_now: PutNow | None = None
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
        sql = "SELECT pbus.queue_open($1, $2, $3, $4, $5, $6, $7)"
        arguments = (self._channel, queue, durable, shared, max_backlog, self._lease_s, max_bytes)
        await self._writer.call(sql, *arguments)
        self.fetcher.push.resubscribe()

    async def renew(self, queues: Sequence[str]) -> list[str]:
        """Renew leases and holds; see QueueStore."""
        sql = "SELECT * FROM pbus.queue_renew($1, $2, $3, $4, $5, $6)"
        consumers, held = self.fetcher.consumers, self.fetcher.held
        arguments = (list(queues), consumers, held, self._lease_s, self._hold_s)
        rows = await self._reader.call(sql, self._channel, *arguments)
        now = asyncio.get_running_loop().time()
        if now >= self._next_tidy:
            self._next_tidy = now + _TIDY_S
            tidy = "SELECT pbus.queue_tidy($1, $2, $3, $4, $5)"
            limits = (HANDLED_KEPT_S, HANDLED_KEPT, DEAD_KEPT, DEAD_BYTES)
            await self._writer.call(tidy, self._channel, *limits)
            self.fetcher.push.resubscribe()  # the server may have lost who waits
        return [row[0] for row in rows]

    async def put(self, batch: Sequence[QueueEntry]) -> list[PutResult]:
        """Store a batch in one round trip; see QueueStore."""
        if not batch:
            return []
        sql, arguments = _PUT, _columns(batch)
        if len(batch) == 1 and batch[0].address != EVERYONE:
            sql, arguments = _PUT_ONE, tuple(value for (value,) in arguments[:4] + arguments[5:])
        size = sum(len(body) for one in batch for body in one.bodies)
        rows = await self._writer.call(sql, self._channel, *arguments, size=size)
        return [PutResult(row[0], is_full=row[1], why=why_full(row[2])) for row in rows]

    async def fetch(
        self, wanted: Sequence[tuple[str, Lane, int]], *, consumer: str, wait_s: float
    ) -> list[StoredMessage]:
        """Take messages, waiting for some; see QueueStore."""
        return await self.fetcher.fetch(wanted, consumer=consumer, wait_s=wait_s)

    async def wake_fetchers(self) -> None:
        """Make waiting takes return; see QueueStore."""
        self.fetcher.wakeups.end_all()

    async def mark_started(self, messages: Sequence[StoredMessage]) -> None:
        """Note that handlers are about to start; see QueueStore."""
        if messages:
            self._hurry_until = asyncio.get_running_loop().time() + _HURRY_S
            self._hurry.set()
            keys = [key_of(message) for message in messages]
            sql = "SELECT pbus.queue_mark_started($1, $2)"
            await self._reader.call(sql, [key[0] for key in keys], [key[1] for key in keys])

    async def settle(self, settles: Sequence[Settlement]) -> None:
        """Settlement a batch; see QueueStore."""
        if not settles:
            return
        await self._gather()
        for part in parts_of(settles):
            await self._settle(part)

    async def _settle(self, settles: Sequence[Settlement]) -> None:
        rows = [
            (
                *key_of(one.message),
                sanitize_text(one.message.id),
                one.how,
                one.delay_s,
                sanitize_text(one.reason),
            )
            for one in settles
        ]
        limits = (DEAD_KEPT, DEAD_BYTES)
        columns = zip(*rows, strict=True)
        ((fallen,),) = await self._writer.call(_SETTLE, self._channel, *columns, *limits)
        for name, count in fallen_of(fallen):
            self._fallen.note(name, count)
        self.fetcher.settled(row[0] for row in rows)

    async def _gather(self) -> None:
        """Leave disk and server to what a caller waits for, and settle more at once.

        Not while a suspect is about: what was handled before it kills us counts as handled.
        """
        self._hurry.clear()
        if asyncio.get_running_loop().time() >= self._hurry_until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    await self._hurry.wait()

    async def requeue_held_by(self, incarnations: Sequence[str]) -> int:
        """Give back what incarnations hold; see QueueStore."""
        prefixes = [one for one in incarnations if one]
        await self.fetcher.finish(prefixes)
        sql = "SELECT pbus.queue_requeue_held_by($1, $2)"
        rows = await self._reader.call(sql, self._channel, prefixes)
        self.fetcher.release(prefixes)
        return int(rows[0][0])

    async def stats(self, *, names_only: bool = False) -> list[QueueStats]:
        """All queues by name; see QueueStore."""
        if names_only:
            rows = await self._reader.call(_NAMES, self._channel)
            return [QueueStats(name=row[0]) for row in rows]
        rows = await self._writer.call("SELECT * FROM pbus.queue_stats($1)", self._channel)
        return [QueueStats(**dict(row)) for row in rows]

    async def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        """The dead letters; see QueueStore."""
        rows = await self._writer.call(_DEAD, self._channel, queue, _DEAD_SHOWN)
        return [dead_letter(row) for row in rows]

    async def requeue_dead(self, keys: Sequence[str]) -> int:
        """Put dead letters back; see QueueStore."""
        return await self._call_on_dead(_REQUEUE_DEAD, keys, is_repeatable=False)

    async def drop_dead(self, keys: Sequence[str]) -> int:
        """Remove dead letters; see QueueStore."""
        return await self._call_on_dead(_DROP_DEAD, keys, is_repeatable=True)

    async def _call_on_dead(self, sql: str, keys: Sequence[str], *, is_repeatable: bool) -> int:
        count = 0
        for part in parts_of(numbers_of(keys)):
            arguments = (sql, self._channel, part)
            count += (await self._writer.call(*arguments, is_repeatable=is_repeatable))[0][0]
        return count

    async def purge(self, queue: str, *, remove: bool = False, if_empty: bool = False) -> int:
        """Empty a queue; see QueueStore."""
        if remove:
            return int(await self._number(_REMOVE_EMPTY if if_empty else _REMOVE, queue))
        fell = await self._number(_PURGE_AT_ONCE, queue)
        if fell is None:  # in slices: no process waits long
            fell = sum([await self._purge_slices(queue, lane) for lane in Lane])
        return int(fell)

    async def _purge_slices(self, queue: str, lane: Lane) -> int:
        total, upto = 0, -1
        while upto is not None:
            arguments = (self._channel, queue, lane.value, upto, PURGED_AT_ONCE)
            ((fell, upto),) = await self._writer.call(_PURGE_SOME, *arguments)
            total += fell
        return total

    async def _number(self, sql: str, queue: str) -> Any:
        ((number,),) = await self._writer.call(sql, self._channel, queue)
        return number

    async def close(self) -> None:
        """Close connections."""
        await self.fetcher.close()
        if self._holds_connections:
            await self._connections.release()


def _columns(batch: Sequence[QueueEntry]) -> tuple[tuple[Any, ...], ...]:
    """The streams of a batch (sender, number, address, lane) and its entries, by column."""
    streams: dict[tuple[str, int, str, str], int] = {}
    entries = []
    for out in batch:
        key = (out.sender, out.stream, sanitize_text(out.address), out.lane.value)
        at = streams.setdefault(key, len(streams) + 1)
        entries.append((at, out.first, len(out.bodies), message_of(out)))
    return (*zip(*streams, strict=True), *zip(*entries, strict=True))


def standalone_store(endpoint: Endpoint, channel: str, **options: float) -> PgmqQueueStore:
    """A store with two connections of its own."""
    return PgmqQueueStore(ConnectionPair(endpoint, channel), holds_connections=True, **options)
