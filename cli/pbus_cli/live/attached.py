"""Feeds a display with a project that another process supervises: by the bus and the log files."""

import asyncio
import contextlib
from typing import Final, Protocol

from pbus.client import Client
from pbus.client.status import read_facts
from pbus.errors import BusError
from pbus.messages import BusWorkerStateMessage
from pbus.observe import HostRecord, join_reason
from pbus.process.project.log_reader import follow_lines
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    GaveUp,
    Line,
    Ready,
    Started,
    Stream,
)

_LOOK_S: Final = 1.0
_STREAMS: Final[dict[str, Stream]] = {"out": "out", "err": "err"}


class EventDisplay(Protocol):
    """Takes in events; never waits."""

    def hear(self, event: Event) -> None:
        """Take in an event."""


class AttachedFeed:
    """Turns what the bus and the log files tell into the events of a supervisor.

    Args:
        client: Open.
        record: The supervisor's.
        display: Takes the events.
        last_n: Existing log lines that are shown first.
    """

    def __init__(
        self, client: Client, record: ProjectRecord, display: EventDisplay, last_n: int
    ) -> None:
        self._client = client
        self._record = record
        self._display = display
        self._last_n = last_n
        self._project = Project.of_record(record)
        self._followed: set[str] = set()
        self._is_connected = True

    async def run(self) -> None:
        """Feed the display until cancelled."""
        async with self._client.events() as changes:
            self._display.hear(BrokerReady(self._client.bus.url))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look(group))
                async for change in changes:
                    if change.project == self._record.name:
                        self._take_in(change)

    def _take_in(self, change: BusWorkerStateMessage) -> None:
        if change.state == "ready":
            self._display.hear(Ready(change.worker))
        elif change.state == "failed":
            self._display.hear(GaveUp(change.worker, change.detail, ()))
        elif change.state == "starting" and change.pid is not None:
            self._display.hear(Started(change.worker, change.pid, ""))

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """Follow the logs of all workers, also of those that come later; note a lost broker."""
        is_first = True
        while True:
            with contextlib.suppress(BusError):
                _, hosts = await read_facts(self._client.bus)
                for host in hosts:
                    if host.session == self._record.session and host.pid == self._record.pid:
                        self._note_workers(group, host, is_first=is_first)
                        is_first = False
            self._note_connection()
            await asyncio.sleep(_LOOK_S)

    def _note_workers(self, group: asyncio.TaskGroup, host: HostRecord, *, is_first: bool) -> None:
        fresh = {process.name for process in host.processes} - self._followed
        if fresh:
            self._followed |= fresh
            group.create_task(self._follow(fresh, self._last_n if is_first else 0))
        for process in host.processes if is_first else ():
            if process.state == "failed":
                reason = join_reason(process.reason, process.error) or ""
                self._display.hear(GaveUp(process.name, reason, ()))

    async def _follow(self, names: set[str], last_n: int) -> None:
        paths = {name: self._project.log_path(name) for name in sorted(names)}
        async for line in follow_lines(paths, last_n=last_n):
            stream = _STREAMS.get(line.stream, "pbus")
            self._display.hear(Line(line.worker, stream, line.text, line.time))

    def _note_connection(self) -> None:
        is_connected = self._client.bus.is_connected
        if is_connected != self._is_connected:
            self._is_connected = is_connected
            url = self._client.bus.url
            self._display.hear(BrokerReady(url) if is_connected else BrokerLost())
