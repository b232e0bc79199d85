"""Fetches that wait for a notification, and queues that were just found empty."""

import asyncio
import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from pbus.bus.queues.store import StoredMessage
from pbus.messages import Lane

_FEW_BYTES = 512 * 1024  # a fetch of fewer was not ended by its size

Queue = tuple[str, Lane]
Wanted = Sequence[tuple[str, Lane, int]]


class Wakeups:
    """Wakes waiting fetches.

    Attributes:
        rings: Notifications so far, for whatever queue.
    """

    def __init__(self) -> None:
        self.rings = 0
        self._waiting: dict[asyncio.Event, frozenset[str]] = {}
        self._emptied: dict[str, frozenset[Queue]] = {}  # by the last fetch of each consumer

    @contextlib.contextmanager
    def waiting(self, wanted: Wanted) -> Iterator[asyncio.Event]:
        """An event that is set when there may be something in one of these queues."""
        wakeup = asyncio.Event()
        self._waiting[wakeup] = frozenset(token_of(name) for name, _, _ in wanted)
        try:
            yield wakeup
        finally:
            self._waiting.pop(wakeup, None)

    def is_waiting(self, wakeup: asyncio.Event) -> bool:
        """Whether a fetch still waits: end_all() was not called since."""
        return wakeup in self._waiting

    def is_wanted(self, queue: str) -> bool:
        """Whether any fetch waits for messages of a queue."""
        token = token_of(queue)
        return any(token in wanted for wanted in self._waiting.values())

    def notified(self, tokens: set[str]) -> None:
        """The server has something in the queues with these tokens; none: perhaps in any."""
        self.rings += 1
        self._emptied.clear()
        for wakeup, wanted in self._waiting.items():
            if not tokens or not tokens.isdisjoint(wanted):
                wakeup.set()

    def pushed(self, queue: str) -> None:
        """A message of a queue is here already."""
        token = token_of(queue)
        for wakeup, wanted in self._waiting.items():
            if token in wanted:
                wakeup.set()

    def end_all(self) -> None:
        """Make all waiting fetches return."""
        waiting, self._waiting = self._waiting, {}
        for wakeup in waiting:
            wakeup.set()

    def note_emptied(self, wanted: Wanted, found: Sequence[StoredMessage], consumer: str) -> None:
        """Note the queues of which a fetch found all there was."""
        counts: Counter[Queue] = Counter()
        sizes: Counter[Queue] = Counter()
        for one in found:
            counts[one.queue, one.lane] += 1
            sizes[one.queue, one.lane] += len(one.body)
        self._emptied[consumer] = frozenset(
            (name, lane)
            for name, lane, most in wanted
            if counts[name, lane] < most and sizes[name, lane] < _FEW_BYTES
        )

    def were_emptied(self, wanted: Wanted, consumer: str) -> bool:
        """Whether all these queues were found empty, and no notification came since."""
        emptied = self._emptied.get(consumer, frozenset())
        return all(one[:2] in emptied for one in wanted)

    def forget_emptied(self, consumer: str) -> None:
        """Ask the server again."""
        self._emptied.pop(consumer, None)


async def wait_notified(wakeup: asyncio.Event, within_s: float) -> None:
    """Wait for a wakeup at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await wakeup.wait()


def token_of(name: str) -> str:
    """The token of a queue in notifications."""
    return md5_of(name)[:8]


@functools.lru_cache(maxsize=4096)
def md5_of(text: str) -> str:
    """A hash as the server makes it."""
    return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 - a name
