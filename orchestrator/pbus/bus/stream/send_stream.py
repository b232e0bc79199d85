"""Numbered streams of messages, the credit that their receivers granted, and batches on their way out."""

import asyncio
import time
from collections import deque

INITIAL_CREDIT_BYTES = 256 * 1024  # before a receiver has granted more
_MAX_RECEIVERS = 4096  # that grant credit to one stream; grants of further ones are not kept
_UNKNOWN = ""  # stands for receivers that were counted and have not granted yet


class SendStream:
    """The messages that one process sends to one address in one lane, numbered from 1.

    Attributes:
        number: Tells this stream from others of the process.
        broadcasts: The broadcasts, by stream and next number, before what the broker had last of this.
        position: Bytes accepted so far; those of the receivers are on the same scale.
        counted: What PUBLISH said, how many of it were ours, and when we asked.
        expected: How many processes listen, the dead included that still have a connection.
        limit: The position up to which every receiver has room.
        is_complete: Whether all who have a right to listen have granted credit.
        known: The number of receivers that have granted credit.
    """

    __slots__ = (
        "_consumed", "_dead", "_receivers", "address", "broadcasts", "counted", "expected", "is_complete", "known",
        "last_used", "limit", "marked", "next_number", "number", "position", "waiters",
    )  # fmt: skip

    def __init__(self, address: str, number: int) -> None:
        self.address = address
        self.number = number
        self.next_number = 1
        self.marked = 1
        self.position = 0
        self.expected = 0
        self.known = 0
        self.is_complete = False
        self.broadcasts = (0, 0)
        self.counted = (-1, 0, 0.0)
        self.waiters: deque[tuple[asyncio.Future[None], bytes]] = deque()
        self.last_used = time.monotonic()
        self._receivers: dict[str, tuple[int, int]] = {}  # incarnation: (consumed, limit)
        self._dead: set[str] = (
            set()
        )  # incarnations that are over, even where their connections stay
        self._consumed = 0  # of the receiver that is furthest behind
        self.limit = INITIAL_CREDIT_BYTES  # of the receiver with the least room

    def receivers(self) -> list[str]:
        """The incarnations of those that have granted credit."""
        return [receiver for receiver in self._receivers if receiver != _UNKNOWN]

    def has_credit(self, size: int) -> bool:
        """Whether every receiver has room for so many bytes, or has nothing left to do."""
        return self.position + size <= self.limit or self._consumed >= self.position

    def grant(self, receiver: str, consumed: int, limit: int) -> None:
        """A receiver has handled so many bytes and has room up to a limit."""
        self._dead.discard(receiver)
        if receiver in self._receivers or len(self._receivers) < _MAX_RECEIVERS:
            self._receivers[receiver] = (consumed, limit)
            self._count()
            self._refresh()

    def drop(self, receiver: str) -> None:
        """A receiver is gone."""
        self._receivers.pop(receiver, None)
        self._count()
        self._refresh()

    def mark_dead(self, receiver: str) -> None:
        """A receiver's incarnation is over, though the broker may still count it."""
        self._dead.add(receiver)
        self.drop(receiver)

    @property
    def is_unsure(self) -> bool:
        """Whether a receiver listens that has not granted credit yet."""
        return _UNKNOWN in self._receivers

    def set_receiver_count(self, count: int, position: int | None = None) -> None:
        """So many processes listen; those not heard yet have handled what came before position.

        Without a position they are taken to be as far behind as the slowest of the others.
        """
        self.expected = count
        if count == 0:
            self._receivers.clear()
            self.known = 0
            self._begin_again(self.position)
        elif self._living > self.known and _UNKNOWN not in self._receivers:
            self._begin_again(self._consumed if position is None else position)
        self._refresh()

    def _count(self) -> None:
        self.known = len(self._receivers) - (_UNKNOWN in self._receivers)

    def _begin_again(self, position: int) -> None:
        self._receivers[_UNKNOWN] = (position, position + INITIAL_CREDIT_BYTES)

    @property
    def _living(self) -> int:
        """The number of expected receivers that can grant credit."""
        most = 0 if self.is_complete else self.expected - len(self._dead)
        return max(self.known, most)

    def _refresh(self) -> None:
        if self.known and self.known >= self._living:
            self._receivers.pop(_UNKNOWN, None)
        if not self._receivers:
            self._begin_again(self.position)
        self._consumed = min(consumed for consumed, _ in self._receivers.values())
        self.limit = min(limit for _, limit in self._receivers.values())


class OutBatch:
    """Messages of one stream on their way out."""

    __slots__ = (
        "created", "encoded", "first", "is_handed_over", "lines", "position", "size", "stream",
    )  # fmt: skip

    def __init__(self, stream: SendStream) -> None:
        self.stream = stream
        self.first = stream.next_number
        self.position = stream.position
        self.lines: list[bytes] = []
        self.size = 0
        self.created = time.monotonic()
        self.encoded: bytes | None = None
        self.is_handed_over = False  # to a direct socket, which has it written in any case
