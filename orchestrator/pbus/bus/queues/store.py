"""The store of queues in a broker, for at-least-once delivery.

A *queue* keeps messages until they are handled. Several processes may take from one (replicas);
what a process took and has not settled is *held* by its incarnation, and goes back when that
incarnation is released. Times are the broker's.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from pbus.messages import Lane
from pbus.settings import MAX_BACKLOG, MAX_BACKLOG_BYTES

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SAY_EVERY_S = 60.0

Disposition = Literal["ack", "retry", "requeue", "dead_letter"]


class QueueEntry(msgspec.Struct, frozen=True):
    """Encoded messages on their way into queues.

    Attributes:
        address: A queue, or "*" for a copy into every queue that exists now.
        lane: Which of its two lanes.
        bodies: Encoded messages; several may be stored as one entry.
        ids: Their message ids, in the same order.
        sender: The sending process's incarnation.
        first: Number of the first message within the sender's stream to this address and lane,
            from 1: the same numbers stored again are ignored.
        stream: Tells the sender's streams to one address apart.
        is_vouched: They were stored before, and their senders checked.
    """

    address: str
    lane: Lane
    bodies: list[bytes]
    ids: list[str]
    sender: str
    stream: int
    first: int
    is_vouched: bool = False


class PutResult(msgspec.Struct, frozen=True):
    """The outcome of a QueueEntry.

    Attributes:
        queues: Into how many it was stored; 0: there is no such queue.
        is_full: A queue had no room (max_backlog), or something before it in the batch and lane
            that it must not overtake was refused: nothing was stored, try again later.
        is_young: The broker was emptied a moment ago, or is new: more queues may come back.
        why: Which bound was reached, in a sentence; "" where it only must not overtake.
    """

    queues: int
    is_full: bool = False
    is_young: bool = False
    why: str = ""


class StoredMessage(msgspec.Struct, frozen=True, gc=False):
    """One message taken from a queue.

    Attributes:
        queue: Whose.
        lane: From which lane of it.
        receipt_handle: Settles it; opaque, meaningful to the store that gave it.
        id: The message's id, as its sender gave it.
        body: The encoded message.
        attempt: 1 the first time a handler is to be started with it; one more for each retry.
        crashes: How many incarnations ended while they held it *and* had started it.
        is_poison_suspect: An incarnation ended while it held this message: call started() before the
            handler, so that a message that kills processes is told from its neighbours.
        stored_at: When it was first stored, by this process's loop clock; its age is the broker's.
    """

    queue: str
    lane: Lane
    receipt_handle: str
    id: str
    body: bytes
    attempt: int = 1
    crashes: int = 0
    is_poison_suspect: bool = False
    stored_at: float = msgspec.field(default_factory=time.monotonic)


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The end of a message for its consumer.

    Attributes:
        how: "ack": gone, and its id is remembered with it; "retry": back into the queue
            after `delay_s` with one attempt more; "requeue": back into it as it was, no handler
            began with it; "dead_letter": to the dead letters.
        reason: Why it is retried or dead-lettered, in a sentence.
    """

    message: StoredMessage
    how: Disposition = "ack"
    delay_s: float = 0.0
    reason: str = ""


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """One queue as `pbus ps` shows it.

    Attributes:
        backlog: Messages stored and not handled, those in flight included.
        backlog_bytes: Their bytes.
        in_flight: Held by a process now.
        oldest_s: Age of the oldest stored message, seconds; None when there is none.
        retries: Stored messages that have been tried before.
        dead: Dead letters.
        dead_fell: Dead letters that fell since the queue was made: it keeps so many.
    """

    name: str
    backlog: int = 0
    backlog_bytes: int = 0
    in_flight: int = 0
    oldest_s: float | None = None
    retries: int = 0
    dead: int = 0
    dead_fell: int = 0


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was given up.

    Attributes:
        key: Names it for requeue and drop.
        dead_since: Unix seconds, by the broker's clock.
        age_s: Seconds since then, by the broker's clock.
        attempt: How often its handler was started.
    """

    key: str
    queue: str
    id: str
    body: bytes
    reason: str
    attempt: int
    crashes: int
    dead_since: float
    age_s: float = 0.0


HANDLED_KEPT_S = 600.0  # how long handled ids are remembered
KEPT_UNTOUCHED_S = 600.0  # how long messages outlive the lease of a queue that is not durable
BROKER_AWAY_S = 5.0  # no process at all was in touch for so long: they come back, so wait
COMING_BACK_S = 10.0  # for so long
HANDLED_KEPT = 100_000  # and how many of a queue
SETTLED_AT_ONCE = 2_000  # in one round trip: a broker is busy, and holds locks, as long as it takes
DEAD_KEPT = 100_000  # dead letters of a queue; the oldest fall
DEAD_BYTES = 64 * 1024 * 1024  # and bytes of them
CHANNEL_TIMES = 4  # all queues of a channel hold so many times what one may
SMALL_PART = 64  # but a queue with so small a part of what it may hold is not held up by the others

_BOUNDS = {
    "n": "its queue {} holds {:,} messages of at most {:,} (max_backlog)",
    "b": "its queue {} holds {:,} bytes of at most {:,} (max_backlog_bytes)",
    "c": "beside {} all queues of the channel hold {:,} bytes of at most {:,}"
    f" ({CHANNEL_TIMES} times max_backlog_bytes)",
}


def no_room(kind: str, queue: str, there: int, limit: int) -> str:
    """Say in a sentence which bound of a queue was reached.

    Args:
        kind: "n": its messages, "b": its bytes, "c": the bytes of all queues of the channel.
        queue: Which.
        there: What is stored already.
        limit: What may be at most.
    """
    return _BOUNDS[kind].format(repr(queue), there, limit)


def parts_of(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split settlements, or keys of dead letters, into batches of at most SETTLED_AT_ONCE, in order."""
    for first in range(0, len(values), SETTLED_AT_ONCE):
        yield values[first : first + SETTLED_AT_ONCE]


class FallenDead:
    """Says which queues dead letters fell from, each at most once a minute."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._said: dict[str, float] = {}

    def note(self, queue: str, count: int) -> None:
        """So many fell."""
        self._counts[queue] += count
        now = time.monotonic()
        if now - self._said.get(queue, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said[queue] = now
            logger.warning(
                "%d dead letters of %r fell, the oldest: a queue keeps %d of at most %d bytes;"
                " see pbus dlq",
                self._counts.pop(queue), queue, DEAD_KEPT, DEAD_BYTES,
            )  # fmt: skip


PutNow = Callable[[QueueEntry, Callable[[PutResult | None], None]], bool]


class QueueStore(Protocol):
    """Queues in a broker. Every call may raise BusUnavailableError.

    Attributes:
        on_lost: Called by touch() with a queue and about how many messages others than pbus
            removed from it; a store that cannot tell never does.
        on_push: Called with a message that the broker sends to a consumer of this process while a
            fetch() of it waits, which then goes on waiting. A store need not: then fetch() returns it.
    """

    on_lost: Callable[[str, int], None]
    on_push: Callable[[StoredMessage], None] | None

    @property
    def put_now(self) -> PutNow | None:
        """Begins to store an entry with one message before it returns; None for a store that cannot.

        Returns False where it did not begin. The callback is called once, later: with the outcome, or
        with None where that is unknown or takes more steps: put() is to be used then.
        """
        ...

    async def open(
        self,
        queue: str,
        *,
        durable: bool,
        shared: bool = False,
        max_backlog: int = MAX_BACKLOG,
        max_bytes: int = MAX_BACKLOG_BYTES,
    ) -> None:
        """Make sure a queue exists; one that is kept stays kept.

        Args:
            queue: Its name.
            durable: It outlives its processes (a worker that a topology declares); else it is removed
                once it was not renewed for LEASE_S (with messages in it: KEPT_UNTOUCHED_S more),
                unless it was the broker that was away.
            shared: Replicas take from it together, and each has a queue of its own, too: so a
                broadcast is not copied into this one.
            max_backlog: Messages it holds at most (both lanes together). An entry larger than that
                is taken by an empty queue, or it would never be.
            max_bytes: Bytes of messages it holds at most, likewise; and all queues of the channel
                CHANNEL_TIMES as many, as far as this one holds more than one SMALL_PART of that.

        A durable queue stays so, with its limits, when others open it.
        """
        ...

    async def renew(self, queues: Sequence[str]) -> list[str]:
        """Keep queues with durable=False alive for another LEASE_S; drop all that ran out.

        Returns:
            Those of `queues` that do not exist (any more): open them again.
        """
        ...

    async def put(self, batch: Sequence[QueueEntry]) -> list[PutResult]:
        """Store a batch, in order, all in one round trip; confirmed when this returns.

        Refused is what finds a queue full, and after it in this batch whatever would overtake
        it: what goes to the same address and lane, after a refused broadcast all of its lane, and
        a broadcast after anything of its lane. Write what was refused again before newer numbers,
        and one batch of a lane at a time, or order (and with it the numbers) means nothing.
        """
        ...

    async def fetch(
        self, wanted: Sequence[tuple[str, Lane, int]], *, consumer: str, wait_s: float
    ) -> list[StoredMessage]:
        """Fetch messages that are not in flight, oldest first, waiting for some at most `wait_s`.

        Messages whose id was handled before are settled here and not returned. What a call that
        failed or was cancelled had taken already is returned by a later one of the same consumer,
        perhaps to one that wants other queues: settle it so that others get it.

        Args:
            wanted: (queue, lane, how many at most). An entry is taken whole, so the last one
                may exceed it. A queue that does not exist has no messages.
            consumer: This process's incarnation.
            wait_s: How long to wait when there is nothing; woken at once by put().
        """
        ...

    async def wake_fetchers(self) -> None:
        """Make a take() that waits return early: what is wanted has changed. Loses nothing."""
        ...

    async def mark_started(self, messages: Sequence[StoredMessage]) -> None:
        """Note that handlers of suspect messages are about to start: a crash counts from now."""
        ...

    async def settle(self, settles: Sequence[Settlement]) -> None:
        """Settlement a batch, SETTLED_AT_ONCE in each round trip; safe to repeat.

        What the consumer no longer holds is left alone; but that it was handled is remembered, so
        that a copy given back meanwhile is not handled again.
        """
        ...

    async def requeue_held_by(self, incarnations: Sequence[str]) -> int:
        """Give back what these incarnations (by prefix) hold; returns how many messages.

        A take() of theirs that was under way then, or comes later because the process was alive
        after all, gets nothing that is lost: it is asked again, which the dead do not answer.
        """
        ...

    async def stats(self, *, names_only: bool = False) -> list[QueueStats]:
        """All queues by name.

        Args:
            names_only: Leave all but the names out, which costs the broker next to nothing.
        """
        ...

    async def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        """The dead letters of one queue or of all, oldest first, at most 10,000."""
        ...

    async def requeue_dead(self, keys: Sequence[str]) -> int:
        """Put dead letters back into their queues, with attempts counted from 1."""
        ...

    async def drop_dead(self, keys: Sequence[str]) -> int:
        """Remove dead letters for good."""
        ...

    async def purge(self, queue: str, *, remove: bool = False, if_empty: bool = False) -> int:
        """Empty a queue; returns how many messages that were not held fell.

        Messages in flight and dead letters stay, unless the queue is removed with all it has.

        Args:
            queue: Which.
            remove: Whether to remove it, too.
            if_empty: Remove it only while it holds no message, in flight or not; returns how many it
                holds.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
