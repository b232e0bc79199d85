"""All that the interactive display shows, as of one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pbus.bus.queues.store import QueueStats
from pbus.client.traffic.edge_stats import EdgeStats, JobStats
from pbus.jobs.listing import JobEntry
from pbus.observe import WorkerRow
from pbus_cli.views.log_lines import LogEntry
from pbus_cli.views.tables.queue_table import DeadRow
from pbus_cli.views.traffic import Passed


@dataclass(frozen=True)
class Failure:
    """A worker that was given up, and its last word."""

    worker: str
    reason: str


@dataclass(frozen=True)
class Folded:
    """Messages that pass too often to be shown one by one.

    Attributes:
        source: A worker, or a group for all of its replicas.
        target: Likewise; None for everyone.
        count: Messages since the start.
        rate: Messages a second.
        bytes_rate: Bytes a second.
        latest: Some of the newest, newest last.
        is_reached: A process was there to take the newest ones.
    """

    source: str
    target: str | None
    type: str
    count: int
    rate: float
    bytes_rate: float
    latest: tuple[Passed, ...] = ()
    is_reached: bool = True


@dataclass(frozen=True)
class Edge:
    """The figures of an edge, and its rates over time.

    Attributes:
        rates: Messages a second, oldest first.
    """

    stats: EdgeStats
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class DeadItem:
    """A dead letter: its row, and the message as indented JSON."""

    row: DeadRow
    text: str


@dataclass(frozen=True)
class Snapshot:
    """All that the display shows.

    Attributes:
        bus: Where the broker is, password masked; None before it is up.
        messages: Those that are not folded, newest last, as many as are kept.
        folded: Those that are, by edge.
        passed: How many messages passed since the start.
        missed: Messages that were not seen.
        logs: Newest last, as many as are kept.
        logged: How many log lines came since the start.
        last_words: The last lines of workers that were given up.
        queues: Stored messages by worker; None where delivery is at most once.
        jobs: None as long as they were not asked for.
        dead: None likewise.
        foot: What is going on; empty for nothing.
        is_bus_lost: The broker is away.
    """

    project: str
    bus: str | None
    uptime_s: float
    rows: tuple[WorkerRow, ...] = ()
    messages: tuple[Passed, ...] = ()
    folded: tuple[Folded, ...] = ()
    passed: int = 0
    per_second: float = 0.0
    missed: int = 0
    logs: tuple[LogEntry, ...] = ()
    logged: int = 0
    failures: tuple[Failure, ...] = ()
    last_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    queues: Mapping[str, QueueStats] | None = None
    edges: tuple[Edge, ...] = ()
    job_stats: tuple[JobStats, ...] = ()
    jobs: tuple[JobEntry, ...] | None = None
    dead: tuple[DeadItem, ...] | None = None
    foot: str = ""
    is_bus_lost: bool = False
