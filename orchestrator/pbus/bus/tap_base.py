"""The base of taps on brokers: it notices gaps, drops repeats and queues what passes."""

import abc
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

from pbus.bus.queues.sealed_store import unsigned
from pbus.bus.tap import TapMessage, TapQueue, shown_message
from pbus.codec import Envelope, as_json, decode_header, decode_payload
from pbus.concurrency.background import TaskFunction, TaskOwner, run_forever
from pbus.errors import MessageDecodeError, SealError
from pbus.seal import NO_SEAL, Seal

Sieve: TypeAlias = Callable[[list[bytes]], list[bytes]]

FOLLOWER_LEASE_S = 6.0
_CAPACITY = 20_000  # messages a slow reader may fall behind before it misses some
_BEAT_S = 2.0
_FORGET_S = 600.0  # a stream silent for so long is forgotten, as receivers do
_MAX_STREAMS = 50_000  # some 15 MB; of all senders of the channel


class BrokerTap(abc.ABC):
    """A follower of one channel; a backend brings it payloads.

    Args:
        seal: Of the channel.

    Attributes:
        sieve: Called with the messages of a payload, still encoded; returns those that are shown.
            None: all are.
        quota: How many more messages are shown; None for no limit.
        skipped: Messages that were not shown since the quota was used up.
        missed: Messages known to have passed unseen, apart from these.
        refused: Payloads and messages that were none.
    """

    def __init__(self, seal: Seal = NO_SEAL) -> None:
        self._seal = seal
        self.sieve: Sieve | None = None
        self.quota: int | None = None
        self.skipped = 0
        self.missed = 0
        self.refused = 0
        self._overflowed = 0
        self._queue = TapQueue(_CAPACITY)
        self._next: dict[tuple[str, int, str, str], tuple[int, float]] = {}  # number, when heard
        self._tasks = TaskOwner()

    async def __aexit__(self, *exc: object) -> None:
        await self._tasks.close()
        await self._disconnect()
        self._queue.end()

    def __aiter__(self) -> AsyncIterator[TapMessage]:
        return self._queue.items()

    def waiting(self) -> Iterator[TapMessage]:
        """The messages that came and were not read yet."""
        return self._queue.rest()

    def _start_tasks(self, reading: TaskFunction) -> None:
        self._tasks.spawn(run_forever("the tap", reading), "pbus tap")
        self._tasks.spawn(run_forever("the tap's beat", self._beat), "pbus tap beat")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            await self._heartbeat()
            self._tidy()

    def _tidy(self) -> None:
        silent_since = time.monotonic() - _FORGET_S
        for key, (_, heard) in list(self._next.items()):
            if heard < silent_since:
                del self._next[key]

    def _follow(self, payload: bytes) -> None:
        """Queue what one payload carries and was not seen before, in a payload sent twice."""
        try:
            envelope, lines = self._open(payload)
        except MessageDecodeError:
            self.refused += 1
            return
        key = (envelope.sender, envelope.stream, envelope.address, envelope.lane)
        if len(self._next) >= _MAX_STREAMS and key not in self._next:
            self._next.clear()  # gaps across this moment go unnoticed
        expected, _ = self._next.get(key, (envelope.first, 0.0))
        self._next[key] = (max(expected, envelope.first + envelope.count), time.monotonic())
        self._note_gap(max(0, envelope.first - expected))
        fresh = lines[max(0, expected - envelope.first) :]
        if self.sieve is not None:
            fresh = self.sieve(fresh)
        if self.quota is not None:
            self.skipped += max(0, len(fresh) - self.quota)
            fresh = fresh[: self.quota]
            self.quota -= len(fresh)
        for line in fresh:
            self._show(envelope, line)

    def _open(self, payload: bytes) -> tuple[Envelope, list[bytes]]:
        try:
            return decode_payload(self._seal.open("payload", payload))
        except SealError:
            envelope, lines = decode_payload(payload)
            if envelope.stream >= 0:  # no copy that a server made of stored messages
                raise
            context = envelope.address.encode()
            opened = [self._seal.open("stored", line, context) for line in lines]
            return envelope, [unsigned(plain)[0] for plain in opened]

    def _show(self, envelope: Envelope, line: bytes) -> None:
        try:
            header, body = decode_header(line), as_json(line)
        except MessageDecodeError:
            self.refused += 1
            return
        item = TapMessage(header=header, body=body, lane=envelope.lane, missed=self.missed)
        item = shown_message(item)
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            self._overflowed += 1
            self.missed += 1

    # What a backend brings

    @abc.abstractmethod
    async def _heartbeat(self) -> None:
        """Called at each beat: say that we still follow, ask whether the connection is alive."""

    @abc.abstractmethod
    async def _disconnect(self) -> None:
        """Stop following; also after following could not begin."""

    @abc.abstractmethod
    async def catch_up(self) -> None:
        """Wait until all is queued that passed before; returns soon where the broker is gone."""

    @abc.abstractmethod
    async def pause(self) -> None:
        """Have the broker send nothing for a while, where it can; gaps are counted later."""

    @abc.abstractmethod
    async def resume(self) -> None:
        """Go on after pause()."""

    def _note_gap(self, count: int) -> None:
        """So many messages of a stream did not come; 0: none are missing."""
        self.missed += count
