"""The metrics of a supervisor: what its endpoint answers, from its own record and the broker."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.leases import Lease, process_of
from pbus.observe import HostRecord, WorkerRow, merge_rows
from pbus.process.metrics.http_endpoint import HttpEndpoint, Request, Response
from pbus.process.supervisor.bus_calls import BusCalls
from pbus.stats.merged_stats import MergedStats, merge_stats
from pbus.topology.policy.policies import MetricsSpec

_FRESH_S: Final = 1.0  # several scrapers within it share one reading
_READ_S: Final = 3.0  # for the broker; then it counts as away

Record = Callable[[], HostRecord]


async def open_metrics(
    stack: contextlib.AsyncExitStack, spec: MetricsSpec | None, bus: WorkerBus, record: Record
) -> None:
    """Serve the metrics of a supervisor until the stack is closed; nothing without a spec.

    Args:
        stack: Closes the endpoint.
        spec: Where to listen.
        bus: The supervisor's, started or not.
        record: Returns the state of its workers.

    Raises:
        ListenError: The address cannot be had.
    """
    if spec is not None:
        server = MetricsServer(bus, record)
        endpoint = HttpEndpoint(spec.host, spec.port, server.routes)
        await endpoint.open()
        stack.push_async_callback(endpoint.close)


class MetricsServer:
    """Answers `/metrics`, `/livez` and `/readyz`.

    Args:
        bus: The supervisor's.
        record: Returns the state of its workers.
    """

    def __init__(self, bus: WorkerBus, record: Record) -> None:
        self._bus = bus
        self._record = record
        self._calls = BusCalls()
        self._turn = asyncio.Lock()
        self._stats = MergedStats()
        self._leases: list[Lease] | None = None
        self._texts: dict[str, Response] = {}  # of one reading, by what clients accept
        self._read_at = float("-inf")
        self.routes = {"/metrics": self.metrics, "/livez": self.live, "/readyz": self.ready}

    async def live(self, request: Request) -> Response:
        """Whether the supervisor runs: its loop answers."""
        del request
        return Response(200, b"ok\n")

    async def ready(self, request: Request) -> Response:
        """Whether all workers are ready, or have done their work, as `pbus up --wait` sees it."""
        del request
        leases = await self._calls.result("read the registry", self._read_leases(), _READ_S)
        if leases is None:
            return Response(503, b"the broker is away\n")
        done = {one.name for one in self._record().processes if one.has_succeeded}
        late = [
            f"{row.name}: {row.state}\n"
            for row in self._rows(leases)
            if row.state != "ready" and row.name not in done
        ]
        return Response(503, "".join(late).encode()) if late else Response(200, b"ready\n")

    async def metrics(self, request: Request) -> Response:
        """All metrics, read at most once a second."""
        # Loaded when it is used: it takes 0.1 s.
        from pbus.process.metrics.exposition import Snapshot, metrics_text  # noqa: PLC0415

        async with self._turn:
            if time.monotonic() - self._read_at > _FRESH_S:
                await self._read()
            key = "openmetrics" if "openmetrics" in request.accept else "text"
            if key not in self._texts:
                snapshot = Snapshot(
                    is_connected=self._leases is not None,
                    rows=self._rows(self._leases or []),
                    stats=self._stats,
                )
                # In a thread: a large project has a hundred thousand lines.
                body, kind = await asyncio.to_thread(metrics_text, snapshot, request.accept)
                self._texts[key] = Response(200, body, kind)
            return self._texts[key]

    async def _read(self) -> None:
        self._leases = await self._calls.result("read the registry", self._read_leases(), _READ_S)
        bodies: dict[str, bytes] = {}
        if self._leases is not None:
            read = self._bus.leases.stats()
            bodies = await self._calls.result("read the counts", read, _READ_S) or {}
        alive = {process_of(lease.incarnation) for lease in self._leases or ()}
        self._stats = await asyncio.to_thread(merge_stats, bodies, alive.__contains__)
        self._texts = {}
        self._read_at = time.monotonic()

    async def _read_leases(self) -> list[Lease]:
        return await self._bus.leases.leases()

    def _rows(self, leases: list[Lease]) -> list[WorkerRow]:
        """The rows of the own workers; those of other supervisors have endpoints of their own."""
        record = self._record()
        own = {one.name for one in record.processes}
        return [row for row in merge_rows(leases, [record], time.time()) if row.name in own]
