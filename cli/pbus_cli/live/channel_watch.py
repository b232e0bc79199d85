"""Follows a channel from a thread and connection of its own: supervising never waits for a view."""

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from pbus.bus.presence import Presence
from pbus.bus.queues.store import DeadLetter, QueueStats
from pbus.bus.tap import Tap
from pbus.bus.tap_base import BrokerTap
from pbus.client import Attachment, Client
from pbus.client.status import read_facts, read_queues
from pbus.client.traffic.edge_stats import EdgeStats, JobStats
from pbus.client.traffic.type_names import OWN_TYPES
from pbus.concurrency.background import running
from pbus.errors import BusError, PbusError
from pbus.jobs.listing import JobEntry
from pbus.leases import Lease
from pbus.observe import HostRecord
from pbus_cli.live.traffic_fold import TrafficFold
from pbus_cli.views.board.arrangement import Pane
from pbus_cli.views.board.board_snapshot import DeadItem, Edge, Folded
from pbus_cli.views.tables.queue_table import dead_body, dead_row
from pbus_cli.views.traffic import Passed

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_FIGURES_S: Final = 2.0  # between looks at edges, jobs and dead letters
_POLLS_PER_COUNT: Final = 2  # counting stored messages costs the broker more than the rest
_RATES: Final = 30  # of each edge: the last minute
_MOST_DEAD: Final = 200
_MOST_EDGES: Final = 500
_QUOTA: Final = 5_000  # messages a second that are decoded; those beyond are only counted
_STOP_S: Final = 2.0
_FRESH_S: Final = 3.0  # so long a look at the registry tells who is there; more often than that
# What the display asks itself is no traffic of the project.
_ASKED: Final = OWN_TYPES | {"BusJobsRequestMessage", "BusJobsResponseMessage"}
THREAD: Final = "watch"


class ChannelWatch:
    """Messages, leases, queues, edges, jobs and supervisors' records of a channel, for a display.

    Reading is safe from any thread: every attribute is replaced, never changed in place.

    Args:
        attach: Finds the project, in the watch's thread.
    """

    def __init__(self, attach: Callable[[], Attachment]) -> None:
        self.leases: tuple[Lease, ...] = ()
        self.hosts: tuple[HostRecord, ...] = ()
        self.queues: Mapping[str, QueueStats] | None = None  # of at-least-once delivery
        self.last_leases: tuple[Lease, ...] = ()  # of each name ever seen
        self.edges: tuple[Edge, ...] = ()
        self.job_stats: tuple[JobStats, ...] = ()
        self.jobs: tuple[JobEntry, ...] | None = None
        self.dead: tuple[DeadItem, ...] | None = None
        self.missed = 0
        self.names: tuple[str, ...] = ()  # only edges from or to these
        self.wanted: frozenset[Pane] = frozenset()  # the panes that are shown
        self._attach = attach
        self._traffic = TrafficFold()
        self._lock = threading.Lock()
        self._rates: dict[tuple[str, str, str], deque[float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._client: Client | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)

    @property
    def passed(self) -> int:
        """The number of messages that passed."""
        return self._traffic.passed

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return self._traffic.per_second

    def traffic(self) -> tuple[tuple[Passed, ...], tuple[Folded, ...]]:
        """The newest messages, newest last, and the edges that are folded."""
        with self._lock:
            return self._traffic.messages(), self._traffic.folded()

    def open(self) -> None:
        """Begin to follow; does nothing the second time."""
        if self._thread.ident is None and not self._is_closed:
            self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._is_closed = True
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                loop.call_soon_threadsafe(stop.set)
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def call(self, make: Callable[[Client], Coroutine[Any, Any, None]]) -> bool:
        """Run a coroutine with the client, in the watch's thread; False where it is not connected."""
        loop, client = self._loop, self._client
        if loop is None or client is None or loop.is_closed():
            return False
        asyncio.run_coroutine_threadsafe(make(client), loop)
        return True

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_closed:
            return
        async with running(self._follow_for_ever()) as follower:
            follower.add_done_callback(_report_bug)
            await self._stop.wait()

    async def _follow_for_ever(self) -> None:
        """Follow again after the broker was unreachable."""
        while True:
            try:
                await self._follow()
            except* PbusError as errors:
                logger.debug("the channel cannot be followed: %s", errors)
            await asyncio.sleep(_EVERY_S)

    async def _follow(self) -> None:
        async with Client.at(self._attach(), connect_timeout=_STOP_S) as client:
            self._client = client
            presence = Presence(client.bus, fresh_s=_FRESH_S)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._poll(client, presence))
                    group.create_task(self._poll_figures(client))
                    group.create_task(self._tap(client, presence))
            finally:
                self._client = None

    async def _poll(self, client: Client, presence: Presence) -> None:
        seen = {lease.name: lease for lease in self.last_leases}
        for look in itertools.count():
            with contextlib.suppress(BusError):
                leases, hosts = await read_facts(client.bus)
                self.leases, self.hosts = tuple(leases), tuple(hosts)
                if look % _POLLS_PER_COUNT == 0:
                    self.queues = await read_queues(client.bus)
                presence.take((lease.name for lease in leases), self.queues)
                seen.update((lease.name, lease) for lease in leases)
                self.last_leases = tuple(seen.values())
            await asyncio.sleep(_EVERY_S)

    async def _poll_figures(self, client: Client) -> None:
        while True:
            with contextlib.suppress(PbusError):
                found = await client.stats(*self.names)
                self._take_edges(found.edges)
                self.job_stats = tuple(found.jobs)
                if "jobs" in self.wanted:
                    self.jobs = tuple((await client.open_jobs()).jobs)
                if "dead" in self.wanted:
                    self.dead = await self._dead_letters(client)
            await asyncio.sleep(_FIGURES_S)

    def _take_edges(self, edges: Sequence[EdgeStats]) -> None:
        shown = [edge for edge in edges if edge.type not in _ASKED][:_MOST_EDGES]
        rates: dict[tuple[str, str, str], deque[float]] = {}
        for edge in shown:
            key = (edge.source, edge.target, edge.type)
            rates[key] = self._rates.get(key) or deque(maxlen=_RATES)
            rates[key].append(edge.rate)
        self._rates = rates
        self.edges = tuple(
            Edge(edge, tuple(rates[edge.source, edge.target, edge.type])) for edge in shown
        )

    async def _dead_letters(self, client: Client) -> tuple[DeadItem, ...] | None:
        """The dead letters; asked for only where there are some."""
        if self.queues is None or not any(one.dead for one in self.queues.values()):
            return ()
        return tuple(map(_dead_item, (await client.dead_letters.list())[:_MOST_DEAD]))

    async def _tap(self, client: Client, presence: Presence) -> None:
        tap = client.bus.tap()
        if isinstance(tap, BrokerTap):
            tap.sieve, tap.quota = self._traffic.sieve, _QUOTA
        async with tap, running(self._take_rates(tap)):
            async for item in tap:
                presence.note(item)
                if item.header.type not in _ASKED:
                    is_reached = item.is_local or await presence.reaches(item.header.target)
                    with self._lock:
                        self._traffic.add(item, is_reached=is_reached)

    async def _take_rates(self, tap: Tap) -> None:
        """Each second, take the rates and have as many messages decoded again."""
        while True:
            await asyncio.sleep(_EVERY_S)
            skipped = 0
            if isinstance(tap, BrokerTap):
                tap.quota, skipped = _QUOTA, tap.skipped
            self.missed = tap.missed + skipped
            with self._lock:
                self._traffic.look(time.monotonic(), skipped)


def _dead_item(message: DeadLetter) -> DeadItem:
    body = msgspec.json.format(msgspec.json.encode(dead_body(message)), indent=2)
    return DeadItem(dead_row(message), body.decode("utf-8", "replace"))


def _report_bug(follower: "asyncio.Task[None]") -> None:
    """Log why a view stopped."""
    if not follower.cancelled() and (error := follower.exception()) is not None:
        logger.error("the channel is not followed any more", exc_info=error)
