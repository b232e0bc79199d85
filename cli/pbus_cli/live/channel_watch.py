"""Follows a channel from a thread and connection of its own: supervising never waits for a view."""

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.bus.queues.store import QueueStats
from pbus.bus.tap import TapMessage
from pbus.client.status import read_facts, read_queues
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.type_names import OWN_TYPES
from pbus.concurrency.background import running
from pbus.errors import BusError, PbusError
from pbus.leases import Lease
from pbus.observe import HostRecord
from pbus_cli.views.traffic import Passed

logger = logging.getLogger(__name__)

_KEPT: Final = 200  # messages: more than the tallest screen shows
_LONGEST_BODY: Final = 64 * 1024  # of longer ones only the beginning is kept
_BEGINNING: Final = 4096
_EVERY_S: Final = 1.0
_POLLS_PER_COUNT: Final = 2  # counting stored messages costs the broker more than the rest
_STOP_S: Final = 2.0
THREAD: Final = "watch"


class ChannelWatch:
    """Newest messages, leases, queue stats and supervisors' records of a channel, for a display.

    Reading is safe from any thread: every attribute is replaced, never changed in place.

    Args:
        make_bus: Makes the connection, in the watch's thread.
        with_traffic: Follow the messages too.
    """

    def __init__(self, make_bus: Callable[[], WorkerBus], *, with_traffic: bool = True) -> None:
        self.leases: tuple[Lease, ...] = ()
        self.hosts: tuple[HostRecord, ...] = ()
        self.queues: Mapping[str, QueueStats] | None = None  # of at-least-once delivery
        self.last_leases: tuple[Lease, ...] = ()  # of each name ever seen
        self.passed = 0
        self.missed = 0
        self.per_second = 0.0
        self._make_bus = make_bus
        self._with_traffic = with_traffic
        self._recent: deque[Passed] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)

    @property
    def messages(self) -> tuple[Passed, ...]:
        """The newest messages, newest last."""
        with self._lock:
            return tuple(self._recent)

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
        bus = self._make_bus()
        await bus.start(timeout=_STOP_S)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll(bus))
                if self._with_traffic:
                    group.create_task(self._tap(bus))
        finally:
            await bus.stop()

    async def _poll(self, bus: WorkerBus) -> None:
        before, since = self.passed, time.monotonic()
        seen = {lease.name: lease for lease in self.last_leases}
        for look in itertools.count():
            with contextlib.suppress(BusError):
                leases, hosts = await read_facts(bus)
                self.leases, self.hosts = tuple(leases), tuple(hosts)
                if look % _POLLS_PER_COUNT == 0:
                    self.queues = await read_queues(bus)
                seen.update((lease.name, lease) for lease in leases)
                self.last_leases = tuple(seen.values())
            await asyncio.sleep(_EVERY_S)
            now, passed = time.monotonic(), self.passed
            self.per_second = (passed - before) / (now - since)
            before, since = passed, now

    async def _tap(self, bus: WorkerBus) -> None:
        async with bus.tap() as tap:
            async for item in tap:
                self._keep(item)
                self.missed = tap.missed

    def _keep(self, item: TapMessage) -> None:
        if item.header.type in OWN_TYPES:
            return
        self.passed += 1
        with self._lock:
            self._recent.append(passed_of(TailMessage.of(item)))


def _report_bug(follower: "asyncio.Task[None]") -> None:
    """Log why a view stopped."""
    if not follower.cancelled() and (error := follower.exception()) is not None:
        logger.error("the channel is not followed any more", exc_info=error)


def passed_of(message: TailMessage) -> Passed:
    """The fields of a message that views show."""
    is_short = message.size_bytes <= _LONGEST_BODY
    return Passed(
        time=message.time,
        type=message.type,
        source=message.source,
        target=message.target,
        body=message.body if is_short else message.body[:_BEGINNING],
        size=message.size_bytes,
        is_urgent=message.is_urgent,
        is_reached=message.is_reached,
        key=message.key,
        is_local=message.is_local,
        has_body=message.has_body,
    )
