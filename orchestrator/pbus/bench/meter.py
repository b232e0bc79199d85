"""Counting what arrives, and taking the time from the first message to the last."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import Received
from pbus.bench.results import Percentiles
from pbus.concurrency.waiting import first_of

SAMPLE_EVERY = 64  # messages; reading the clock for each would be measured, too
QUIET_S = 3.0  # nothing is handled for so long after the last was sent: the rest is lost


class Meter:
    """What one receiver sees.

    Args:
        expected: How many messages are to come.
        pause_s: How long the receiver may sleep in between.
    """

    def __init__(self, expected: int, *, pause_s: float = 0.0) -> None:
        self.count = 0
        self.delays: list[float] = []
        self._expected = expected
        self._quiet_s = QUIET_S + pause_s
        self._next = 0
        self._misordered = 0
        self._seen = bytearray(expected)
        self._duplicates = 0
        self._first = self._last = 0.0
        self._cpu_first = self._cpu_last = 0.0
        self._complete = asyncio.Event()

    def note(self, number: int) -> None:
        """Count a message that its sender gave this number."""
        if self._seen[number]:
            self._duplicates += 1
            return
        self._seen[number] = 1
        if number != self._next:
            self._misordered += number < self._next
        self._next = number + 1
        self.count += 1
        if self.count == 1:
            self._first, self._cpu_first = time.monotonic(), time.process_time()
        if self.count == self._expected:
            self._end()
            self._complete.set()

    def note_delay(self, sent_at: float) -> None:
        """Take the delay of a message that was made at this (Unix) time."""
        self.delays.append(time.time() - sent_at)

    async def finished(self, cues: ControlPipe) -> Received:
        """Wait until all came, or until nothing came for a while after the sender was done."""
        await all_or_quiet(cues, self._complete, lambda: self.count, self._quiet_s)
        return self._result()

    def _end(self) -> None:
        self._last, self._cpu_last = time.monotonic(), time.process_time()

    def _result(self) -> Received:
        if self.count < self._expected:
            self._end()
        return Received(
            expected=self._expected,
            count=self.count,
            first=self._first,
            last=self._last,
            cpu_s=self._cpu_last - self._cpu_first,
            misordered=self._misordered,
            delays=Percentiles.of_seconds(self.delays),
            duplicates=self._duplicates,
        )


async def all_or_quiet(
    cues: ControlPipe, complete: asyncio.Event, count: Callable[[], int], quiet_s: float = QUIET_S
) -> None:
    """Wait until complete; once cued, only for as long as something still comes."""
    cued, _ = await first_of(cues.next(), complete.wait())
    if not complete.is_set():
        cued.result()
        await _quiet(complete, count, quiet_s)


async def _quiet(complete: asyncio.Event, count: Callable[[], int], quiet_s: float) -> None:
    before = -1
    while count() != before and not complete.is_set():
        before = count()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(quiet_s):
                await complete.wait()
