"""A row for each project that runs on this machine, asked over its own bus."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from pbus.client.attachment import attachment_of, refuse_unseen
from pbus.client.status import read_facts
from pbus.errors import BusError, UnseenProjectError
from pbus.observe import merge_rows
from pbus.process.project.record import ProjectRecord
from pbus.urls import mask_url
from pbus_cli.views.tables.project_table import ProjectRow

_ASK_S: Final = 1.5  # a project whose broker takes longer is listed without its workers


async def summarize(records: Sequence[ProjectRecord]) -> list[ProjectRow]:
    """One row a project; all are asked at the same time."""
    counts = await asyncio.gather(*(_count(record) for record in records))
    now = time.time()
    return [
        ProjectRow(
            name=record.name,
            folder=record.folder,
            file=record.file,
            pid=record.pid,
            ready=ready,
            workers=workers,
            uptime_s=round(max(0.0, now - record.started_at), 1),
            bus=mask_url(record.bus.url or ""),
        )
        for record, (ready, workers) in zip(records, counts, strict=True)
    ]


async def _count(record: ProjectRecord) -> tuple[int | None, int | None]:
    """The numbers of ready and of all workers; unknown where the bus does not answer."""
    try:
        refuse_unseen(record)
        async with asyncio.timeout(_ASK_S):
            return await _ask(record)
    except (BusError, UnseenProjectError, TimeoutError):
        return None, None


async def _ask(record: ProjectRecord) -> tuple[int | None, int | None]:
    async with attachment_of(record).opened() as bus:
        leases, hosts = await read_facts(bus)
    own = [host for host in hosts if host.session == record.session and host.pid == record.pid]
    if not own:
        return None, None
    names = {process.name for host in own for process in host.processes}
    rows = [row for row in merge_rows(leases, own, time.time()) if row.name in names]
    return sum(row.ready for row in rows), len(rows)
