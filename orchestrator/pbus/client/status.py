"""The workers of a project: what supervisors and the registry say of them, and their queues."""

import time
from collections.abc import Mapping
from typing import Self

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.queues.store import QueueStats
from pbus.leases import Lease
from pbus.names import group_of
from pbus.observe import (
    HostRecord,
    WorkerRow,
    decode_records,
    merge_rows,
    moved_clocks,
    refused_strangers,
    unreached_strangers,
)


class WorkerStatus(WorkerRow, frozen=True, kw_only=True):
    """One worker, with the fields of `pbus ps --json`.

    Attributes:
        queue: What is stored for it; None where the bus stores nothing.
    """

    queue: QueueStats | None = None

    @classmethod
    def of(cls, row: WorkerRow, queues: Mapping[str, QueueStats] | None) -> Self:
        """A row with its queue."""
        queue = None if queues is None else queues.get(row.name) or QueueStats(name=row.name)
        return cls(**msgspec.structs.asdict(row), queue=queue)


class ProjectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All workers of a project at one moment.

    Attributes:
        project: The project's name.
        bus: The broker's address, its password masked.
        rows: One a worker: supervised ones first, in the order of the topology.
        queues: What is stored, by the worker's or the group's name; None where nothing is.
        remarks: What else is to be known, a sentence each: clocks that differ, refused payloads.
    """

    project: str
    bus: str
    rows: list[WorkerRow]
    queues: dict[str, QueueStats] | None = None
    remarks: list[str] = []

    @property
    def workers(self) -> list[WorkerStatus]:
        """The workers, each with its queue."""
        return [WorkerStatus.of(row, self.queues) for row in self.rows]

    @property
    def shared_queues(self) -> list[QueueStats]:
        """The queues that replicas share, each once."""
        queues = self.queues or {}
        groups = dict.fromkeys(group_of(row.name) for row in self.rows)
        return [queues[group] for group in groups if group is not None and group in queues]


async def read_facts(bus: WorkerBus) -> tuple[list[Lease], list[HostRecord]]:
    """The leases of the registry and the records of supervisors, as of now.

    Raises:
        BusUnavailableError: The broker does not answer.
    """
    leases = await bus.leases.leases()
    return leases, decode_records(await bus.leases.records())


async def read_queues(bus: WorkerBus) -> dict[str, QueueStats] | None:
    """The queues, by name; None where the bus stores nothing."""
    if bus.queues is None:
        return None
    return {report.name: report for report in await bus.queues.stats()}


async def read_status(bus: WorkerBus, project: str) -> ProjectStatus:
    """The workers on a bus, as of now.

    Raises:
        BusUnavailableError: The broker does not answer.
    """
    leases, hosts = await read_facts(bus)
    return ProjectStatus(
        project=project,
        bus=bus.url,
        rows=merge_rows(leases, hosts, time.time()),
        queues=await read_queues(bus),
        remarks=[
            *moved_clocks(leases).values(),
            *refused_strangers(leases),
            *unreached_strangers(leases, hosts),
        ],
    )
