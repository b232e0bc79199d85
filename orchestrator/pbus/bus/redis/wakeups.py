"""Waiting for messages: the server tells one waiting process of each new entry.

A single message comes with the wake-up: it is held by the process, as one that was taken. While few are
in flight the process waits on after it, and need not ask. What comes between two takes is returned by
the next, or requeued; what is lost with a connection the next ask finds.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pbus.bus.queues.store import StoredMessage
from pbus.bus.redis.connections import SubscriberConnection
from pbus.bus.redis.server.endpoint import Endpoint
from pbus.concurrency.background import run_forever
from pbus.errors import BusUnavailableError

Pair = tuple[str, str]  # a queue and a lane


class Pushed(NamedTuple):
    """A message that came with a wake-up, and its holder; it waits on, or has to ask again."""

    holder: str
    message: StoredMessage
    waits_on: bool


POLL_S = 1.0  # looked after at least so often, should a wake-up be lost with its connection
_BEAT_S = 2.0
_KEPT_S = 0.1  # a pushed message that no take waits for, before others get it
_PUSHES = (b"!", b"+")  # before a wake-up that has its message with it; +: the consumer waits on


class FetchWaiter:
    """One take() that waits.

    Args:
        consumer: Whose.
        pairs: Where.
        on_push: Called with messages that came with a wake-up, as long as the consumer waits on.

    Attributes:
        is_stale: Some were given to on_push, so what is wanted may be less now.
    """

    def __init__(
        self,
        consumer: str,
        pairs: Iterable[Pair],
        on_push: Callable[[StoredMessage], None] | None = None,
    ) -> None:
        self.consumer = consumer
        self.is_stale = False
        self._on_push = on_push
        self.pairs = frozenset(pairs)
        self.woken: set[Pair] = set()
        self.pushed: list[StoredMessage] = []
        self.is_interrupted = False
        self._event = asyncio.Event()

    def wake(self, pair: Pair | None = None) -> None:
        """There is something in a queue; or look again, for another reason."""
        if pair is not None:
            self.woken.add(pair)
        self._event.set()

    def push(self, message: StoredMessage, *, waits_on: bool = False) -> None:
        """A message came with its wake-up."""
        if waits_on and self._on_push is not None and not self.pushed:
            self.is_stale = True
            self._on_push(message)
            return
        self.pushed.append(message)
        self._event.set()

    def take_pushed(self) -> list[StoredMessage]:
        """The messages that came with wake-ups; they are the caller's now."""
        pushed, self.pushed = self.pushed, []
        return pushed

    def interrupt(self) -> None:
        """End the wait."""
        self.is_interrupted = True
        self._event.set()

    async def wait(self, limit_s: float) -> frozenset[Pair]:
        """Return where to look next: where something arrived, else everywhere."""
        if limit_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._event.wait()
        self._event.clear()
        woken, self.woken = frozenset(self.woken), set()
        return woken or self.pairs


class WakeupHub:
    """All that waits in this process, and the connection over which the server wakes it.

    Args:
        endpoint: The server.
        key: What the channels begin with.
        on_stray: Called with the pair of a waiter that was woken and waits no longer.
        on_push: Reads a message that came with a wake-up: its holder and the message; None where it was
            returned before, or is to be asked for.
        on_stray_push: Called with one that no take waits for.
        on_fault: Called when the listening ended by an error, and begins again.

    Attributes:
        on_wake: Called with a consumer and the pair of which it was told that there is something.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        on_stray: Callable[[Pair], None],
        on_push: Callable[[bytes], Pushed | None],
        on_stray_push: Callable[[StoredMessage], None],
        on_fault: Callable[[], None] | None = None,
    ) -> None:
        self.waiters: list[FetchWaiter] = []
        self._key = key
        self._on_stray = on_stray
        self.on_wake: Callable[[str, Pair], None] = lambda *_: None
        self._on_push = on_push
        self._on_stray_push = on_stray_push
        self._on_fault = on_fault
        self._link = SubscriberConnection(endpoint, "queues (waiting)", self._on_payload)
        self._early: list[tuple[str, StoredMessage]] = []
        self._joined: set[str] = set()
        self._running: asyncio.Task[None] | None = None
        self._beat_at = 0.0

    @contextlib.contextmanager
    def waiter(
        self,
        consumer: str,
        pairs: Iterable[Pair],
        on_push: Callable[[StoredMessage], None] | None = None,
    ) -> Iterator[FetchWaiter]:
        """A waiter, present while the block lasts; what woke it for nothing wakes another."""
        waiter = FetchWaiter(consumer, pairs, on_push)
        for early in self._early[:]:
            name, message = early
            if name == consumer and (message.queue, message.lane) in waiter.pairs:
                self._early.remove(early)
                waiter.push(message)
        self.waiters.append(waiter)
        try:
            yield waiter
        finally:
            self.waiters.remove(waiter)
            for pair in waiter.woken:
                self._on_stray(pair)
            for message in waiter.pushed:
                self._keep(consumer, message)

    @property
    def opened(self) -> int:
        """How often it was connected: what was pushed over an earlier connection may be lost."""
        return self._link.opened

    def wanted(self, consumer: str, but: FetchWaiter) -> set[Pair]:
        """Return what the other waiters of a consumer want."""
        others = [one for one in self.waiters if one.consumer == consumer and one is not but]
        return set().union(*(one.pairs for one in others))

    async def listen(self, consumer: str, limit_s: float) -> None:
        """Make sure that the server can wake a consumer; if not in time, POLL_S must do."""
        if self._running is None:
            work = run_forever("the listening for messages", self._link.run, self._on_fault)
            self._running = asyncio.create_task(work, name="pbus queues waiting")
        if consumer in self._joined and self._link.is_up:
            await self._beat()
            return
        self._joined.add(consumer)
        with contextlib.suppress(TimeoutError, BusUnavailableError):
            async with asyncio.timeout(limit_s):
                await self._link.add([f"{self._key}:wake:{consumer}".encode()])

    def look_again(self) -> None:
        """Let everyone here look at once."""
        for waiter in self.waiters:
            waiter.wake()

    def forget(self, prefixes: tuple[str, ...]) -> None:
        """Drop what was pushed to consumers and not taken: it was requeued."""
        self._early = [early for early in self._early if not early[0].startswith(prefixes)]

    def interrupt(self) -> None:
        """End all waits."""
        for waiter in self.waiters:
            waiter.interrupt()

    async def close(self) -> None:
        """Listen no longer."""
        running, self._running = self._running, None
        self._joined.clear()
        self._early.clear()  # requeued with all that the process holds
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    def _on_payload(self, payload: bytes) -> None:
        if payload.startswith(_PUSHES):
            pushed = self._on_push(payload)
            if pushed is not None:
                self._hand_over(pushed)
            return
        head, _, queue = payload.decode(errors="replace").partition("\n")
        pair, consumer = (queue, head[:1]), head[1:]
        self.on_wake(consumer, pair)
        for waiter in self.waiters:
            if waiter.consumer == consumer and pair in waiter.pairs:
                waiter.wake(pair)
                return
        self._on_stray(pair)

    def _hand_over(self, pushed: Pushed) -> None:
        consumer, message, waits_on = pushed
        pair = (message.queue, message.lane)
        for waiter in self.waiters:
            if waiter.consumer == consumer and pair in waiter.pairs:
                waiter.push(message, waits_on=waits_on)
                return
        self._keep(consumer, message)

    def _keep(self, consumer: str, message: StoredMessage) -> None:
        """Keep a message for the next take of its consumer, which mostly begins at once."""
        early = (consumer, message)
        self._early.append(early)
        asyncio.get_running_loop().call_later(_KEPT_S, self._give_up, early)

    def _give_up(self, early: tuple[str, StoredMessage]) -> None:
        if early in self._early:
            self._early.remove(early)
            self._on_stray_push(early[1])

    async def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beat_at > _BEAT_S:
            self._beat_at = now
            await self._link.beat()
