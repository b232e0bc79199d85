"""The edges of a project: the records of its processes, merged."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from pbus.errors import MessageDecodeError
from pbus.names import stands_for
from pbus.stats.edge_table import OTHER, UNKNOWN_TYPE
from pbus.stats.stats_record import EdgeCounts, JobCounts, StatsRecord, decode_stats

UNKNOWN_SENDER: Final = "(unknown)"  # of lost messages: its process has ended


class MergedEdge(msgspec.Struct, kw_only=True):
    """One edge of a project.

    Attributes:
        counts: Since the beginning of the session, by all processes.
        sent_rate: Messages that were sent, a second, over the last 10 s; handled_rate likewise.
        bytes_rate: Bytes that were sent, likewise.
    """

    counts: EdgeCounts
    sent_rate: float = 0.0
    handled_rate: float = 0.0
    bytes_rate: float = 0.0

    @property
    def rate(self) -> float:
        """Messages a second: as sent; where the sender counts nothing, as a client, as handled."""
        return self.sent_rate if self.counts.sent else self.handled_rate


class MergedStats(msgspec.Struct, kw_only=True):
    """All edges of a project.

    Attributes:
        edges: Of messages, by source, target and type.
        jobs: By requester, worker and name.
        processes: The number of processes that reported.
        unreadable: The number of records that are none.
    """

    edges: list[MergedEdge] = []
    jobs: list[JobCounts] = []
    processes: int = 0
    unreadable: int = 0

    def of_workers(self, names: Collection[str]) -> "MergedStats":
        """The edges from and to workers or groups of these names; all without names."""
        if not names:
            return self

        def is_meant(*ends: str) -> bool:
            return any(stands_for(name, end) for name in names for end in ends)

        return msgspec.structs.replace(
            self,
            edges=[one for one in self.edges if is_meant(one.counts.source, one.counts.target)],
            jobs=[one for one in self.jobs if is_meant(one.requester, one.worker)],
        )

    @property
    def names(self) -> set[str]:
        """All sources and targets."""
        ends = {end for one in self.edges for end in (one.counts.source, one.counts.target)}
        ends |= {end for one in self.jobs for end in (one.requester, one.worker)}
        return ends - {OTHER, UNKNOWN_SENDER}


def merge_stats(bodies: Mapping[str, bytes], is_alive: Callable[[str], bool]) -> MergedStats:
    """Merge the records of processes.

    Args:
        bodies: Records by the name of the first worker of each process.
        is_alive: Tells whether a process of an incarnation runs; others have no rates.
    """
    merged = MergedStats()
    records = _read(bodies, merged)
    senders = {record.incarnation: name for name, record in records.items()}
    edges: dict[tuple[str, str, str], MergedEdge] = {}
    jobs: dict[tuple[str, str, str], JobCounts] = {}
    for record in records.values():
        window_s = record.window_s if is_alive(record.incarnation) else 0.0
        for counts in record.edges:
            if counts.type == UNKNOWN_TYPE:
                counts.source = senders.get(counts.source, UNKNOWN_SENDER)
            _add(edges, counts, window_s)
        for job in record.jobs:
            known = jobs.setdefault(job.key, job)
            if known is not job:
                known.merge(job)
    merged.edges = [edges[key] for key in sorted(edges)]
    merged.jobs = [jobs[key] for key in sorted(jobs)]
    return merged


def _read(bodies: Mapping[str, bytes], merged: MergedStats) -> dict[str, StatsRecord]:
    records: dict[str, StatsRecord] = {}
    for name, body in sorted(bodies.items()):
        try:
            records[name] = decode_stats(body)
        except MessageDecodeError:
            merged.unreadable += 1
    merged.processes = len(records)
    return records


def _add(
    edges: dict[tuple[str, str, str], MergedEdge], counts: EdgeCounts, window_s: float
) -> None:
    known = edges.get(counts.key)
    if known is None:
        known = edges[counts.key] = MergedEdge(counts=counts)
        recent = (counts.recent_sent, counts.recent_handled, counts.recent_bytes)
    else:
        recent = (counts.recent_sent, counts.recent_handled, counts.recent_bytes)
        known.counts.merge(counts)
    if window_s > 0:
        known.sent_rate += recent[0] / window_s
        known.handled_rate += recent[1] / window_s
        known.bytes_rate += recent[2] / window_s
