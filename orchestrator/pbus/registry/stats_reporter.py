"""The reports of one process: its counts by edge, stored with each heartbeat beside its leases."""

import asyncio
import logging
import time

from pbus.bus.base import WorkerBus
from pbus.errors import BusUnavailableError, MessageDecodeError
from pbus.leases import HEARTBEAT_S
from pbus.registry.own_leases import STORE_TIMEOUT_S, OwnLeases
from pbus.stats.stats_record import (
    STATS_TTL_S,
    StatsReports,
    decode_stats,
    encode_stats,
)

logger = logging.getLogger(__name__)

_REFRESH_S = STATS_TTL_S / 4  # unchanged counts are stored again after so long


class StatsReporter:
    """Stores the counts of this process under the name of its first root worker.

    The counts are cumulative, so a report that is lost costs nothing, and they go on from those of the
    worker's earlier incarnation in the same session: after a kill at most the last beat is missing.

    Args:
        bus: Has the counts, if it counts; its broker stores the reports.
        leases: The leases of this runner.
        session: Of its workers.
    """

    def __init__(self, bus: WorkerBus, leases: OwnLeases, session: str | None) -> None:
        self._bus = bus
        self._leases = leases
        self._reports: StatsReports | None = None
        if bus.edges is not None:
            self._reports = StatsReports(bus.edges, bus.incarnation, session)
        self._key: str | None = None
        self._stored = b""
        self._stored_at = 0.0

    async def run(self) -> None:
        """Report every HEARTBEAT_S until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self.report()

    async def report(self) -> None:
        """Store the counts, if they changed. Never raises."""
        if self._reports is None or not self._bus.is_connected:
            return
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._report(self._reports)
        except (BusUnavailableError, TimeoutError) as error:
            logger.debug("counts are left to the next report: %s", error)
        except Exception:
            logger.exception("counts cannot be reported: a bug in pbus; the next report follows")

    async def _report(self, reports: StatsReports) -> None:
        if self._key is None:
            name = self._leases.first_name
            if name is None:
                return
            found = await self._bus.leases.stats(name)
            _restore(reports, found.get(name))
            self._key = name
        now = time.monotonic()
        record = reports.next_record(now)
        body = encode_stats(record)
        if body == self._stored and now - self._stored_at < _REFRESH_S:
            return
        await self._bus.leases.put_stats(self._key, body, ttl_s=STATS_TTL_S)
        self._stored, self._stored_at = body, now


def _restore(reports: StatsReports, body: bytes | None) -> None:
    if body is None:
        return
    try:
        reports.restore(decode_stats(body))
    except MessageDecodeError as error:
        logger.warning("the counts of an earlier incarnation are left out: %s", error)
