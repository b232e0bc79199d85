"""Traffic history: written from a follower of the channel whose cost is bounded."""

import asyncio
import functools
import logging
import time
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from pbus.bus.base import WorkerBus
from pbus.bus.presence import Presence
from pbus.bus.tap import TapMessage
from pbus.bus.tap_base import BrokerTap
from pbus.concurrency.background import TaskFunction
from pbus.errors import BusUnavailableError
from pbus.messages import BusFrameMessage, BusMessage
from pbus.process.project.history.capsule import Traffic
from pbus.process.project.history.traffic_history import KeptMessage, Missed, TrafficFile
from pbus.process.project.project import Project
from pbus.process.supervisor.reports.recent_traffic import RecentTraffic
from pbus.structs import DECODE_ERRORS

RATE: Final = 500  # messages a second that are kept for long
BURST: Final = 2_000  # and at once, after a quiet time
_TICK_S: Final = 0.1
_QUIET_TICK_S: Final = 0.5  # while the quota is whole: ten wake-ups a second cost 0.2 % of a core
_PAUSE_S: Final = 0.9  # after the quota was used up; what passes is only counted
_AGAIN_S: Final = 30.0  # after the channel could not be followed
_MAX_TEXT: Final = 256  # characters; names have at most so many
_BODY_BYTES: Final = 64 * 1024  # fields of a larger message are not looked for

logger = logging.getLogger(__name__)


class _Frame(msgspec.Struct):
    type: str | None = None


class _Body(msgspec.Struct):
    job_id: str | None = None
    job_name: str | None = None
    status: str | None = None
    frame: _Frame | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_NOTHING: Final = _Body()


class TrafficRecorder:
    """Follows the channel: what passes goes to the history, and to the memory of recent traffic.

    While more than RATE messages a second pass, the channel is followed for a part of each second,
    and costs neither broker nor workers anything in the rest.

    Args:
        project: Held by this process.
        is_on: The project wants it.
    """

    def __init__(self, project: Project, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._recent = RecentTraffic()
        self._file = TrafficFile(project)
        self._tap: BrokerTap | None = None
        self._has_warned = False
        self._told = 0  # of the messages that this follower has missed

    def tasks(self, bus: WorkerBus) -> dict[str, TaskFunction]:
        """Return the background task by its name, to be run until cancelled; none where it is off."""
        return {"traffic history": functools.partial(self.run, bus)} if self._is_on else {}

    def last_of(self, workers: Iterable[str]) -> Traffic | None:
        """Return the last messages of workers of one process; None where it is off."""
        if not self._is_on:
            return None
        self._take_waiting()  # the one that ended the process may be among them
        return self._recent.of(workers)

    async def run(self, bus: WorkerBus) -> None:
        """Follow the channel until cancelled."""
        tap = bus.tap()
        assert isinstance(tap, BrokerTap)  # noqa: S101 - a supervisor is on a broker
        self._tap, self._told, tap.quota = tap, 0, BURST
        try:
            async with tap, asyncio.TaskGroup() as group:
                self._has_warned = False
                group.create_task(self._pace(tap), name="pbus traffic pace")
                await self._record(tap, Presence(bus))
        except BusUnavailableError as error:
            if not self._has_warned:
                logger.warning("the traffic is not kept for now: %s", error)
            self._has_warned = True
            await asyncio.sleep(_AGAIN_S)
        finally:
            self._take_waiting()  # they came before the end
            self._tell_missed(tap)
            self._tap = None
            self._file.close()

    async def _record(self, tap: BrokerTap, presence: Presence) -> None:
        async for item in tap:
            presence.note(item)
            target = item.header.target
            if item.is_local or presence.knows(target):
                self._add(item)
            else:
                await self._add_after_look(kept(item, is_reached=True), presence)

    async def _add_after_look(self, message: KeptMessage, presence: Presence) -> None:
        """Add a message whose target has to be looked up; a capsule does not wait for that."""
        self._recent.add(message)
        at, is_reached = time.time(), True
        try:
            is_reached = await presence.reaches(message.target)
        finally:  # it is kept where this ends meanwhile, too
            self._file.add(at, replace(message, is_reached=is_reached))

    async def _pace(self, tap: BrokerTap) -> None:
        """Refill the quota; where it was used up, follow nothing for a while."""
        while True:
            await asyncio.sleep(_QUIET_TICK_S if tap.quota == BURST else _TICK_S)
            quota = tap.quota or 0
            if quota > 0:
                tap.quota = min(BURST, quota + round(RATE * _TICK_S))
            else:
                await tap.pause()
                await asyncio.sleep(_PAUSE_S)
                tap.quota = round(RATE * (_PAUSE_S + _TICK_S))
                await tap.resume()
            self._tell_missed(tap)

    def _take_waiting(self) -> None:
        for item in self._tap.waiting() if self._tap is not None else ():
            self._add(item)

    def _add(self, item: TapMessage) -> None:
        message = kept(item, is_reached=True)
        self._recent.add(message)
        self._file.add(time.time(), message)

    def _tell_missed(self, tap: BrokerTap) -> None:
        missed = tap.missed + tap.skipped
        if missed > self._told:
            self._recent.missed += missed - self._told
            self._file.add(time.time(), Missed(missed - self._told))
            self._told = missed


def kept(item: TapMessage, *, is_reached: bool) -> KeptMessage:
    """Return what is kept of a message."""
    header, body = item.header, _body_of(item)
    return KeptMessage(
        time=header.time,
        id=header.id[:_MAX_TEXT],
        type=header.type[:_MAX_TEXT],
        source=header.source[:_MAX_TEXT],
        target=_cut(header.target),
        size_bytes=item.size,
        is_urgent=item.lane == "s",
        is_reached=is_reached,
        is_local=item.is_local,
        key=_cut(header.key),
        traceparent=header.traceparent,
        job_id=_cut(body.job_id),
        job_name=_cut(body.job_name),
        status=_cut(body.status),
        frame=None if body.frame is None else _cut(body.frame.type),
    )


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_MAX_TEXT]


def _body_of(item: TapMessage) -> _Body:
    """The fields that are kept of a job or frame."""
    known = BusMessage.catalogue.get(item.header.type)
    has_fields = known is BusFrameMessage or (known is not None and known.category == "job")
    if not has_fields or item.size > _BODY_BYTES:
        return _NOTHING
    try:
        return _decode_body(item.body)
    except DECODE_ERRORS:
        return _NOTHING
