"""Batches of one lane that wait to be written; later messages join those that are still open."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from pbus.bus.coalescing import OpenBatches
from pbus.bus.stream.send_stream import OutBatch, SendStream

MAX_PAYLOAD_BYTES = 256 * 1024  # coalesced; a single larger message travels alone
MAX_WRITE_BYTES = 1024 * 1024  # a pipeline; keeps the time between two writes short
YIELD_BYTES = 64 * 1024  # a sender in a tight loop lets the flusher in after so much
FAIR_PAYLOAD_BYTES = 64 * 1024  # a smaller one costs its receiver more than what it carries
GATHER_S = 0.004  # for which a busy bus lets payloads grow
BURST_S = 3e-5  # messages that follow a write so soon go together


class WriteQueue:
    """The batches of one lane between its senders and its writer.

    Args:
        gathers: Let small batches grow for a moment while senders keep up with the writer.

    Attributes:
        bytes: Accepted and not yet written.
        yield_at: A sender lets the writer in once so many bytes are accepted.
        emptied: Set while nothing waits for the broker.
        on_ready: Called with what comes while next_batches() waits, here and now; returns whether it
            is under way, until write_done() is called, perhaps at once. Not while messages come in
            numbers: then they go together.
    """

    def __init__(self, *, gathers: bool) -> None:
        self.bytes = 0
        self.yield_at = YIELD_BYTES
        self.emptied = asyncio.Event()
        self.emptied.set()
        self.on_ready: Callable[[list[OutBatch]], bool] | None = None
        self._gathers = gathers
        self._ready: deque[OutBatch] = deque()
        self._open: OpenBatches[OutBatch] = OpenBatches()
        self._flusher: asyncio.Future[None] | None = None
        self._is_begun = False  # something was begun and has not ended
        self._returned: list[OutBatch] = []  # what was begun, or should have been, to be taken
        self._is_quiet = True  # what was taken last was one message
        self._burst_until = 0.0  # what was begun last had ended at once
        self._unyielded = 0  # bytes that were written since senders have let the loop go on

    def append(self, stream: SendStream, line: bytes) -> None:
        """Put a message behind those of its stream."""
        size = len(line) + 1
        batch = self._open.get(stream.address)
        if batch is None or batch.size + size > MAX_PAYLOAD_BYTES:
            batch = OutBatch(stream)
            self._open.open(stream.address, batch)
            stream.last_used = batch.created
            self._ready.append(batch)
        batch.lines.append(line)
        batch.size += size
        stream.next_number += 1
        stream.position += size
        if self.bytes == 0:
            self.emptied.clear()
        self.bytes += size
        if self._flusher is not None:
            self._wake_flusher()

    def append_watermark(self, stream: SendStream) -> None:
        """Put a batch without messages behind those of its stream: it tells how far that has come."""
        stream.marked = stream.next_number
        self._ready.append(OutBatch(stream))
        self._wake_flusher()

    async def next_batches(self) -> list[OutBatch]:
        """Return what is to be written next, in order; wait until there is something."""
        if self._ready and self._gathers:
            await self._gather()
        self._unyielded = 0
        while self._is_begun or not (self._ready or self._returned):
            self._flusher = asyncio.get_running_loop().create_future()
            await self._flusher
        if self._returned:
            returned, self._returned = self._returned, []
            return returned
        return self.take_nowait()

    def take_nowait(self) -> list[OutBatch]:
        """Return what is there now, at most MAX_WRITE_BYTES (or one batch)."""
        taken: list[OutBatch] = []
        size = 0
        while self._ready and (not taken or size + self._ready[0].size <= MAX_WRITE_BYTES):
            batch = self._ready.popleft()
            size += batch.size
            taken.append(batch)
        if self._ready:
            for batch in taken:  # the open ones are the last of their address: still in the line
                if self._open.get(batch.stream.address) is batch:
                    self._open.close(batch.stream.address)
        else:
            self._open.clear()
        self._is_quiet = len(taken) == 1 and len(taken[0].lines) <= 1
        self.yield_at = YIELD_BYTES
        return taken

    def written(self, batch: OutBatch) -> None:
        """Make room: a batch was written, or given up."""
        self.bytes -= batch.size
        if self.bytes == 0:
            self.emptied.set()

    def write_done(self, again: list[OutBatch]) -> None:
        """End what was begun, apart from these batches: next_batches() returns them next."""
        self._is_begun = False
        self._returned = again
        if again or self._ready:
            self._call_flusher()

    async def _gather(self) -> None:
        """Let small batches grow while senders, who kept up with the last write, go on."""
        now = asyncio.get_running_loop().time
        gives_up_at = now() + GATHER_S
        before = 0
        while before < self.bytes < len(self._ready) * FAIR_PAYLOAD_BYTES and now() < gives_up_at:
            before = self.bytes
            await asyncio.sleep(0)

    def _wake_flusher(self) -> None:
        flusher = self._flusher
        if self._is_begun or flusher is None or flusher.done():
            return
        if self._is_quiet and self.on_ready is not None and not self._is_burst():
            batches = self.take_nowait()
            if self._begin(self.on_ready, batches):
                return
            self._returned = batches
        self._call_flusher()

    def _is_burst(self) -> bool:
        """Whether what comes is to go with what follows, or behind what is to be taken."""
        is_soon = self._ready[-1].created < self._burst_until
        return is_soon or self._unyielded > YIELD_BYTES or bool(self._returned)

    def _begin(self, on_ready: Callable[[list[OutBatch]], bool], batches: list[OutBatch]) -> bool:
        """Have batches written; what is appended meanwhile waits."""
        self._is_begun = True
        try:
            is_under_way = on_ready(batches)
        except BaseException:
            self._is_begun = False
            raise
        if not is_under_way:
            self._is_begun = False
        elif not self._is_begun:  # it has ended already
            self._burst_until = time.monotonic() + BURST_S
            self._unyielded += batches[-1].size
        return is_under_way

    def _call_flusher(self) -> None:
        flusher, self._flusher = self._flusher, None
        if flusher is not None and not flusher.done():
            flusher.set_result(None)
