"""Backlog: rates of a queue that holds many messages beside one that holds few; `ps` and `purge` of it."""

import asyncio
import statistics
import time
from collections.abc import Iterator

import msgspec

from pbus.bench.processes.bus_handle import ignore, running_worker
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import RoleConfig
from pbus.bench.results import CaseResult, Check, Plan, Row, ratio
from pbus.bus.queues.store import QueueEntry, QueueStore, Settlement
from pbus.ids import new_id
from pbus.messages import Lane

NAME = "backlog"
_COUNT = 1_000_000
_FEW = 1_000
_MEASURED = 20_000  # messages over which a rate is taken, at most the backlog
_ROUNDS = 3
_AN_ENTRY = 50  # messages, as of dozens of tasks that send
_AT_ONCE = 1_000
_MOST, _MOST_BYTES = 10**9, 10**12
_LEAST, _STATS_S, _PURGE_S = 0.8, 1.0, 5.0
_POLL_S = 0.001


class BacklogResult(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one queue: messages a second behind few and behind many, and seconds.

    Attributes:
        wait_s: The longest that a send to another queue took during the purge.
        lost: Messages that were neither handled nor purged.
    """

    put_few: float
    drain_few: float
    put_many: float
    drain_many: float
    stats_s: float
    purge_s: float
    wait_s: float
    lost: int


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure one queue in one process; `count` is its backlog."""
    count = plan.count_or(_COUNT)
    bus = pool.new_bus().updated({"delivery": "at-least-once"})
    config = RoleConfig(bus=bus, name="backlog", count=count, size=plan.size)
    async with pool.running(("backlog", config)) as (process,):
        process.go()
        found = await process.result(BacklogResult)
    rates = {
        f"put behind {_FEW:,}": found.put_few,
        f"put behind {count:,}": found.put_many,
        f"drain from {_FEW:,}": found.drain_few,
        f"drain from {count:,}": found.drain_many,
    }
    rows = tuple(
        Row(name=f"{NAME}: {name}", count=min(count, _MEASURED), messages_per_s=rate)
        for name, rate in rates.items()
    )
    return CaseResult(rows=rows, checks=_checks(found, count))


def _checks(found: BacklogResult, count: int) -> tuple[Check, ...]:
    puts, drains = ratio(found.put_many, found.put_few), ratio(found.drain_many, found.drain_few)
    return (
        Check.of(f"put behind {count:,} / behind {_FEW:,}", puts, at_least=_LEAST),
        Check.of(f"drain from {count:,} / from {_FEW:,}", drains, at_least=_LEAST),
        Check.of(f"counts of {count:,}", found.stats_s, at_most=_STATS_S, unit="s"),
        Check.of(f"purge of {count:,}", found.purge_s, at_most=_PURGE_S, unit="s"),
        Check.of("longest send meanwhile", found.wait_s * 1000, unit="ms"),
        Check.of(f"lost in {NAME}", found.lost, at_most=0),
    )


class _Queue:
    """A queue that is filled and drained without workers, so that only the store is measured."""

    def __init__(self, store: QueueStore, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._body = b"x" * size
        self._sent = 0

    async def open(self) -> None:
        limits = {"max_backlog": _MOST, "max_bytes": _MOST_BYTES}
        await self._store.open(self._name, durable=True, shared=False, **limits)

    async def put(self, count: int) -> float:
        """Store messages; returns how many a second."""
        started = time.perf_counter()
        for many in _parts(count, _AT_ONCE):
            await self._store.put([self._entry(part) for part in _parts(many, _AN_ENTRY)])
        return count / (time.perf_counter() - started)

    async def drain(self, count: int) -> float:
        """Handle so many messages; returns how many a second."""
        started, left = time.perf_counter(), count
        while left > 0:
            wanted = [(self._name, Lane.DATA, min(left, _AT_ONCE))]
            found = await self._store.fetch(wanted, consumer="bench", wait_s=1.0)
            await self._store.settle([Settlement(one) for one in found])
            left -= len(found)
        return count / (time.perf_counter() - started)

    async def backlog(self) -> int:
        """Count the messages that it holds."""
        return sum(one.backlog for one in await self._store.stats() if one.name == self._name)

    def _entry(self, many: int) -> QueueEntry:
        first, self._sent = self._sent + 1, self._sent + many
        return QueueEntry(
            address=self._name,
            lane=Lane.DATA,
            bodies=[self._body] * many,
            ids=[new_id() for _ in range(many)],
            sender="bench",
            stream=1,
            first=first,
        )


async def _rates(queue: _Queue, count: int) -> tuple[float, float]:
    """The medians of several rates of putting and draining."""
    rounds = [(await queue.put(count), await queue.drain(count)) for _ in range(_ROUNDS)]
    puts, drains = zip(*rounds, strict=True)
    return statistics.median(puts), statistics.median(drains)


def _parts(count: int, most: int) -> Iterator[int]:
    for first in range(0, count, most):
        yield min(most, count - first)


async def hold(config: RoleConfig, control: ControlPipe) -> None:
    """Role: fill a queue, drain some of it, and purge the rest."""
    async with running_worker(config, ignore) as (_, bus):
        store = bus.queues
        assert store is not None  # noqa: S101 - the bus of this case
        queue, other = _Queue(store, "full", config.size), _Queue(store, "other", config.size)
        await queue.open()
        await other.open()
        control.send_ready()
        await control.receive()
        some = min(config.count, _MEASURED)
        await queue.put(_FEW)
        await _rates(
            queue, some
        )  # handled ids are kept, which costs a drain something from then on
        put_few, drain_few = await _rates(queue, some)
        await queue.put(config.count - _FEW if config.count > _FEW else 0)
        put_many, drain_many = await _rates(queue, some)
        kept = max(config.count, _FEW)
        started = time.perf_counter()
        backlog = await queue.backlog()
        stats_s = time.perf_counter() - started
        is_over = asyncio.Event()
        sending = asyncio.create_task(_longest_send(other, is_over), name="bench sends")
        started = time.perf_counter()
        fell = await store.purge("full")
        purge_s = time.perf_counter() - started
        is_over.set()
        wait_s = await sending
        for name in ("full", "other"):
            await store.purge(name, remove=True)
        result = BacklogResult(
            put_few=put_few,
            drain_few=drain_few,
            put_many=put_many,
            drain_many=drain_many,
            stats_s=stats_s,
            purge_s=purge_s,
            wait_s=wait_s,
            lost=max(abs(kept - backlog), abs(kept - fell)),
        )
        control.send(result)


async def _longest_send(queue: _Queue, is_over: asyncio.Event) -> float:
    """Send one by one until it is over; returns the seconds of the longest."""
    longest = 0.0
    while True:
        started = time.perf_counter()
        await queue.put(1)
        longest = max(longest, time.perf_counter() - started)
        if is_over.is_set():
            return longest
        await asyncio.sleep(_POLL_S)
