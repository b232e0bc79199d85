"""Taking messages: asks, waits to be woken, and finds again what a lost answer held."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from pbus.bus.queues.store import StoredMessage
from pbus.bus.redis.encoding import LANES, Slot, encode, read_entry, slot_of
from pbus.bus.redis.scripts.delivery_lua import REFUSE, TAKE
from pbus.bus.redis.scripts.script_client import ScriptClient
from pbus.bus.redis.server.endpoint import TROUBLE
from pbus.bus.redis.wakeups import POLL_S, FetchWaiter, Pair, Pushed, WakeupHub
from pbus.errors import BusUnavailableError
from pbus.messages import Lane

_NONE = (0, 0)
_STAYS = b"+"  # before a pushed message: its consumer waits on

logger = logging.getLogger(__name__)

Wanted = tuple[str, Lane, int]


class _ConsumerState:
    """The server's knowledge of one incarnation, as far as this process can tell.

    Attributes:
        armed: Where the server lists it as waiting.
        quiet: Where it lists it, and has told of nothing that is to be asked for; until when that is
            relied on, in the loop's time.
        told: Of which the server has told something since the last ask began.
        unsure: Where an answer was lost: it may hold messages that it has never seen.
        lost: Where messages may have been pushed over a connection that has ended; how many were
            pushed and dropped since then, as they come after those.
        opened: The connection over which messages are pushed, by number.
        asked_at: When it asked last, in the loop's time.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.armed: set[Pair] = set()
        self.quiet: dict[Pair, float] = {}
        self.told: set[Pair] = set()
        self.unsure: set[Pair] = set()
        self.lost: Counter[Pair] = Counter()
        self.opened = 0
        self.asked_at = float("-inf")

    def begin_ask(self, pairs: Iterable[Pair], opened: int) -> dict[Pair, int]:
        """Note an ask over a connection; returns what is found by it of what was lost, for note_found()."""
        self.note_connection(opened)
        self.told.clear()
        return {pair: self.lost[pair] for pair in pairs if pair in self.lost}

    def note_found(self, lost: dict[Pair, int]) -> None:
        """An ask found what had been lost, unless more was dropped meanwhile."""
        for pair, dropped in lost.items():
            if self.lost[pair] == dropped:
                del self.lost[pair]

    def begin_waiting(self, pairs: Collection[Pair], until: float) -> None:
        """The server lists it there since the ask."""
        self.armed.update(pairs)
        self.quiet.update((pair, until) for pair in pairs if pair not in self.told)

    def stop_waiting(self, pairs: Iterable[Pair]) -> None:
        """It lists it there no longer."""
        for pair in pairs:
            self.armed.discard(pair)
            self.quiet.pop(pair, None)

    def note_told(self, pair: Pair) -> None:
        """The server lists it there no longer, or has something else for it."""
        self.told.add(pair)
        self.quiet.pop(pair, None)

    def note_connection(self, opened: int) -> None:
        """Doubt what was pushed before, if this is another connection."""
        if opened != self.opened:
            self.opened = opened
            self.lost.update(self.armed)

    def quiet_until(self, pairs: Collection[Pair]) -> float:
        """Return until when there is nothing to ask for, unless the server tells; -inf for now."""
        if not (self.unsure.isdisjoint(pairs) and self.lost.keys().isdisjoint(pairs)):
            return float("-inf")
        return min(self.quiet.get(pair, float("-inf")) for pair in pairs)


class Fetcher:
    """The receiving half of a store.

    Args:
        calls: Where to ask.
        room: Where to wait.
    """

    def __init__(self, calls: ScriptClient, room: WakeupHub) -> None:
        self._scripts = calls
        self._wakeups = room
        room.on_wake = self._note_wake
        self._consumers: dict[str, _ConsumerState] = {}
        self._held: dict[Pair, dict[str, str]] = {}  # returned entries, and to which consumer
        self._lock = asyncio.Lock()  # an answer is read before the next question is put
        self._last: dict[Pair, tuple[int, int]] = {}  # the entry returned last
        self._turn = 0
        self._foreign: list[bytes] = []  # queue, stream, entry of each that is to be refused

    async def fetch(
        self,
        wanted: Sequence[Wanted],
        name: str,
        wait_s: float,
        *,
        on_push: Callable[[StoredMessage], None] | None = None,
    ) -> list[StoredMessage]:
        """See QueueStore."""
        consumer = self._consumers.setdefault(name, _ConsumerState(name))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        pairs = [(queue, lane) for queue, lane, _ in wanted]
        with self._wakeups.waiter(name, pairs, on_push) as waiter:
            look_at = self._quiet_until(consumer, waiter)
            asked = await waiter.wait(min(deadline, look_at) - loop.time())
            while not (waiter.is_interrupted or waiter.is_stale):
                left = deadline - loop.time()
                here = [one for one in wanted if (one[0], one[1]) in asked]
                messages, due_s = await self._ask_now(consumer, waiter, here, left)
                now = loop.time()
                if messages or now >= deadline or waiter.is_interrupted:
                    return messages
                is_all = asked == waiter.pairs
                look_at = now + min(due_s, POLL_S) if is_all else min(look_at, now + due_s)
                asked = await waiter.wait(min(deadline, look_at) - now)
            return waiter.take_pushed()

    def _quiet_until(self, consumer: _ConsumerState, waiter: FetchWaiter) -> float:
        """Return until when a new waiter need not ask, as the server lists it where it wants to be."""
        is_listed_elsewhere = consumer.armed - waiter.pairs - self._wanted_elsewhere(waiter)
        return float("-inf") if is_listed_elsewhere else consumer.quiet_until(waiter.pairs)

    def _wanted_elsewhere(self, waiter: FetchWaiter) -> set[Pair]:
        return self._wakeups.wanted(waiter.consumer, waiter)

    async def _ask_now(
        self, consumer: _ConsumerState, waiter: FetchWaiter, wanted: Sequence[Wanted], left_s: float
    ) -> tuple[list[StoredMessage], float]:
        """Ask once, unless messages were pushed; with time left, make sure before that the server can wake the consumer."""
        now = asyncio.get_running_loop().time()
        if waiter.pushed and now - consumer.asked_at < POLL_S:
            return waiter.take_pushed(), POLL_S
        consumer.asked_at = now
        if left_s > 0:
            await self._wakeups.listen(consumer.name, min(left_s, POLL_S))
        messages, due_s = await self._ask(consumer, waiter, wanted, is_waiting=left_s > 0)
        return [*waiter.take_pushed(), *messages], due_s  # pushed before the ask

    def look_again(self) -> None:
        """Let all who wait ask at once."""
        for consumer in self._consumers.values():
            consumer.quiet.clear()
        self._wakeups.look_again()

    def _note_wake(self, name: str, pair: Pair) -> None:
        """A consumer was told that there is something to ask for, and is listed as waiting no longer."""
        if (consumer := self._consumers.get(name)) is not None:
            consumer.note_told(pair)

    def read_push(self, payload: bytes) -> Pushed | None:
        """Read a message that came with a wake-up.

        Returns:
            It; None where it is none, an ask found it before, or one has to.
        """
        try:
            mark, payload = payload[:1], payload[1:]
            head, name, entry, sent_ms, id_, body = payload.split(b"\n", 5)
            queue, lane, holder = name.decode(), LANES[head[:1].decode()], head[1:].decode()
            clock = time.monotonic() - int(sent_ms) / 1000
            slot = f"{lane}{entry.decode()}"
            number = _number_of(entry)
            (message,) = read_entry(queue, slot, (b"i", id_, b"b", body), b"", clock)
        except (KeyError, ValueError):
            logger.debug("a wake-up was not written by pbus")
            return None
        pair, consumer = (queue, lane), self._consumers.get(holder)
        if consumer is None:
            return None  # of another process
        consumer.note_connection(self._wakeups.opened)
        if mark != _STAYS:
            consumer.armed.discard(pair)
            consumer.note_told(pair)
        held = self._held.setdefault(pair, {})
        if number <= self._last.get(pair, _NONE):
            if slot not in held:
                consumer.unsure.add(pair)  # handled since then, or the stream is another
            return None
        if pair in consumer.lost:
            consumer.lost[pair] += 1
            self._wakeups.look_again()
            return None
        self._last[pair] = number
        held[slot] = holder
        return Pushed(holder, message, mark == _STAYS)

    def put_back(self, message: StoredMessage) -> None:
        """A message that was held, and could not be requeued, was never seen."""
        queue, slot = slot_of(message)
        self._held.get((queue, message.lane), {}).pop(slot, None)
        for consumer in self._consumers.values():
            consumer.unsure.add((queue, message.lane))

    def settled(self, slots: Iterable[Slot]) -> None:
        """These entries are held no longer."""
        for queue, slot in slots:
            held = self._held.get((queue, LANES[slot[0]]))
            if held is not None:
                held.pop(slot, None)

    def forget(self, prefixes: tuple[str, ...]) -> None:
        """All that consumers had was requeued, and they wait nowhere: what is known of them is not so."""
        for name in [name for name in self._consumers if name.startswith(prefixes)]:
            del self._consumers[name]
        self._held = {pair: _without(held, prefixes) for pair, held in self._held.items()}
        self._wakeups.forget(prefixes)

    async def _ask(
        self,
        consumer: _ConsumerState,
        waiter: FetchWaiter,
        wanted: Sequence[Wanted],
        *,
        is_waiting: bool,
    ) -> tuple[list[StoredMessage], float]:
        async with self._lock:
            try:
                return await self._ask_once(consumer, waiter, wanted, is_waiting=is_waiting)
            except TROUBLE as error:
                if isinstance(error, (TimeoutError, ResponseError)):
                    raise self._scripts.error(error) from error
            try:  # the connection had died unnoticed
                return await self._ask_once(consumer, waiter, wanted, is_waiting=is_waiting)
            except TROUBLE as error:
                raise self._scripts.error(error) from error

    async def _ask_once(
        self,
        consumer: _ConsumerState,
        waiter: FetchWaiter,
        wanted: Sequence[Wanted],
        *,
        is_waiting: bool,
    ) -> tuple[list[StoredMessage], float]:
        ordered = self._in_turn(wanted)
        pairs: list[Pair] = [(queue, lane) for queue, lane, _ in ordered]
        mine = consumer.armed & waiter.pairs
        stale = consumer.armed - waiter.pairs - self._wakeups.wanted(consumer.name, waiter)
        lost = consumer.begin_ask(pairs, self._wakeups.opened)
        rows = [(*one, *self._recovery(consumer, (one[0], one[1]))) for one in ordered]
        recovered = consumer.unsure.intersection(pairs)
        consumer.unsure.update(pairs)  # until the answer is here
        reply: Any = ()
        for is_back in (0, 1):
            ask = encode((rows, int(is_waiting), is_back, list(mine), list(stale)))
            reply = await self._scripts.once("take", TAKE, consumer.name, ask)
            if reply:
                break
        consumer.unsure.difference_update(recovered, pairs)
        consumer.note_found(lost)
        clock = time.monotonic() - reply[2] / 1000
        messages, foreign = self._read(consumer.name, pairs, reply[0], clock)
        self._foreign += foreign
        with contextlib.suppress(BusUnavailableError):  # tried again: the messages are here
            await self._refuse(reply[3])
        due_s = reply[1] / 1000 if reply[1] >= 0 else POLL_S
        if messages or not is_waiting:
            stale |= mine
        else:
            consumer.begin_waiting(pairs, asyncio.get_running_loop().time() + min(due_s, POLL_S))
        consumer.stop_waiting(stale)
        return messages, due_s

    def _in_turn(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """System lanes first; among equals another queue first each time."""
        self._turn += 1
        first = self._turn % max(1, len(wanted))
        rotated = [*wanted[first:], *wanted[:first]]
        return sorted(rotated, key=lambda one: one[1] != Lane.SYSTEM)

    def _recovery(self, consumer: _ConsumerState, pair: Pair) -> tuple[int, Collection[str]]:
        """Whether messages that were never seen may be held, and those that were seen."""
        is_unsure = pair in consumer.unsure or pair in consumer.lost
        kind = 1 if is_unsure else 2 if pair in consumer.armed else 0
        return kind, list(self._held.get(pair, ())) if kind else ()

    def _read(
        self, holder: str, pairs: Sequence[Pair], chunks: Sequence[Any], clock: float
    ) -> tuple[list[StoredMessage], list[bytes]]:
        """The messages of an answer, and the entries that are none (queue, stream, entry of each).

        Args:
            holder: Who asked.
            pairs: What was asked.
            chunks: What was answered.
            clock: What the loop's clock has more than the server's.
        """
        messages: list[StoredMessage] = []
        foreign: list[bytes] = []
        for pair, stream, items, marks in chunks:
            queue, lane = pairs[pair - 1]
            held = self._held.setdefault((queue, lane), {})
            pushing = lane.encode()  # the stream of which messages may be pushed
            for at, (entry, fields) in enumerate(items):
                slot = (stream + entry).decode()
                if slot in held:
                    continue  # it came with its wake-up meanwhile
                try:
                    messages += read_entry(queue, slot, fields, marks[at] if marks else b"", clock)
                except ValueError:
                    foreign += (queue.encode(), stream, entry)
                else:
                    held[slot] = holder
                    if stream == pushing:
                        last = self._last.get((queue, lane), _NONE)
                        self._last[queue, lane] = max(last, _number_of(entry))
        return messages, foreign

    async def _refuse(self, names: Iterable[bytes]) -> None:
        """Have entries that others wrote removed; names: the queues of those that already are."""
        foreign = self._foreign[:]
        if foreign:
            await self._scripts.once("take", REFUSE, *foreign)
            del self._foreign[: len(foreign)]
        queues = [*names, *foreign[::3]]
        if queues:
            logger.warning(
                "%d entries in the streams of %s were not written by pbus and are dead letters now",
                len(queues), b", ".join(sorted(set(queues))).decode(errors="replace"),
            )  # fmt: skip


def _without(held: dict[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """The entries that others hold."""
    return {slot: holder for slot, holder in held.items() if not holder.startswith(prefixes)}


def _number_of(entry: bytes) -> tuple[int, int]:
    """The id of an entry; those of a stream grow."""
    ms, _, at = entry.partition(b"-")
    return int(ms), int(at)
