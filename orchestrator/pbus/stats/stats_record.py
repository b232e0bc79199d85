"""The record of one process' edges: cumulative, so that a lost one costs nothing."""

import math
from collections import deque
from typing import Annotated, Any, Final, TypeVar

import msgspec

from pbus.errors import MessageDecodeError
from pbus.stats.edge_table import OTHER, Edge, EdgeTable
from pbus.stats.histogram import TOP_INDEX, Histogram
from pbus.structs import DECODE_ERRORS

MAX_STATS_BYTES: Final = 128 * 1024  # of a record; the least used edges are folded to fit
STATS_TTL_S: Final = 3600.0  # the counts of a process that ended are kept so long
_LEAST_WINDOW_S: Final = 1e-3  # reports are seconds apart
_WINDOW: Final = 5  # reports that the rate is measured over

Count = Annotated[int, msgspec.Meta(ge=0)]
_COUNTED: Final = ("sent", "sent_bytes", "undelivered", "lost", "handled", "errors")


class EdgeCounts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Messages of one type from one source to one target; the fields are those of an `Edge`.

    Attributes:
        recent_sent: Those sent within the window of the record; recent_bytes: their bytes.
        recent_handled: Those handled within it.
    """

    source: str
    target: str
    type: str
    sent: Count = 0
    sent_bytes: Count = 0
    undelivered: Count = 0
    lost: Count = 0
    handled: Count = 0
    errors: Count = 0
    recent_sent: Count = 0
    recent_bytes: Count = 0
    recent_handled: Count = 0
    wait: Histogram = msgspec.field(default_factory=Histogram)
    handling: Histogram = msgspec.field(default_factory=Histogram)

    @property
    def key(self) -> tuple[str, str, str]:
        """Source, target and type."""
        return self.source, self.target, self.type

    @property
    def use(self) -> int:
        """The number of messages, each end counted."""
        return self.sent + self.handled

    def merge(self, other: "EdgeCounts") -> None:
        """Add the counts of another process, or of another edge."""
        for name in (*_COUNTED, "recent_sent", "recent_bytes", "recent_handled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wait.merge(other.wait)
        self.handling.merge(other.handling)


class JobCounts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Jobs of one name that one requester asked one worker for; the fields are those of a `JobEdge`."""

    requester: str
    worker: str
    name: str
    outcomes: dict[str, Count] = {}
    latency: Histogram = msgspec.field(default_factory=Histogram)

    @property
    def key(self) -> tuple[str, str, str]:
        """Requester, worker and name."""
        return self.requester, self.worker, self.name

    @property
    def use(self) -> int:
        """The number of jobs."""
        return self.latency.count

    def merge(self, other: "JobCounts") -> None:
        """Add the counts of another process, or of another edge."""
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        self.latency.merge(other.latency)


class StatsRecord(msgspec.Struct, kw_only=True):
    """All edges of one process, and of its earlier incarnations in the session.

    Attributes:
        incarnation: Of the process.
        session: Of its workers.
        window_s: Seconds that the recent counts are about.
    """

    incarnation: str
    session: str | None
    window_s: float = 0.0
    edges: list[EdgeCounts] = []
    jobs: list[JobCounts] = []


Counts = TypeVar("Counts", EdgeCounts, JobCounts)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StatsRecord).decode


def encode_stats(record: StatsRecord) -> bytes:
    """Encode a record; its least used edges are folded into one until it fits."""
    body = _encode(record)
    while len(body) > MAX_STATS_BYTES and max(len(record.edges), len(record.jobs)) > 1:
        record = msgspec.structs.replace(
            record, edges=_half_of_edges(record.edges), jobs=_half_of_jobs(record.jobs)
        )
        body = _encode(record)
    return body


def decode_stats(body: bytes) -> StatsRecord:
    """Decode a record.

    Raises:
        MessageDecodeError: It is none.
    """
    try:
        record = _decode(body)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(f"no record of edges ({error})") from error
    if (problem := _problem_of(record)) is not None:
        raise MessageDecodeError(f"no record of edges ({problem})")
    return record


def _problem_of(record: StatsRecord) -> str | None:
    """The reason why a decoded record is none: a value that no process writes."""
    histograms = [one for edge in record.edges for one in (edge.wait, edge.handling)]
    histograms += [job.latency for job in record.jobs]
    if not all(map(_has_own_buckets, histograms)):
        return "a histogram has other buckets"
    if not all(math.isfinite(one.sum_s) for one in histograms):
        return "a histogram has an endless sum"
    if record.window_s != 0.0 and not _LEAST_WINDOW_S <= record.window_s < math.inf:
        return "a window of no length"
    return None


def _has_own_buckets(histogram: Histogram) -> bool:
    buckets = histogram.buckets
    return all(0 <= index <= TOP_INDEX and count >= 0 for index, count in buckets.items())


def _half_of_edges(edges: list[EdgeCounts]) -> list[EdgeCounts]:
    rest = EdgeCounts(source=OTHER, target=OTHER, type=OTHER)
    return folded(edges, len(edges) // 2, rest) if edges else []


def _half_of_jobs(jobs: list[JobCounts]) -> list[JobCounts]:
    rest = JobCounts(requester=OTHER, worker=OTHER, name=OTHER)
    return folded(jobs, len(jobs) // 2, rest) if jobs else []


def folded(counts: list[Counts], count: int, rest: Counts) -> list[Counts]:
    """The most used ones, and one that has all others.

    Args:
        counts: Edges of messages, or of jobs.
        count: The number of those that stay.
        rest: The one for the others, empty; one of the same names is counted to it.
    """
    named: list[Counts] = [one for one in counts if one.key != rest.key]
    named.sort(key=_use_of, reverse=True)
    kept, others = named[:count], named[count:]
    others.extend(one for one in counts if one.key == rest.key)
    for one in others:
        rest.merge(one)
    kept.append(rest)
    return kept


def _use_of(counts: Counts) -> int:
    return counts.use


class StatsReports:
    """Makes the records of one process.

    Args:
        edges: Its counts.
        incarnation: The process's.
        session: Of its workers.
    """

    def __init__(self, edges: EdgeTable, incarnation: str, session: str | None) -> None:
        self._edges = edges
        self._incarnation = incarnation
        self._session = session
        self._earlier: deque[tuple[float, dict[tuple[str, str, str], EdgeCounts]]] = deque(
            maxlen=_WINDOW
        )

    def restore(self, record: StatsRecord) -> None:
        """Go on from the record of an earlier incarnation of the same session."""
        if record.session != self._session or record.incarnation == self._incarnation:
            return
        for counts in record.edges:
            edge = self._edges.edge(*counts.key)
            edge.restore(counts.handled)
            for name in _COUNTED:
                if name != "handled":
                    setattr(edge, name, getattr(edge, name) + getattr(counts, name))
            edge.wait.merge(counts.wait)
            edge.handling.merge(counts.handling)
        for job in record.jobs:
            known = self._edges.job_edge(*job.key)
            for outcome, count in job.outcomes.items():
                known.outcomes[outcome] = known.outcomes.get(outcome, 0) + count
            known.latency.merge(job.latency)

    def next_record(self, now: float) -> StatsRecord:
        """The record as of now; its window begins with the record five before.

        Args:
            now: Seconds; only differences matter.
        """
        current = {counts.key: counts for counts in map(_counts_of, self._edges.edges())}
        window_s = 0.0
        if self._earlier:
            since, before = self._earlier[0]
            window_s = now - since
            for key, counts in current.items():
                _set_recent(counts, before.get(key))
            if not any(one.recent_sent or one.recent_handled for one in current.values()):
                window_s = 0.0  # so that the records of an idle process are equal
        self._earlier.append((now, current))
        jobs = [
            JobCounts(
                requester=job.requester,
                worker=job.worker,
                name=job.name,
                outcomes=dict(job.outcomes),
                latency=_copy(job.latency),
            )
            for job in self._edges.job_edges()
        ]
        return StatsRecord(
            incarnation=self._incarnation,
            session=self._session,
            window_s=window_s,
            edges=list(current.values()),
            jobs=jobs,
        )


def _counts_of(edge: Edge) -> EdgeCounts:
    fields: dict[str, Any] = {
        name: getattr(edge, name) for name in ("source", "target", "type", *_COUNTED)
    }
    return EdgeCounts(**fields, wait=_copy(edge.wait), handling=_copy(edge.handling))


def _set_recent(counts: EdgeCounts, before: EdgeCounts | None) -> None:
    counts.recent_sent = counts.sent - (before.sent if before else 0)
    counts.recent_bytes = counts.sent_bytes - (before.sent_bytes if before else 0)
    counts.recent_handled = counts.handled - (before.handled if before else 0)


def _copy(histogram: Histogram) -> Histogram:
    return Histogram(dict(histogram.buckets), histogram.sum_s)
