"""The worker's side of a job's backpressure: a window of event bytes that may be unread."""

import asyncio
import contextlib

from pbus.errors import PbusError
from pbus.jobs.context import WorkerContext
from pbus.messages import BusJobCreditMessage, BusJobCreditRequestMessage, BusJobRequestMessage
from pbus.trace_context import traceparent_after

PROBE_S = 1.0  # a sender that has waited so long asks for the requester's position
PROBES = 10  # so many without an answer: a requester that is in no registry counts as gone


class SendWindow:
    """Delays the events of one job while too many bytes of them are unread.

    Args:
        request: The job's; its window is not 0.
        context: The worker's.

    Attributes:
        has_no_reader: Whether no event will ever be read, so none is sent.
    """

    __slots__ = ("_changed", "_context", "_idle_at", "_is_open", "_read", "_request", "_sent",
                 "_unanswered", "_window", "has_no_reader")  # fmt: skip

    def __init__(self, request: BusJobRequestMessage, context: WorkerContext) -> None:
        self.has_no_reader = False
        self._request = request
        self._window = request.window
        self._context = context
        self._sent = 0
        self._read = 0
        self._is_open = False
        self._unanswered = 0
        self._idle_at: tuple[int, int] | None = None
        self._changed: asyncio.Future[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether an event may be sent now; a single event may exceed the room."""
        return self._sent - self._read < self._window or self._is_open

    async def wait_for_room(self) -> None:
        """Wait until an event may be sent."""
        while not self.has_room:
            await self._wait()

    def claim(self, size: int) -> int:
        """Take room for an event.

        Args:
            size: Bytes.

        Returns:
            The event's position: the bytes of all events up to it.
        """
        self._sent += size
        return self._sent

    def unclaim(self, size: int) -> None:
        """Return the room of an event that could not be sent; size in bytes."""
        self._read += size
        self._wake()

    def on_credit(self, credit: BusJobCreditMessage) -> None:
        """Apply the position that the requester has read."""
        self._unanswered = 0
        if credit.position < 0:
            self.on_reader_lost()
        elif credit.position > self._read:
            self._idle_at = None
            self._read = credit.position  # may be ahead of what was sent
            self._wake()
        elif credit.is_idle and not self._context.stores_jobs:
            self._on_idle()

    def on_reader_lost(self) -> None:
        """Stop sending events: the requester is gone or does not know the job."""
        self.has_no_reader = True
        self.open()

    def open(self) -> None:
        """Delay no further event. Idempotent."""
        self._is_open = True
        self._wake()

    def _on_idle(self) -> None:
        """Count unread events as lost once the requester was idle twice at the same position."""
        position = (self._sent, self._read)
        if self._idle_at != position:
            self._idle_at = position
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
        context, requester = self._context, self._request.source
        if context.bus.is_connected and not context.registry.is_there(requester):
            self._unanswered += 1
        if self._unanswered > PROBES:
            self.open()
            return
        with contextlib.suppress(PbusError):
            await context.send(
                BusJobCreditRequestMessage(
                    source=context.address,
                    target=requester,
                    job_id=self._request.job_id,
                    traceparent=traceparent_after(self._request),
                )
            )

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
