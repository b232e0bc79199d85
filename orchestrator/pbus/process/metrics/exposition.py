"""Metrics of a project as text for Prometheus: names, labels and buckets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from pbus.observe import WorkerRow
from pbus.stats.edge_table import OTHER
from pbus.stats.histogram import UNIT_S, Histogram
from pbus.stats.merged_stats import MergedStats
from pbus.stats.stats_record import EdgeCounts, JobCounts, folded

MAX_SERIES_EDGES: Final = 2_000  # of messages, and as many of jobs; the others count together
# Powers of two of the histograms' unit, so that counts are exact: 51 us to 3.8 h.
_BOUNDS: Final = tuple((1 << power) * UNIT_S for power in range(9, 39, 2))
_EDGE: Final = ("source", "target", "type")
_JOB: Final = ("requester", "worker", "job")
_OPENMETRICS: Final = "application/openmetrics-text"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The values to be told.

    Attributes:
        is_connected: Whether the broker answered; the counts are empty otherwise.
        rows: The workers of the supervisor.
        stats: The counts of all processes.
    """

    is_connected: bool
    rows: Sequence[WorkerRow]
    stats: MergedStats


def metrics_text(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The text of a snapshot, and its content type.

    Args:
        snapshot: The values.
        accept: The types that the client takes.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshots(snapshot))
    if _OPENMETRICS in accept:
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_PLAIN_0_0_4


class _Snapshots(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        snapshot = self._snapshot
        yield _gauge(
            "pbus_broker_connected", "Whether the broker answers.", [((), snapshot.is_connected)]
        )
        yield from _workers(snapshot.rows)
        yield from _messages(_bounded_edges(snapshot.stats))
        yield from _jobs(_bounded_jobs(snapshot.stats))

    def describe(self) -> Iterable[Metric]:
        """Nothing: there is no other collector to clash with."""
        return ()


def _workers(rows: Sequence[WorkerRow]) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: Callable[[WorkerRow], float | None]) -> Metric:
        return _gauge(name, text, [((row.name,), value(row)) for row in rows], ("worker",))

    yield gauge("pbus_worker_ready", "Whether the worker is ready.", lambda row: row.ready)
    yield _gauge(
        "pbus_worker_state",
        "1 for the state of the worker.",
        [((row.name, row.state), 1) for row in rows],
        ("worker", "state"),
    )
    yield gauge(
        "pbus_worker_memory_bytes", "Resident memory of its processes.", lambda row: row.rss_bytes
    )
    yield gauge(
        "pbus_worker_cpu_ratio",
        "Use of one core.",
        lambda row: None if row.cpu_percent is None else row.cpu_percent / 100,
    )
    yield gauge("pbus_worker_queued_messages", "Messages that wait in it.", lambda row: row.queued)
    restarts = [((row.name,), float(row.restarts or 0)) for row in rows]
    yield _counter("pbus_worker_restarts", "Starts after the first one.", restarts, ("worker",))


def _messages(edges: Sequence[EdgeCounts]) -> Iterator[Metric]:
    for name, text, field in (
        ("pbus_messages_sent", "Messages that workers sent.", "sent"),
        ("pbus_messages_sent_bytes", "Their bytes, encoded.", "sent_bytes"),
        ("pbus_messages_undelivered", "Those of them that reached no process.", "undelivered"),
        ("pbus_messages_lost", "Messages noticed missing on the way.", "lost"),
        ("pbus_messages_handled", "Messages whose handler has ended.", "handled"),
        ("pbus_messages_failed", "Those of them whose handler raised.", "errors"),
    ):
        yield _counter(name, text, [(one.key, getattr(one, field)) for one in edges], _EDGE)
    yield _histogram(
        "pbus_message_wait_seconds",
        "From the making of a message to the start of its handling.",
        [(one.key, one.wait) for one in edges],
        _EDGE,
    )
    yield _histogram(
        "pbus_message_handling_seconds",
        "Time of handling a message.",
        [(one.key, one.handling) for one in edges],
        _EDGE,
    )


def _jobs(jobs: Sequence[JobCounts]) -> Iterator[Metric]:
    outcomes = [
        ((*job.key, outcome), float(count))
        for job in jobs
        for outcome, count in sorted(job.outcomes.items())
    ]
    yield _counter("pbus_jobs", "Jobs that ended.", outcomes, (*_JOB, "outcome"))
    yield _histogram(
        "pbus_job_latency_seconds",
        "From the request of a job to its outcome.",
        [(job.key, job.latency) for job in jobs],
        _JOB,
    )


def _bounded_edges(stats: MergedStats) -> list[EdgeCounts]:
    rest = EdgeCounts(source=OTHER, target=OTHER, type=OTHER)
    edges = [one.counts for one in stats.edges]
    return edges if len(edges) <= MAX_SERIES_EDGES else folded(edges, MAX_SERIES_EDGES, rest)


def _bounded_jobs(stats: MergedStats) -> list[JobCounts]:
    rest = JobCounts(requester=OTHER, worker=OTHER, name=OTHER)
    jobs = stats.jobs
    return jobs if len(jobs) <= MAX_SERIES_EDGES else folded(jobs, MAX_SERIES_EDGES, rest)


def _gauge(
    name: str,
    text: str,
    samples: Sequence[tuple[Sequence[str], float | None]],
    labels: Sequence[str] = (),
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def _counter(
    name: str,
    text: str,
    samples: Sequence[tuple[Sequence[str], float]],
    labels: Sequence[str],
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def _histogram(
    name: str, text: str, samples: Sequence[tuple[Sequence[str], Histogram]], labels: Sequence[str]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in samples:
        buckets = [(f"{bound:.6g}", histogram.count_to(bound)) for bound in _BOUNDS]
        family.add_metric(values, [*buckets, ("+Inf", histogram.count)], histogram.sum_s)
    return family
