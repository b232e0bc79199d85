"""Newest messages, with those of edges that are busy folded into rates: rare ones stay visible."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pbus.bus.tap import TapMessage
from pbus.client.traffic.message_tail import TailMessage
from pbus.names import group_of
from pbus_cli.views.board.board_snapshot import Folded
from pbus_cli.views.traffic import Passed

_KEPT: Final = 500  # messages
_LATEST: Final = 50  # of each folded edge
_MOST_EDGES: Final = 2_000  # those beyond are not told apart: their messages are never folded
_SHOWN_PER_S: Final = 50  # messages of a folded edge that are kept each second
_FAST: Final = 5.0  # messages a second from which an edge is folded
_SLOW: Final = 2.0  # and under which it is not any more, after so many looks:
_CALM: Final = 30  # the line of a burst stays in sight for a while
_LONGEST_BODY: Final = 64 * 1024  # of longer ones only the beginning is kept
_BEGINNING: Final = 4096
_EVERY_S: Final = 1.0

# A message in JSON begins with type, source and target, as pbus writes it.
_ID: Final = b'","id":"'
_LONGEST_HEAD: Final = 1024

EdgeKey = tuple[str, str | None, str]


@dataclass
class _EdgeTraffic:
    """Counts of one edge, all replicas of its ends together."""

    key: EdgeKey
    count: int = 0
    bytes: int = 0
    before: int = 0  # at the last look
    bytes_before: int = 0
    rate: float = 0.0
    bytes_rate: float = 0.0
    calm: int = 0  # looks in a row at which it was slow
    is_folded: bool = False
    is_reached: bool = True  # the newest one that was decoded
    latest: deque[Passed] = field(default_factory=lambda: deque(maxlen=_LATEST))

    @property
    def is_sampled(self) -> bool:
        """Whether enough of it is kept for this second."""
        return self.is_folded and self.count - self.before > _SHOWN_PER_S

    def look(self, elapsed_s: float) -> bool:
        """Take the rates; returns whether it is folded now and was not before."""
        self.rate = (self.count - self.before) / elapsed_s
        self.bytes_rate = (self.bytes - self.bytes_before) / elapsed_s
        self.before, self.bytes_before = self.count, self.bytes
        was_folded = self.is_folded
        self.calm = self.calm + 1 if self.rate < _SLOW else 0
        self.is_folded = self.rate >= _FAST or (was_folded and self.calm < _CALM)
        return self.is_folded and not was_folded


class TrafficFold:
    """Keeps the newest messages. For one thread; what it returns is never changed.

    Attributes:
        passed: Messages so far.
        per_second: Over the last second.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.per_second = 0.0
        self._edges: dict[EdgeKey, _EdgeTraffic] = {}
        self._by_name: dict[EdgeKey, _EdgeTraffic] = {}  # by the names of replicas: quick to find
        self._recent: deque[tuple[_EdgeTraffic | None, Passed]] = deque(maxlen=_KEPT)
        self._busy: dict[bytes, _EdgeTraffic] = {}  # by the beginnings of their messages
        self._before = 0
        self._skipped = 0
        self._since = time.monotonic()

    def add(self, item: TapMessage, *, is_reached: bool = True) -> None:
        """Take in a message.

        Args:
            item: The message.
            is_reached: A process was there to take it.
        """
        self.passed += 1
        header = item.header
        key = (header.source, header.target, header.type)
        edge = self._by_name.get(key) or self._new_edge(key)
        if edge is not None:
            edge.count += 1
            edge.bytes += item.size
            edge.is_reached = is_reached
            if edge.is_sampled:
                self._note_busy(item.body, edge)
                return
        passed = passed_of(TailMessage.of(item, is_reached=is_reached))
        if edge is not None and edge.is_folded:
            edge.latest.append(passed)
        else:
            self._recent.append((edge, passed))

    def sieve(self, lines: list[bytes]) -> list[bytes]:
        """Count the messages of edges of which enough was seen this second; the others are left.

        Args:
            lines: Messages as they travel; they are not decoded for it.
        """
        busy = self._busy
        if not busy:
            return lines
        left = []
        for line in lines:
            edge = busy.get(line[: line.find(_ID, 0, _LONGEST_HEAD)])
            if edge is None:
                left.append(line)
            else:
                edge.count += 1
                edge.bytes += len(line)
        self.passed += len(lines) - len(left)
        return left

    def look(self, now: float, skipped: int = 0) -> None:
        """Take the rates, about once a second; edges folded from now on leave the messages.

        Args:
            now: By time.monotonic().
            skipped: Messages so far that passed and were not given to add(): of whichever edges.
        """
        elapsed_s = now - self._since
        if elapsed_s < _EVERY_S / 2:
            return
        seen, unseen = self.passed - self._before, skipped - self._skipped
        scale = (seen + unseen) / seen if seen else 1.0
        self.per_second = (seen + unseen) / elapsed_s
        self._before, self._skipped, self._since = self.passed, skipped, now
        self._busy = {}
        looks = [edge.look(elapsed_s / scale) for edge in self._edges.values()]
        if any(looks):
            self._fold_kept()

    def _note_busy(self, body: bytes, edge: _EdgeTraffic) -> None:
        end = body.find(_ID, 0, _LONGEST_HEAD)
        if end > 0 and len(self._busy) < _MOST_EDGES:
            self._busy[body[:end]] = edge

    def _fold_kept(self) -> None:
        kept: deque[tuple[_EdgeTraffic | None, Passed]] = deque(maxlen=_KEPT)
        for edge, passed in self._recent:
            if edge is not None and edge.is_folded:
                edge.latest.append(passed)
            else:
                kept.append((edge, passed))
        self._recent = kept

    def messages(self) -> tuple[Passed, ...]:
        """The newest messages that are not folded, newest last."""
        return tuple(passed for _, passed in self._recent)

    def folded(self) -> tuple[Folded, ...]:
        """The edges that are folded, in the order in which they were first seen."""
        return tuple(
            Folded(
                source=edge.key[0],
                target=edge.key[1],
                type=edge.key[2],
                count=edge.count,
                rate=edge.rate,
                bytes_rate=edge.bytes_rate,
                is_reached=edge.is_reached,
                latest=tuple(edge.latest),
            )
            for edge in self._edges.values()
            if edge.is_folded
        )

    def _new_edge(self, key: EdgeKey) -> _EdgeTraffic | None:
        source, target, kind = key
        folded = (_group(source), None if target is None else _group(target), kind)
        edge = self._edges.get(folded)
        if edge is None:
            if len(self._edges) >= _MOST_EDGES:
                return None
            edge = self._edges[folded] = _EdgeTraffic(folded)
        if len(self._by_name) < 2 * _MOST_EDGES:
            self._by_name[key] = edge
        return edge


def _group(name: str) -> str:
    return group_of(name) or name


def passed_of(message: TailMessage) -> Passed:
    """The fields of a message that views show."""
    if message.size_bytes > _LONGEST_BODY:
        message = msgspec.structs.replace(message, body=message.body[:_BEGINNING])
    return Passed(
        time=message.time,
        type=message.type,
        source=message.source,
        target=message.target,
        body=message.body,
        size=message.size_bytes,
        is_urgent=message.is_urgent,
        is_reached=message.is_reached,
        key=message.key,
        is_local=message.is_local,
        has_body=message.has_body,
        seen=message,
    )
