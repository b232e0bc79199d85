"""The edges of one process: messages counted exactly, their times by samples.

A process counts what it sends and what it handles. Times are those of single messages: of an edge at most
one each SAMPLE_S, which stands for the messages that are handled until the next one. A handler that
takes longer than SAMPLE_S is always timed, and so is the message after it.
"""

import time
from collections.abc import Sequence
from itertools import repeat
from typing import Any, TypeVar

from pbus.codec import decode_header, origin_of
from pbus.errors import MessageDecodeError
from pbus.stats.histogram import Histogram

SAMPLE_S = 0.001
MAX_EDGES = 256  # of a process; the messages of further ones are counted together
OTHER = "(other)"  # the name of all further ones
EVERYONE = "*"  # the target of broadcasts
UNKNOWN_TYPE = ""  # of messages that were lost on the way
# Addresses of clients and processes are made up at each start: one edge for all of a kind.
_CLIENT = "cli-"
_KINDS = {_CLIENT: "cli-*", "runner-": "runner-*", "supervisor-": "supervisor-*"}
_MAX_CACHED = 4 * MAX_EDGES
_LONGEST_NAME = (
    1024  # addresses and types are shorter, so is what messages begin with up to the source
)
_PASSES = 4  # kinds of messages in a payload that are found quickly

_begins = bytes.startswith

Key = tuple[str, str, str]  # source, target and type or job
K = TypeVar("K")
E = TypeVar("E")


class Edge:
    """Messages of one type from one source to one target.

    Attributes:
        source: The sender's address, or a kind of them.
        target: The receiver's address, a group's, or "*".
        type: The name of the type; "" for lost messages, of which it is unknown.
        kind: The class of what is handled; None where none was handled yet.
        address: The target as messages have it; None for everyone.
        sent: Messages that were written; the next two count only those.
        sent_bytes: Their bytes, encoded.
        undelivered: Those of them that reached no process.
        lost: Messages that were noticed missing at the receiver.
        handled: Messages whose handler has ended.
        errors: Those of them whose handler raised.
        wait: Times from the making of a message to the start of its handling.
        handling: Times of handling, decoding included.
        due: When the next message is timed, by `time.perf_counter`.
    """

    __slots__ = (
        "_last_handling_s", "_last_wait_s", "_timed", "address", "due", "errors", "handled", "handling",
        "kind", "lost", "sent", "sent_bytes", "source", "target", "type", "undelivered", "wait",
    )  # fmt: skip

    def __init__(self, source: str, target: str, type_name: str) -> None:
        self.source = source
        self.target = target
        self.type = type_name
        self.kind: type | None = None
        self.address: str | None = None if target == EVERYONE else target
        self.sent = 0
        self.sent_bytes = 0
        self.undelivered = 0
        self.lost = 0
        self.handled = 0
        self.errors = 0
        self.wait = Histogram()
        self.handling = Histogram()
        self.due = 0.0
        self._timed = 0
        self._last_wait_s = 0.0
        self._last_handling_s = 0.0

    def sample(self, made_at: Any, started: float, now: float) -> None:
        """Time the message that was handled last and counted.

        Args:
            made_at: When it was made, Unix seconds of its sender.
            started: When its handling began, by `time.perf_counter`.
            now: When it ended, likewise.
        """
        took = now - started
        self._time_skipped(self.handled - self._timed - 1)
        try:
            self._last_wait_s = time.time() - took - made_at
        except TypeError:  # within a process nothing checks a message's fields
            self._last_wait_s = 0.0
        self._last_handling_s = took
        self.wait.record(self._last_wait_s)
        self.handling.record(took)
        self._timed = self.handled
        self.due = now + SAMPLE_S if took < SAMPLE_S else 0.0

    def settle(self) -> None:
        """Have all handled messages in the histograms."""
        self._time_skipped(self.handled - self._timed)
        self._timed = self.handled

    def restore(self, handled: int) -> None:
        """Count messages that an earlier incarnation handled; its histograms have them."""
        self.handled += handled
        self._timed += handled

    def _time_skipped(self, count: int) -> None:
        if count > 0:
            self.wait.record(self._last_wait_s, count)
            self.handling.record(self._last_handling_s, count)


# Of no message.
NO_EDGE = Edge("", "", "")


class JobEdge:
    """Jobs of one name that one requester asked one worker for.

    Attributes:
        outcomes: Counts by outcome: the status of the answer, "timeout", "cancelled" or "lost".
        latency: Times from the request to the outcome.
    """

    __slots__ = ("latency", "name", "outcomes", "requester", "worker")

    def __init__(self, requester: str, worker: str, name: str) -> None:
        self.requester = requester
        self.worker = worker
        self.name = name
        self.outcomes: dict[str, int] = {}
        self.latency = Histogram()

    def note(self, outcome: str, latency_s: float, count: int = 1) -> None:
        """Count the end of jobs."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        self.latency.record(latency_s, count)


class EdgeTable:
    """The edges of one process, at most MAX_EDGES of messages and as many of jobs."""

    def __init__(self) -> None:
        self._edges: dict[Key, Edge] = {}
        self._jobs: dict[Key, JobEdge] = {}
        self._cache: dict[tuple[Any, ...], Edge] = {}
        self._heads: dict[str, tuple[bytes, Edge]] = {}  # what was sent last, by address
        self._job_cache: dict[Key, JobEdge] = {}

    def edges(self) -> list[Edge]:
        """The edges of messages, their histograms complete."""
        found = list(self._edges.values())
        for edge in found:
            edge.settle()
        return found

    def job_edges(self) -> list[JobEdge]:
        """The edges of jobs."""
        return list(self._jobs.values())

    def edge(self, source: str, target: str, type_name: str) -> Edge:
        """The edge of these names."""
        key = (kind_of_address(source), kind_of_address(target), _short(type_name))
        edge = self._edges.get(key)
        if edge is None:
            key = key if len(self._edges) < MAX_EDGES else (OTHER, OTHER, OTHER)
            edge = self._edges.setdefault(key, Edge(*key))
        return edge

    def job_edge(self, requester: str, worker: str, name: str) -> JobEdge:
        """The edge of jobs of these names."""
        named = (requester, worker, name)
        edge = self._job_cache.get(named)
        if edge is None:
            edge = self._find_job_edge(requester, worker, name)
            _keep(self._job_cache, named, edge)
        return edge

    def _find_job_edge(self, requester: str, worker: str, name: str) -> JobEdge:
        key = (kind_of_address(requester), kind_of_address(worker), _short(name))
        edge = self._jobs.get(key)
        if edge is None:
            key = key if len(self._jobs) < MAX_EDGES else (OTHER, OTHER, OTHER)
            edge = self._jobs.setdefault(key, JobEdge(*key))
        return edge

    def find(self, message: Any) -> Edge:
        """The edge of a message, of whatever its fields are."""
        kind = type(message)
        if (
            getattr(kind, "is_opaque", False) is True
        ):  # one class for all types that are unknown here
            named = (message.type_name, message.source, message.target)
            edge = self._cache.get(named)
            return edge or self._remember(
                named, self.edge(message.source, message.target or EVERYONE, message.type_name)
            )
        key = (kind, message.source, message.target)
        try:
            edge = self._cache.get(key)
        except TypeError:  # within a process nothing checks a message's fields
            return self.edge(OTHER, OTHER, kind.__name__)
        if edge is None:
            target = EVERYONE if message.target is None else str(message.target)
            edge = self._remember(key, self.edge(str(message.source), target, kind.__name__))
            if edge.kind is None:
                edge.kind = kind
        return edge

    def note_sent(
        self, address: str, lines: Sequence[bytes], size: int, *, is_undelivered: bool
    ) -> None:
        """Count encoded messages that were written.

        Args:
            address: Where they were sent.
            lines: The messages.
            size: Their bytes together.
            is_undelivered: No process got them.
        """
        last = self._heads.get(address)
        if last is not None and _all_begin(lines, last[0]):
            edge = last[1]
            edge.sent += len(lines)
            edge.sent_bytes += size
            edge.undelivered += len(lines) if is_undelivered else 0
            return
        groups = _by_head(lines)
        for head, found in groups:
            edge = self._cache.get((head, address)) or self._edge_of_line(head, address, found[0])
            if head != found[0]:  # else it is no head of others
                _keep(self._heads, address, (head, edge), head)
            edge.sent += len(found)
            edge.sent_bytes += size if len(groups) == 1 else sum(map(len, found))
            if is_undelivered:
                edge.undelivered += len(found)

    def note_put(self, message: Any, *, is_undelivered: bool) -> None:
        """Count a message that was handed over within the process."""
        edge = self.find(message)
        edge.sent += 1
        edge.undelivered += is_undelivered

    def note_lost(self, sender: str, address: str, count: int) -> None:
        """Count messages that went missing on the way here.

        Args:
            sender: The incarnation of the sending process.
            address: Where they were sent.
            count: How many.
        """
        self.edge(sender, address, UNKNOWN_TYPE).lost += count

    def _edge_of_line(self, head: bytes, address: str, line: bytes) -> Edge:
        try:
            header = decode_header(line)
        except MessageDecodeError:
            return self.edge(OTHER, OTHER, OTHER)
        return self._remember((head, address), self.edge(header.source, address, header.type))

    def _remember(self, key: tuple[Any, ...], edge: Edge) -> Edge:
        _keep(self._cache, key, edge)
        return edge


def _keep(cache: dict[K, E], key: K, edge: E, *more: bytes) -> None:
    """Remember an edge, unless a part of the key (or more of it) is longer than names are."""
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    parts = (*key, *more) if isinstance(key, tuple) else (key, *more)
    if all(len(part) <= _LONGEST_NAME for part in parts if isinstance(part, str | bytes)):
        cache[key] = edge


def _all_begin(lines: Sequence[bytes], head: bytes) -> bool:
    if len(lines) == 1:
        return lines[0].startswith(head)
    return sum(map(_begins, lines, repeat(head))) == len(lines)


def is_client(address: str) -> bool:
    """Whether an address is of a client, which is no worker and stores no counts."""
    return address.startswith(_CLIENT)


def kind_of_address(address: str) -> str:
    """The address, or the kind of those that are made up at each start, or are no addresses."""
    name, at, runner = address.partition("@")  # a child's is name@runner
    kind = _KINDS.get(name[: name.find("-") + 1])
    if kind is not None:
        return kind
    return _short(f"{name}{at}{_KINDS.get(runner[: runner.find('-') + 1], runner)}")


def _short(name: str) -> str:
    """A name; OTHER for what is too long for one, as strangers may invent."""
    return name if len(name) <= _LONGEST_NAME else OTHER


def _by_head(lines: Sequence[bytes]) -> list[tuple[bytes, Sequence[bytes]]]:
    """Encoded messages by what they begin with, up to the source.

    Most payloads have messages of one type and one source, so they are compared all at once.
    """
    groups: list[tuple[bytes, Sequence[bytes]]] = []
    left = lines
    for _ in range(_PASSES):
        if not left:
            return groups
        head, _ = origin_of(left[0])
        if _all_begin(left, head):
            return [*groups, (head, left)]
        groups.append((head, [line for line in left if line.startswith(head)]))
        left = [line for line in left if not line.startswith(head)]
    others: dict[bytes, list[bytes]] = {}
    for line in left:
        others.setdefault(origin_of(line)[0], []).append(line)
    return [*groups, *others.items()]
