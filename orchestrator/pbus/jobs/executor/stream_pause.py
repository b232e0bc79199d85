"""The worker's side of a job's backpressure: waiting while its requester does not read."""

import asyncio
import contextlib

from pbus.errors import PbusError
from pbus.jobs.context import WorkerContext
from pbus.messages import BusJobCreditMessage, BusJobCreditRequestMessage, BusJobRequestMessage

PROBE_S = 1.0  # a sender that has waited so long asks how far the requester is
PROBES = 10  # so many without an answer: a requester that is in no registry counts as gone


class Outflow:
    """Holds the events of one job back while too many of them are unread.

    Args:
        request: Of the job; has a window.
        links: The worker's.
    """

    __slots__ = ("_changed", "_idle_at", "_is_free", "_links", "_read", "_request", "_sent",
                 "_unanswered", "_window", "is_unread")  # fmt: skip

    def __init__(self, request: BusJobRequestMessage, links: WorkerContext) -> None:
        self.is_unread = False  # whether nobody will ever read an event
        self._request = request
        self._window = request.window
        self._links = links
        self._sent = 0
        self._read = 0
        self._is_free = False
        self._unanswered = 0
        self._idle_at: tuple[int, int] | None = None
        self._changed: asyncio.Future[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether an event may be sent now; one may be larger than the room."""
        return self._sent - self._read < self._window or self._is_free

    async def wait(self) -> None:
        """Wait until there is room."""
        while not self.has_room:
            await self._wait()

    def claim(self, size: int) -> int:
        """The position of an event of that size."""
        self._sent += size
        return self._sent

    def unsent(self, size: int) -> None:
        """Give the room of a claimed event back: it could not be sent."""
        self._read += size
        self._wake()

    def note(self, credit: BusJobCreditMessage) -> None:
        """Take the requester's word on how far it has read."""
        self._unanswered = 0
        if credit.position < 0:
            self.lose()
        elif credit.position > self._read:
            self._idle_at = None
            self._read = credit.position  # may be ahead of what was sent
            self._wake()
        elif credit.is_idle and not self._links.keeps_jobs:
            self._note_idle()

    def lose(self) -> None:
        """Nobody reads any more: events need not be sent."""
        self.is_unread = True
        self.free()

    def free(self) -> None:
        """Hold nothing back any more. Idempotent."""
        self._is_free = True
        self._wake()

    def _note_idle(self) -> None:
        """A requester that twice has nothing left to read: the rest was lost on the way."""
        standing = (self._sent, self._read)
        if self._idle_at != standing:
            self._idle_at = standing
            return
        self._read = self._sent
        self._wake()

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._changed], timeout=PROBE_S)
        if not done:
            await self._probe()

    async def _probe(self) -> None:
        links, requester = self._links, self._request.source
        if links.bus.is_connected and not links.registry.is_there(requester):
            self._unanswered += 1
        if self._unanswered > PROBES:
            self.free()
            return
        with contextlib.suppress(PbusError):
            await links.send(
                BusJobCreditRequestMessage(
                    source=links.address, target=requester, job_id=self._request.job_id
                )
            )

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
