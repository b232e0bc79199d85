"""Fetch stored messages from Postgres: what was pushed, what the server has now, or what comes."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from pbus.bus.pgmq.connections import CONNECTING, ConnectionPair
from pbus.bus.pgmq.encoding import Row
from pbus.bus.pgmq.entries import EntryReader
from pbus.bus.pgmq.push import FetchContext, PushReceiver
from pbus.bus.pgmq.uncertainty import Inquiry, Uncertainty
from pbus.bus.pgmq.wakeups import Wakeups, Wanted, wait_notified
from pbus.bus.queues.store import StoredMessage
from pbus.errors import BusUnavailableError

POLL_S = 5.0  # ask without a notification: one may be lost with its connection
_EMPTY_S = 0.05  # how long a queue that was just emptied is taken to be so, without a notification
_SOONEST_S = 0.005
_THOUGHT_DEAD = "PB001"  # raised by pbus.queue_fetch
_ANSWER_BYTES = 8 * 1024 * 1024  # one answer of pbus.queue_fetch carries at most about so many
_LANE_BYTES = 2 * 1024 * 1024  # and of one lane of a queue
_FETCH = "SELECT * FROM pbus.queue_fetch($1, $2, $3, $4, $5, $6, $7, $8)"

Found = tuple[list[StoredMessage], float]  # and in how many seconds there may be more


class Fetcher:
    """Fetches for the consumers of this process.

    Args:
        connections: Of the bus; the one that hears notifications asks.
        hold_s: How long a consumer may be silent.
    """

    def __init__(self, connections: ConnectionPair, hold_s: float) -> None:
        self._connections = connections
        self._hold_s = hold_s
        self._is_listening = False
        self._asking: dict[str, asyncio.Task[Any]] = {}  # one at a time for each consumer
        self._cut_answers = 0  # that ended early
        self.uncertainty = Uncertainty()
        self.wakeups = Wakeups()
        self._entries = EntryReader(connections.reader, self.uncertainty)
        context = FetchContext(
            connections, hold_s, self._asking, self._entries, self.uncertainty, self.wakeups
        )
        self.push = PushReceiver(context)
        connections.add_listener(self._on_notify)

    @property
    def consumers(self) -> list[str]:
        """All that have fetched anything."""
        return self.uncertainty.consumers

    @property
    def held(self) -> list[int] | None:
        """The entries in flight to them; None: there may be others."""
        known = self.uncertainty.all_held()
        return None if known is None else known + self.push.holds

    async def fetch(self, wanted: Wanted, *, consumer: str, wait_s: float) -> list[StoredMessage]:
        """Fetch messages, waiting for some; see QueueStore."""
        wanted = [one for one in wanted if one[2] > 0]
        now = asyncio.get_running_loop().time
        gives_up_at = now() + wait_s
        with self.wakeups.waiting(wanted) as wakeup:
            if wait_s > 0:
                await self._listen()
                await self.push.subscribe(wanted, consumer)
            while True:
                if wait_s > 0:
                    await self._pause_if_empty(wanted, consumer, wakeup, min(_EMPTY_S, wait_s))
                wakeup.clear()
                messages, due_s = await self._fetch_now(wanted, consumer)
                left_s = gives_up_at - now()
                if messages or left_s <= 0 or not self.wakeups.is_waiting(wakeup):
                    return messages
                await wait_notified(wakeup, min(left_s, due_s, POLL_S))

    def settled(self, holds: Iterable[int]) -> None:
        """One message of each of these entries was settled."""
        self.uncertainty.settled(holds)

    async def finish(self, prefixes: Sequence[str]) -> None:
        """Wait for what is being fetched for these consumers, so that none of it comes later."""
        asking = [task for name, task in self._asking.items() if name.startswith(tuple(prefixes))]
        if asking:
            await asyncio.wait(asking)

    def release(self, prefixes: Sequence[str]) -> None:
        """Forget what these consumers held: it was requeued."""
        self.push.drop(self.uncertainty.release(prefixes))

    async def close(self) -> None:
        """End what is under way."""
        self.wakeups.end_all()
        if self._asking:
            await asyncio.wait(set(self._asking.values()))

    def _on_notify(self, payload: str) -> None:
        if payload == CONNECTING:
            self.push.reconnecting()
        elif payload[:1] != "w":  # those are for the transport
            self.wakeups.notified(set(payload.split()))

    async def _listen(self) -> None:
        if not self._is_listening:
            await self._connections.listen()
            self._is_listening = True

    async def _pause_if_empty(
        self, wanted: Wanted, consumer: str, wakeup: asyncio.Event, within_s: float
    ) -> None:
        """Wait for a notification where asking now would most likely find nothing."""
        if self.push.has_any(consumer) or not self.wakeups.were_emptied(wanted, consumer):
            return
        await wait_notified(wakeup, within_s)
        if not self.push.has_any(consumer):
            self.wakeups.forget_emptied(consumer)

    async def _fetch_now(self, wanted: Wanted, consumer: str) -> Found:
        """Return what is there now."""
        while (before := self._asking.get(consumer)) is not None:
            await asyncio.wait({before})
        task = asyncio.create_task(self._fetch_once(wanted, consumer), name="pbus fetch")
        self._asking[consumer] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # It is in flight to this consumer by now: kept for the next call.
            task.add_done_callback(lambda done: self._keep(done, consumer))
            raise

    def _keep(self, task: asyncio.Task[Found], consumer: str) -> None:
        if not task.cancelled() and task.exception() is None:
            self.push.keep(task.result()[0], consumer)

    async def _fetch_once(self, wanted: Wanted, consumer: str) -> Found:
        try:
            messages, due_s = self.push.take_prefetched(consumer), POLL_S
            mine = {(name, lane) for name, lane, _ in wanted}
            if mine and not any((one.queue, one.lane) in mine for one in messages):
                found, due_s = await self._ask_beside(wanted, consumer, messages)
                messages += found
            return self._leave_to_other_calls(messages, wanted, consumer), due_s
        finally:
            del self._asking[consumer]

    async def _ask_beside(
        self, wanted: Wanted, consumer: str, here: Sequence[StoredMessage]
    ) -> Found:
        """Ask the server; keep what is here already if that fails."""
        try:
            return await self._ask(wanted, consumer, has_others=bool(here))
        except BaseException:
            self.push.keep(here, consumer)
            raise

    def _leave_to_other_calls(
        self, messages: list[StoredMessage], wanted: Wanted, consumer: str
    ) -> list[StoredMessage]:
        """Keep what another waiting call of the consumer wants, and return the rest.

        A message that no call wants is of a queue that was left meanwhile: this call requeues it.
        """
        names = {name for name, _, _ in wanted}
        others = [
            one for one in messages if one.queue not in names and self.wakeups.is_wanted(one.queue)
        ]
        self.push.keep(others, consumer)
        return [one for one in messages if one not in others] if others else messages

    async def _ask(self, wanted: Wanted, consumer: str, *, has_others: bool) -> Found:
        """Return what the server has now, with what it pushed meanwhile."""
        rings = self.wakeups.rings
        rows = await self._query(wanted, consumer)
        messages = await self._read(rows, consumer)
        is_whole = not (_is_cut(rows) or any(row["gone"] for row in rows))
        if rings == self.wakeups.rings and is_whole:
            self.wakeups.note_emptied(wanted, messages, consumer)
        if messages or has_others:
            return messages, _due_s(rows, POLL_S)
        # Rows without messages: all of it had been handled before, so there may be more now.
        return messages, _due_s(rows, 0.0 if rows else POLL_S)

    async def _read(self, rows: Sequence[Row], consumer: str) -> list[StoredMessage]:
        """The messages of fetched rows, and of those pushed meanwhile."""
        try:
            loaded = [await self._entries.load(row) for row in rows]
            messages = self.push.merge(loaded, consumer)
        except BaseException:  # also by a bug: what was fetched is asked for again
            self.uncertainty.doubt(consumer)
            raise
        try:
            await self._entries.clean_up()
        except BusUnavailableError:  # the rows are found again
            self.uncertainty.doubt(consumer)
        return messages

    async def _query(self, wanted: Wanted, consumer: str) -> list[Any]:
        first = self._cut_answers % len(wanted)  # else queues at the end would never be reached
        names, lanes, limits = zip(*wanted[first:], *wanted[:first], strict=True)
        queues = (names, [lane.value for lane in lanes], limits)
        inquiry, is_alive = Inquiry(), False
        size = min(_ANSWER_BYTES, _LANE_BYTES * len(wanted))

        def arguments() -> tuple[Any, ...]:
            # Of the connection that asks: when the one before broke, its answer is missing.
            self.uncertainty.ask(inquiry, consumer)
            channel = self._connections.channel
            return (channel, consumer, *queues, inquiry.known, is_alive, self._hold_s)

        call = self._connections.reader.call
        try:
            rows = await call(_FETCH, made=arguments, is_repeatable=False, size=size)
        except BusUnavailableError as error:
            if getattr(error.__cause__, "sqlstate", None) != _THOUGHT_DEAD:
                self.uncertainty.doubt(consumer)
                raise
            is_alive = True
            rows = await call(_FETCH, made=arguments, is_repeatable=False, size=size)
        self.uncertainty.answered(inquiry, consumer, is_cut=_is_cut(rows))
        self._cut_answers += _is_cut(rows)
        return rows


def _due_s(rows: Sequence[Row], otherwise: float) -> float:
    """In how many seconds a queue will have something, as far as the server says."""
    due = rows[-1]["due"] if rows else None
    return otherwise if due is None else max(due, _SOONEST_S)


def _is_cut(rows: Sequence[Row]) -> bool:
    """Whether the server had more than an answer may carry."""
    return bool(rows) and rows[-1]["hold"] is None and rows[-1]["due"] == 0
