"""Counts the messages that arrive, and measures from the first to the last."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import CHOSEN_EVERY, ReceiveResult
from pbus.bench.results import Percentiles
from pbus.concurrency.waiting import first_of

SAMPLE_EVERY = 64  # messages; reading the clock for each would be measured, too
IDLE_S = 3.0  # without a message after the last was sent: the rest is lost


class Meter:
    """The count of one receiver.

    Args:
        expected: Messages that are to come.
        pause_s: Seconds that the receiver may sleep in between.
    """

    def __init__(self, expected: int, *, pause_s: float = 0.0) -> None:
        self.count = 0
        self.delays: list[float] = []
        self._expected = expected
        self._idle_s = IDLE_S + pause_s
        self._next = 0
        self._misordered = 0
        self._seen = bytearray(expected)
        self._duplicates = 0
        self._first = self._last = 0.0
        self._cpu_first = self._cpu_last = 0.0
        self._complete = asyncio.Event()

    def record(self, number: int) -> None:
        """Count a message by the number that its sender gave it."""
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

    def record_delay(self, sent_at: float) -> None:
        """Record the delay of a message that was made at this Unix time."""
        self.delays.append(time.time() - sent_at)

    async def result(self, control: ControlPipe) -> ReceiveResult:
        """The result, once all messages came, or none for a while after the sender was done."""
        await wait_complete_or_idle(control, self._complete, lambda: self.count, self._idle_s)
        return self._result()

    def _end(self) -> None:
        self._last, self._cpu_last = time.monotonic(), time.process_time()

    def _result(self) -> ReceiveResult:
        if self.count < self._expected:
            self._end()
        return ReceiveResult(
            expected=self._expected,
            count=self.count,
            first=self._first,
            last=self._last,
            cpu_s=self._cpu_last - self._cpu_first,
            misordered=self._misordered,
            delays=Percentiles.of_seconds(self.delays),
            duplicates=self._duplicates,
            chosen=sum(self._seen[::CHOSEN_EVERY]),
        )


async def wait_complete_or_idle(
    control: ControlPipe, complete: asyncio.Event, count: Callable[[], int], idle_s: float = IDLE_S
) -> None:
    """Wait until complete; once told to go on, only for as long as messages still come."""
    order, _ = await first_of(control.receive(), complete.wait())
    if not complete.is_set():
        order.result()
        await _wait_idle(complete, count, idle_s)


async def _wait_idle(complete: asyncio.Event, count: Callable[[], int], idle_s: float) -> None:
    before = -1
    while count() != before and not complete.is_set():
        before = count()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(idle_s):
                await complete.wait()
