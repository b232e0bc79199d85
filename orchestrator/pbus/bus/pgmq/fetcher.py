"""Taking mail from Postgres: asking, waiting to be woken, and what became of lost answers."""

import asyncio
import contextlib
import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pbus.bus.pgmq.connections import CONNECTING, ConnectionPair
from pbus.bus.pgmq.encoding import Row, decode_pushed, in_order, letters_of, sanitize_text
from pbus.bus.queues.store import StoredMessage
from pbus.errors import BrokerFaultError, BusUnavailableError
from pbus.messages import Lane

logger = logging.getLogger(__name__)

POLL_S = 5.0  # look without being woken: a notification may be lost with its connection
_REST_S = 0.05  # how long what was just emptied is taken to be so, unless the bell rings
_SOONEST_S = 0.005
_THOUGHT_DEAD = "PB001"  # raised by pbus.queue_fetch
_LARGE = 128 * 1024 * 1024  # what an entry that is read by itself may be
_MOST = 8 * 1024 * 1024  # what one answer of pbus.queue_fetch carries at most, about
_FROM_EACH = 2 * 1024 * 1024  # and from one lane of a mailbox
_FEW = 512 * 1024  # a take of fewer bytes was not ended by their number
_WAIT = "SELECT pbus.queue_subscribe_push($1, $2, $3, $4, $5)"
_TAKE = "SELECT * FROM pbus.queue_fetch($1, $2, $3, $4, $5, $6, $7, $8)"

_Queue = tuple[str, Lane]
Wanted = Sequence[tuple[str, Lane, int]]


class Fetcher:
    """Takes for the consumers of this process.

    Args:
        lines: The connections; the one that hears the bell asks.
        hold_s: How long a consumer may be silent.
    """

    def __init__(self, lines: ConnectionPair, hold_s: float) -> None:
        self._lines = lines
        self._link = lines.reader
        self._channel = lines.channel
        self._hold_s = hold_s
        self._is_listening = False
        lines.add_listener(self.heard)
        self._waiting: dict[asyncio.Event, frozenset[str]] = {}
        self._known: dict[str, dict[int, int]] = {}  # a consumer's holds: open letters of each
        # Holders of whom an answer may have been lost, and since which connection.
        self._in_doubt: dict[str, int] = {}
        self._spare: dict[
            str, list[StoredMessage]
        ] = {}  # handed over, or taken for a cancelled call
        # Handed over while the server was being asked or in doubt, and by which connection.
        self._beside: dict[str, list[tuple[int, Row]]] = {}
        self._asking: dict[str, asyncio.Task[Any]] = {}  # one at a time for each consumer
        self._announced: set[str] = set()  # consumers whom the server may hand over to
        self._connects = 0  # of the connection that asks
        self._cuts = 0  # answers that ended early
        self._rings = 0  # of the bell, for whatever mailbox
        self._emptied: dict[str, frozenset[_Queue]] = {}  # by the last take of each consumer
        self._awaited: dict[str, frozenset[str]] = {}  # mailboxes the server knows each waits for
        self._ended: list[int] = []  # entries of which all had been handled before
        self._foreign: list[
            tuple[int, str, str]
        ] = []  # rows that are no entries: hold, mailbox, why

    @property
    def consumers(self) -> list[str]:
        """Who has taken anything."""
        return list(self._known)

    def heard(self, payload: str) -> None:
        """The bell rang: wake the takes that want one of these mailboxes."""
        if payload == CONNECTING:  # what was handed over to the connection before may not have come
            self._connects += 1
            for consumer in self._announced:
                self._doubt(consumer)
            self._awaited.clear()
        elif payload[:1] != "w":  # that is for the wire
            self._wake(set(payload.split()))

    def _doubt(self, consumer: str) -> None:
        """Ask for what this consumer was given and does not know of, before anything later."""
        self._in_doubt.setdefault(consumer, self._connects)

    def _wake(self, hashes: set[str]) -> None:
        self._rings += 1
        self._emptied.clear()
        for event, wanted in self._waiting.items():
            if not hashes or not hashes.isdisjoint(wanted):
                event.set()

    def look_again(self) -> None:
        """The bell may have rung unheard."""
        self._wake(set())

    def await_anew(self) -> None:
        """A mailbox was made, perhaps in place of one of the same name."""
        self._awaited.clear()

    def interrupt(self) -> None:
        """Make waiting takes return."""
        waiting, self._waiting = self._waiting, {}
        for bell in waiting:
            bell.set()

    async def fetch(self, wanted: Wanted, *, consumer: str, wait_s: float) -> list[StoredMessage]:
        """Take letters, waiting for some; see QueueStore."""
        wanted = [one for one in wanted if one[2] > 0]
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + wait_s
        bell = asyncio.Event()
        self._waiting[bell] = frozenset(_hash(name) for name, _, _ in wanted)
        try:
            if wait_s > 0 and not self._is_listening:
                await self._lines.listen()
                self._is_listening = True
            if wait_s > 0:
                await self._await_handing(wanted, consumer)
            while True:
                if wait_s > 0 and self._was_emptied(wanted, consumer):
                    await _wait_notified(bell, min(_REST_S, wait_s))
                    if not self._has_handed(consumer):
                        self._emptied.pop(consumer, None)
                bell.clear()
                letters, due_s = await self._take_now(wanted, consumer)
                left_s = give_up_at - loop.time()
                if letters or left_s <= 0 or bell not in self._waiting:
                    return letters
                await _wait_notified(bell, min(left_s, due_s, POLL_S))
        finally:
            self._waiting.pop(bell, None)

    async def _await_handing(self, wanted: Wanted, consumer: str) -> None:
        """Have the server hand over what comes for a mailbox that we have emptied."""
        names = frozenset(name for name, _, _ in wanted)
        if not names or self._awaited.get(consumer) == names:
            return
        channel = "pbus_h_" + _md5(f"{len(self._channel)}:{self._channel}{consumer}")[:24]
        await self._lines.listen_on(channel, functools.partial(self._handed, consumer))
        self._awaited[consumer] = names
        self._announced.add(consumer)
        arguments = (self._channel, consumer, channel, sorted(names), self._hold_s)
        try:
            await self._link.call(_WAIT, *arguments)
        except BusUnavailableError:
            self._awaited.pop(consumer, None)
            raise

    def _handed(self, consumer: str, payload: str) -> None:
        """A letter came with the notification."""
        try:
            row = decode_pushed(payload)
        except ValueError as error:
            logger.warning("a notification of %s is none of pbus': %s", self._lines.url, error)
            return
        if consumer in self._asking or consumer in self._in_doubt or self._beside.get(consumer):
            # Where it belongs, among what is asked or has to be asked, its number tells.
            self._beside.setdefault(consumer, []).append((self._connects, row))
        else:
            self._spare.setdefault(consumer, []).extend(self._letters_of([row], consumer))
        token = _hash(row["mailbox"])
        for bell, wanted in self._waiting.items():
            if token in wanted:
                bell.set()

    def settled(self, holds: Iterable[int]) -> None:
        """One letter of each of these was settled."""
        for hold in holds:
            for known in self._known.values():
                if hold in known:
                    known[hold] -= 1
                    if known[hold] <= 0:
                        del known[hold]

    async def finish(self, prefixes: Sequence[str]) -> None:
        """Wait for what is being taken for these consumers, so that none of it comes afterwards."""
        asking = [task for name, task in self._asking.items() if name.startswith(tuple(prefixes))]
        if asking:
            await asyncio.wait(asking)

    def forget(self, prefixes: Sequence[str]) -> None:
        """What these consumers held was given back."""
        for consumer in [name for name in self._known if name.startswith(tuple(prefixes))]:
            self._known[consumer].clear()
            self._spare.pop(consumer, None)
            self._beside.pop(consumer, None)

    async def close(self) -> None:
        """End what is under way."""
        self.interrupt()
        if self._asking:
            await asyncio.wait(set(self._asking.values()))

    def _was_emptied(self, wanted: Wanted, consumer: str) -> bool:
        """Whether asking now would most likely yield nothing."""
        emptied = self._emptied.get(consumer, frozenset())
        return not self._has_handed(consumer) and all(one[:2] in emptied for one in wanted)

    def _has_handed(self, consumer: str) -> bool:
        """Whether letters wait for its next take."""
        return bool(self._spare.get(consumer) or self._beside.get(consumer))

    async def _take_now(self, wanted: Wanted, consumer: str) -> tuple[list[StoredMessage], float]:
        """What is there now, and in how many seconds there may be more."""
        while (before := self._asking.get(consumer)) is not None:
            await asyncio.wait({before})
        task = asyncio.create_task(self._take_once(wanted, consumer), name="pbus mail take now")
        self._asking[consumer] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Taken is taken: it is kept for the next call.
            task.add_done_callback(lambda done: self._keep(done, consumer))
            raise

    def _keep(self, task: "asyncio.Task[tuple[list[StoredMessage], float]]", consumer: str) -> None:
        if not task.cancelled() and task.exception() is None:
            self._set_aside(task.result()[0], consumer)

    def _is_awaited(self, letter: StoredMessage) -> bool:
        token = _hash(letter.mailbox)
        return any(token in wanted for wanted in self._waiting.values())

    def _set_aside(self, letters: Sequence[StoredMessage], consumer: str) -> None:
        """Keep letters for a later call, before whatever was handed over meanwhile."""
        if letters:
            self._spare[consumer] = [*letters, *self._spare.get(consumer, ())]
            self.look_again()

    async def _take_once(self, wanted: Wanted, consumer: str) -> tuple[list[StoredMessage], float]:
        try:
            mine = {(name, lane) for name, lane, _ in wanted}
            letters = self._spare.pop(consumer, []) + self._take_beside([], consumer)
            due_s = POLL_S
            if mine and not any((one.mailbox, one.lane) in mine for one in letters):
                try:
                    found, due_s = await self._look(wanted, consumer, bool(letters))
                except BaseException:
                    self._set_aside(letters, consumer)
                    raise
                letters += found
            # What an earlier call was to get may be for mailboxes that another one wants. If none
            # does, then for one that was left meanwhile: this caller gives it to others.
            names = {name for name, _, _ in wanted}
            others = [o for o in letters if o.mailbox not in names and self._is_awaited(o)]
            self._set_aside(others, consumer)
            return [one for one in letters if one not in others] if others else letters, due_s
        finally:
            del self._asking[consumer]

    async def _look(
        self,
        wanted: Wanted,
        consumer: str,
        has_others: bool,  # noqa: FBT001
    ) -> tuple[list[StoredMessage], float]:
        """What the server has now, with what it handed over meanwhile, and when to look again."""
        rings = self._rings
        rows = await self._ask(wanted, consumer)
        try:
            letters = self._take_beside([await self._whole(row) for row in rows], consumer)
        except BaseException:  # also by a bug: what was taken is asked for again
            self._doubt(consumer)
            raise
        try:
            await self._clear()
        except BusUnavailableError:  # found again
            self._doubt(consumer)
        is_whole = not (_is_cut(rows) or any(row["gone"] for row in rows))
        if rings == self._rings and is_whole:
            self._note_emptied(wanted, letters, consumer)
        due = rows[-1]["due"] if rows else None
        if rows and due is None and not (letters or has_others):
            return letters, 0.0  # all of it had been handled before: ask for more
        return letters, POLL_S if due is None else max(due, _SOONEST_S)

    def _take_beside(self, rows: Sequence[Row], consumer: str) -> list[StoredMessage]:
        """The letters of what was taken and of what was handed over, in their mailboxes' order.

        While something may be missing that was handed over to an earlier connection, what a later
        one brought has to wait: it comes after that.
        """
        beside = self._beside.pop(consumer, [])
        if (since := self._in_doubt.get(consumer)) is not None:
            self._beside[consumer] = [one for one in beside if one[0] >= since]
            beside = [one for one in beside if one[0] < since]
        handed = [row for _, row in beside]
        return self._letters_of(in_order(rows, handed) if handed else rows, consumer)

    async def _ask(self, wanted: Wanted, consumer: str) -> list[Any]:
        first = self._cuts % len(wanted)  # or mailboxes at the end would never be reached
        names, lanes, limits = zip(*wanted[first:], *wanted[:first], strict=True)
        held = self._known.setdefault(consumer, {})
        asked_by, known = 0, None
        is_alive = False
        size = min(_MOST, _FROM_EACH * len(wanted))

        def arguments() -> tuple[Any, ...]:
            # Of the connection that asks: when the one before broke, what it was given is missing.
            nonlocal asked_by, known
            asked_by, known = self._connects, list(held) if consumer in self._in_doubt else None
            queues = (names, [lane.value for lane in lanes], limits)
            return (self._channel, consumer, *queues, known, is_alive, self._hold_s)

        try:
            rows = await self._link.call(_TAKE, made=arguments, is_repeatable=False, size=size)
        except BusUnavailableError as error:
            if getattr(error.__cause__, "sqlstate", None) != _THOUGHT_DEAD:
                self._doubt(consumer)
                raise
            is_alive = True
            rows = await self._link.call(_TAKE, made=arguments, is_repeatable=False, size=size)
        if known is not None and asked_by == self._connects:  # else asked before the doubt arose
            self._in_doubt.pop(consumer, None)
            if _is_cut(rows):  # all that was handed over comes after what is still to be told
                self._in_doubt[consumer] = 0
        self._cuts += _is_cut(rows)
        return rows

    def _note_emptied(
        self, wanted: Wanted, letters: Sequence[StoredMessage], consumer: str
    ) -> None:
        got: Counter[_Queue] = Counter()
        size: Counter[_Queue] = Counter()
        for one in letters:
            got[one.mailbox, one.lane] += 1
            size[one.mailbox, one.lane] += len(one.body)
        self._emptied[consumer] = frozenset(
            (name, lane)
            for name, lane, most in wanted
            if got[name, lane] < most and size[name, lane] < _FEW
        )

    def _letters_of(self, rows: Sequence[Row], consumer: str) -> list[StoredMessage]:
        """What is to be handled of rows that are held now; each row once."""
        letters = []
        known = self._known.setdefault(consumer, {})
        for row in rows:
            if row["hold"] is not None and row["hold"] not in known:
                try:
                    found = letters_of(row)
                except ValueError as error:
                    self._foreign.append((row["hold"], row["mailbox"], str(error)))
                    continue
                letters += found
                if found:
                    known[row["hold"]] = len(found)
                else:
                    self._ended.append(row["hold"])
        return letters

    async def _whole(self, row: Row) -> Row:
        """A row with its message, which is read by itself where it is large."""
        if row["hold"] is None or row["message"] is not None:
            return row
        try:
            sql = "SELECT pbus.queue_read_message($1) AS message"
            (found,) = await self._link.call(sql, row["hold"], size=_LARGE)
        except BrokerFaultError as error:
            self._foreign.append((row["hold"], row["mailbox"], error.reason))
            return {**row, "hold": None}
        return {**row, "message": found["message"] or "null"}

    async def _clear(self) -> None:
        """Have rows removed of which all had been handled before, and those that are no entries."""
        ended, self._ended = self._ended, []
        foreign, self._foreign = self._foreign, []
        if ended:
            await self._link.call("SELECT pbus.queue_delete_settled($1)", ended)
        if foreign:
            holds, mailboxes, problems = zip(*foreign, strict=True)
            reasons = [sanitize_text(f"not written by pbus: {problem}") for problem in problems]
            await self._link.call("SELECT pbus.queue_dead_letter_foreign($1, $2)", holds, reasons)
            logger.warning(
                "%d rows in the queues of %s were not written by pbus and are dead letters now: %s",
                len(holds), ", ".join(sorted(set(mailboxes))), problems[0],
            )  # fmt: skip


def _is_cut(rows: Sequence[Row]) -> bool:
    """Whether the server had more than an answer may carry."""
    return bool(rows) and rows[-1]["hold"] is None and rows[-1]["due"] == 0


async def _wait_notified(bell: asyncio.Event, within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await bell.wait()


def _hash(name: str) -> str:
    return _md5(name)[:8]


@functools.lru_cache(maxsize=4096)
def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 - a name
