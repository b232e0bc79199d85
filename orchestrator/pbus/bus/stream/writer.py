"""Writing one lane: takes what the send_buffer gathered, sends it in one call, counts who got it."""

import asyncio
import itertools
import logging
import time

from pbus.bus.coalescing import NEWS, shown_address
from pbus.bus.local.counters import EPHEMERAL_PREFIXES, Counters
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch, SendStream
from pbus.bus.stream.transport import REFUSED, Transport
from pbus.stats.edge_table import EdgeTable

logger = logging.getLogger(__name__)

_GRACE_S = 3.0  # after a reconnection, receivers may still be on their way back
_RETRY_S = 0.05
_SAY_EVERY_S = 1.0
_MOST_SAID = 10  # addresses at once


class LaneWriter:
    """The writing half of one lane.

    Args:
        send_buffer: What to write.
        transport: Where.
        counters: Where undelivered messages are counted.
        give_up_s: A payload that the broker did not take for so long is counted as undelivered.
        edges: Where messages are counted by source and type, if they are.
    """

    def __init__(
        self,
        send_buffer: SendBuffer,
        transport: Transport,
        counters: Counters,
        give_up_s: float,
        edges: EdgeTable | None = None,
    ) -> None:
        self._edges = edges
        self.send_buffer = send_buffer
        self._transport = transport
        self._counters = counters
        self._give_up_s = give_up_s
        self._grace_until = 0.0
        self._say_due = 0.0
        self._unsaid: dict[str, int] = {}  # what reached no process, by address
        self._backoff = transport.backoff()
        self._is_posted = (
            False  # what comes next from the send_buffer: its outcome is to be weighed
        )
        if transport.supports_nowait:  # saves the way through the loop to run()
            send_buffer.queue.on_ready = self._post

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._write(await self.send_buffer.queue.next_batches())

    async def drain(self) -> None:
        """Wait until everything accepted is written. Bound it with a deadline."""
        await self.send_buffer.queue.emptied.wait()

    def expect_returns(self) -> None:
        """The broker may have forgotten who is there: they come back, so try again for a while."""
        self._grace_until = time.monotonic() + _GRACE_S

    def _post(self, payloads: list[OutBatch]) -> bool:
        return self._transport.write_nowait(self.send_buffer, payloads, self._note_posted)

    def _note_posted(self, payloads: list[OutBatch], counts: list[int] | None) -> None:
        self._is_posted = counts is None
        again = payloads if counts is None else self._settle(payloads, counts)
        self.send_buffer.queue.write_done(again)

    async def _write(self, payloads: list[OutBatch]) -> None:
        self._backoff.reset()
        while payloads:
            write = self._transport.result_of_nowait if self._is_posted else self._transport.write
            self._is_posted = False
            try:
                counts = await write(self.send_buffer, payloads)
            except self._transport.transient_errors:
                self.expect_returns()
                payloads = self._give_up_old(payloads)
                await self._backoff.pause()
                continue
            except Exception:  # the others must not wait for these
                for payload in payloads:
                    self._counters.note_undelivered(payload.stream.address, len(payload.lines))
                    self._finish(payload, 0)
                raise
            payloads = self._settle(payloads, counts)
            if REFUSED in counts:
                payloads = self._give_up_old(payloads)
                await self._backoff.pause()
            elif payloads:
                await asyncio.sleep(_RETRY_S)

    def _settle(self, payloads: list[OutBatch], counts: list[int]) -> list[OutBatch]:
        """Finish what was delivered; returns what is worth another try."""
        if min(counts) > 0:  # as nearly always
            for payload, receivers in zip(payloads, counts, strict=True):
                self._finish(payload, receivers)
            return []
        return self._weigh(payloads, counts)

    def _weigh(self, payloads: list[OutBatch], counts: list[int]) -> list[OutBatch]:
        """As _settle(), where some reached no process or were refused."""
        again = []
        in_grace = time.monotonic() < self._grace_until
        last = _last_received(payloads, counts) if in_grace else {}
        for at, (payload, receivers) in enumerate(zip(payloads, counts, strict=True)):
            is_undelivered = receivers == 0 and self._is_counted(payload)
            is_in_grace = in_grace and at > last.get(payload.stream, -1)
            if receivers == REFUSED or (is_undelivered and is_in_grace):
                again.append(payload)
                continue
            if is_undelivered:
                self._note_undelivered(payload)
            self._finish(payload, receivers)
        return again

    def _finish(self, payload: OutBatch, receivers: int) -> None:
        """Count a batch that was written, or given up, and make room."""
        self.send_buffer.written(payload, receivers)
        lines, address = payload.lines, payload.stream.address
        if self._edges is not None and lines and not self._transport.is_tap_copy(address):
            size = payload.size - len(lines)
            is_undelivered = receivers == 0 and address != NEWS
            self._edges.note_sent(
                shown_address(address), lines, size, is_undelivered=is_undelivered
            )

    def _is_counted(self, payload: OutBatch) -> bool:
        """Whether a batch counts as undelivered where no process gets it.

        Marks, copies and news of workers do not.
        """
        address = payload.stream.address
        return bool(payload.lines) and address != NEWS and not self._transport.is_tap_copy(address)

    def _note_undelivered(self, payload: OutBatch) -> None:
        """Count it, and say so; visitors and followers come and go."""
        address, count = payload.stream.address, len(payload.lines)
        self._counters.note_undelivered(address, count)
        if not address.startswith(EPHEMERAL_PREFIXES):
            self._unsaid[address] = self._unsaid.get(address, 0) + count
            self.say_undelivered()

    def say_undelivered(self) -> None:
        """Log what reached no process since it was logged last, for each address; once a second."""
        now = time.monotonic()
        if not self._unsaid or now < self._say_due:
            return
        self._say_due = now + _SAY_EVERY_S
        unsaid, self._unsaid = self._unsaid, {}
        for address, count in itertools.islice(unsaid.items(), _MOST_SAID):
            total = self._counters.unreached.get(address, count)
            logger.info(
                "%d messages to %r reached no process (%d to it so far)", count, address, total
            )
        if len(unsaid) > _MOST_SAID:
            others = sum(unsaid.values()) - sum(itertools.islice(unsaid.values(), _MOST_SAID))
            logger.info("%d messages to others reached no process", others)

    def _give_up_old(self, payloads: list[OutBatch]) -> list[OutBatch]:
        oldest = time.monotonic() - self._give_up_s
        keep = []
        for payload in payloads:
            if payload.created >= oldest:
                keep.append(payload)
                continue
            if payload.lines:  # not only a mark
                self._note_given_up(payload)
            self._finish(payload, 0)
        return keep

    def _note_given_up(self, payload: OutBatch) -> None:
        address, count = payload.stream.address, len(payload.lines)
        self._counters.note_undelivered(address, count)
        logger.warning(
            "%d messages to %r were given up: the %s was away, or refused them, for over %g s",
            count, address, self._transport.broker, self._give_up_s,
        )  # fmt: skip


def _last_received(payloads: list[OutBatch], counts: list[int]) -> dict[SendStream, int]:
    """The last batch of each stream that was received: one before it would be taken for a repeat."""
    return {payload.stream: at for at, payload in enumerate(payloads) if counts[at] > 0}
