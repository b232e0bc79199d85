"""The edges of a project, as processes counted them: rates, times, errors and losses."""

from collections.abc import Collection
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.leases import process_of
from pbus.names import unknown_name, with_groups
from pbus.stats.histogram import Histogram
from pbus.stats.merged_stats import MergedEdge, MergedStats, merge_stats
from pbus.stats.stats_record import JobCounts

_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Quantiles(msgspec.Struct, frozen=True):
    """Durations in seconds that 50, 95 and 99 % of all do not exceed, within 6.25 %."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, histogram: Histogram) -> "Quantiles | None":
        """Those of a histogram; None where nothing was timed."""
        if not histogram.count:
            return None
        return cls(**{name: histogram.quantile(share) or 0.0 for name, share in _SHARES.items()})


class EdgeStats(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one type from one source to one target, since the beginning of the session.

    Attributes:
        source: A worker; "cli-*" stands for all clients, "runner-*" for processes that host workers.
        target: A worker, a group, or "*" for everyone.
        type: The name of the type; "" for lost messages, of which it is not known.
        rate: Messages a second, over the last 10 s.
        bytes_rate: Bytes a second, as sent.
        sent: Messages that were sent; 0 where the sender counts nothing, as a client.
        bytes: Their bytes, encoded; those that stay within a process have none.
        handled: Messages whose handler has ended, each receiver of a broadcast counted.
        errors: Those whose handler raised.
        lost: Messages that were noticed missing on the way.
        undelivered: Messages that reached no process.
        wait_s: From the making of a message to the start of its handling.
        handling_s: Of handling it.
    """

    source: str
    target: str
    type: str
    rate: float
    bytes_rate: float
    sent: int
    bytes: int
    handled: int
    errors: int
    lost: int
    undelivered: int
    wait_s: Quantiles | None
    handling_s: Quantiles | None

    @classmethod
    def of(cls, edge: MergedEdge) -> "EdgeStats":
        """The figures of an edge."""
        counts = edge.counts
        return cls(
            source=counts.source,
            target=counts.target,
            type=counts.type,
            rate=edge.rate,
            bytes_rate=edge.bytes_rate,
            sent=counts.sent,
            bytes=counts.sent_bytes,
            handled=counts.handled,
            errors=counts.errors,
            lost=counts.lost,
            undelivered=counts.undelivered,
            wait_s=Quantiles.of(counts.wait),
            handling_s=Quantiles.of(counts.handling),
        )


class JobStats(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one name that one requester asked one worker for.

    Attributes:
        outcomes: Counts by outcome: "completed", "failed", "error", "cancelled", "timeout", "lost".
        latency_s: From the request to the outcome; of a client's jobs from their acceptance.
    """

    requester: str
    worker: str
    name: str
    outcomes: dict[str, int]
    latency_s: Quantiles | None

    @classmethod
    def of(cls, job: JobCounts) -> "JobStats":
        """The figures of jobs."""
        return cls(
            requester=job.requester,
            worker=job.worker,
            name=job.name,
            outcomes=job.outcomes,
            latency_s=Quantiles.of(job.latency),
        )


class ProjectStats(msgspec.Struct, frozen=True, kw_only=True):
    """All edges of a project.

    Attributes:
        project: The project's name.
        edges: Of messages, by source, target and type.
        jobs: By requester, worker and name.
        remarks: What else is to be known, a sentence each.
    """

    project: str
    edges: list[EdgeStats]
    jobs: list[JobStats]
    remarks: list[str] = []


async def read_merged(bus: WorkerBus) -> MergedStats:
    """The edges of all processes on a bus, as of their last heartbeats.

    Raises:
        BusUnavailableError: The broker does not answer.
    """
    leases = await bus.leases.leases()
    alive = {process_of(lease.incarnation) for lease in leases}
    return merge_stats(await bus.leases.stats(), alive.__contains__)


async def read_stats(bus: WorkerBus, project: str, workers: Collection[str] = ()) -> ProjectStats:
    """The edges of a project.

    Args:
        bus: Its bus, started.
        project: Its name.
        workers: Only edges from or to these workers or groups; all where none is given.

    Raises:
        BusUnavailableError: The broker does not answer.
        UnknownNameError: A name is of no worker that runs or was counted.
    """
    merged = await read_merged(bus)
    if workers:
        leases = await bus.leases.leases()
        _check_names(workers, merged.names | {lease.name for lease in leases})
    chosen = merged.of_workers(workers)
    remarks = []
    if merged.unreadable:
        count = merged.unreadable
        remarks.append(
            f"{count} records of counts are left out: another version of pbus wrote them"
        )
    if not merged.processes:
        remarks.append("no process has counted anything yet, or `bus.stats` is false")
    return ProjectStats(
        project=project,
        edges=[EdgeStats.of(edge) for edge in chosen.edges],
        jobs=[JobStats.of(job) for job in chosen.jobs],
        remarks=remarks,
    )


def _check_names(wanted: Collection[str], known: set[str]) -> None:
    names = with_groups(known)
    for name in wanted:
        if name not in names:
            raise unknown_name("worker", name, known)
