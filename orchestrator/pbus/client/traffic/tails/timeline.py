"""Messages, log lines and state changes of a project on one clock, in the order of their times."""

import asyncio
import fnmatch
import heapq
import itertools
import time
from collections.abc import AsyncIterable, Iterator
from typing import Any, Final, Self, TypeAlias

from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import MessageTail, TailMessage
from pbus.client.traffic.state_tail import StateTail
from pbus.client.traffic.tails.message_pairs import MessagePair, PairTail
from pbus.concurrency.background import TaskOwner
from pbus.messages import BusWorkerStateMessage
from pbus.names import names_of
from pbus.process.project.log_files import LogLine

Entry: TypeAlias = TailMessage | MessagePair | LogLine | BusWorkerStateMessage

HOLD_S: Final = 0.5  # so much later what is older may come: log files are read every 0.2 s
_LOG_STEP_S: Final = 0.001  # a log line's time is cut to it: what caused the line is older
_MAX_ENTRIES: Final = 10_000
_MAX_BYTES: Final = 16 * 1024 * 1024


class Timeline:
    """Follows several things at once: ``async for entry in timeline``, or within ``async with``.

    Each entry is held for half a second, so that an older one of another origin may come before it.

    Args:
        tail: The messages.
        changes: The state changes; None for none.
        lines: The log lines; None for none.
        chosen: The sources and targets of messages choose the workers of lines and changes, the pattern
            is looked for in their texts.
    """

    def __init__(
        self,
        tail: MessageTail | PairTail,
        changes: StateTail | None,
        lines: AsyncIterable[LogLine] | None,
        chosen: Filter,
    ) -> None:
        self._tail = tail
        self._changes = changes
        self._lines = lines
        self._chosen = chosen
        self._held = _Held()
        self._tasks = TaskOwner()
        self._is_open = False
        self._is_closed = False

    @property
    def missed(self) -> int:
        """Messages known to have passed unseen."""
        return self._tail.missed

    @property
    def passed(self) -> int:
        """Messages that have passed so far."""
        return self._tail.passed

    async def __aenter__(self) -> Self:
        if self._is_open or self._is_closed:
            return self
        self._is_open = True
        await self._tail.__aenter__()
        if self._changes is not None:
            await self._changes.__aenter__()
        for origin in (self._tail, self._changes, self._lines):
            if origin is not None:
                self._tasks.spawn(self._read(origin), "pbus timeline")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        await self.__aenter__()
        if self._is_closed:
            raise StopAsyncIteration
        return await self._held.next()

    async def _read(self, origin: AsyncIterable[Any]) -> None:
        try:
            async for entry in origin:
                if self._takes(entry):
                    await self._held.add(entry)
        except Exception as error:  # noqa: BLE001 - it is raised where the timeline is read
            await self._held.end(error)
        else:
            await self._held.end(None)

    def _takes(self, entry: Entry) -> bool:
        if isinstance(entry, TailMessage | MessagePair):
            return True
        text = entry.text if isinstance(entry, LogLine) else f"{entry.state} {entry.detail}"
        return takes_other(self._chosen, entry.worker, text)

    def rest(self) -> Iterator[Entry]:
        """The held entries, in order, and the jobs without an answer; each is given once."""
        yield from self._held.drain()
        if isinstance(self._tail, PairTail):
            yield from self._tail.rest()

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        self._is_closed = True
        await self._tasks.close()
        await self._tail.close()
        if self._changes is not None:
            await self._changes.close()


def takes_other(chosen: Filter, worker: str, text: str) -> bool:
    """Whether the conditions of messages choose a line or change: by its worker and its text.

    Args:
        chosen: Sources and targets are of workers here; all where there are none.
        worker: Of the line or change.
        text: In which the pattern is looked for.
    """
    patterns = (*chosen.sources, *chosen.targets)
    names = names_of(worker)
    is_of = not patterns or any(
        fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names
    )
    pattern = chosen.pattern
    return is_of and (pattern is None or pattern.search(text.encode(errors="replace")) is not None)


class _Held:
    """Entries that are held, by time; bounded: where they are too many, those who add wait."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, float, Entry]] = []
        self._numbers = itertools.count()
        self._bytes = 0
        self._error: BaseException | None = None
        self._is_ended = False
        self._changed = asyncio.Condition()

    async def add(self, entry: Entry) -> None:
        """Hold an entry; waits for room."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_full)
            due = time.monotonic() + HOLD_S
            heapq.heappush(self._heap, (_order_of(entry), next(self._numbers), due, entry))
            self._bytes += _size(entry)
            self._changed.notify_all()

    async def end(self, error: BaseException | None) -> None:
        """Note that an origin has ended, or failed: the reader ends after what was held."""
        async with self._changed:
            self._is_ended = True
            self._error = self._error or error
            self._changed.notify_all()

    @property
    def _is_full(self) -> bool:
        return len(self._heap) >= _MAX_ENTRIES or self._bytes >= _MAX_BYTES

    async def next(self) -> Entry:
        """The oldest entry, once it was held long enough.

        Raises:
            StopAsyncIteration: An origin has ended and nothing is held.
        """
        async with self._changed:
            while not self._is_due():
                if self._is_ended:
                    if self._error is not None:
                        raise self._error
                    raise StopAsyncIteration
                left = self._heap[0][2] - time.monotonic() if self._heap else None
                await _wait(self._changed, left)
            entry = self._pop()
            self._changed.notify_all()
            return entry

    def _is_due(self) -> bool:
        if not self._heap:
            return False
        return self._is_full or self._is_ended or self._heap[0][2] <= time.monotonic()

    def _pop(self) -> Entry:
        entry = heapq.heappop(self._heap)[3]
        self._bytes -= _size(entry)
        return entry

    def drain(self) -> Iterator[Entry]:
        """All that are held, oldest first."""
        while self._heap:
            yield self._pop()


async def _wait(changed: asyncio.Condition, timeout_s: float | None) -> None:
    """Wait for a change, at most so many seconds; the lock is held afterwards."""
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        pass


def _order_of(entry: Entry) -> float:
    """The time that an entry is sorted by."""
    at = min(entry.time, time.time())  # another host's clock may be ahead
    return at + _LOG_STEP_S if isinstance(entry, LogLine) else at


def _size(entry: Entry) -> int:
    if isinstance(entry, MessagePair):
        return len(entry.request.body) + len(entry.answer.body if entry.answer else b"")
    if isinstance(entry, LogLine):
        return len(entry.text)
    return len(entry.body) if isinstance(entry, TailMessage) else len(entry.detail)
