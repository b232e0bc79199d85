"""The requester's side of a job's backpressure: telling workers how far their events were read."""

import contextlib

from pbus.errors import PbusError
from pbus.jobs.backpressure import Reading
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobMember
from pbus.jobs.requester.pending import PendingJobs
from pbus.messages import BusJobCreditMessage, BusJobCreditRequestMessage

NOBODY_READS = -1  # the position told of a job that is not open here


class Credits:
    """What a worker has read of the events of its jobs at others."""

    def __init__(self, links: WorkerContext, cases: PendingJobs) -> None:
        self._links = links
        self._cases = cases

    def reading(self, member: JobMember, source: str, position: int, *, has_queue: bool) -> Reading:
        """Where it is noted how far events are read of which one came, of that position."""
        reading = member.reading
        if reading is None or position <= reading.arrived:  # another life of the worker begins anew
            reading = member.reading = Reading(
                source, member.wire_id, member.window, has_queue=has_queue
            )
        return reading

    def tell(self, reading: Reading) -> None:
        """Tell a worker, soon, how far its events were read."""
        self._links.spawn(self._tell(reading.source, reading.wire_id, reading.granted))

    async def answer(self, message: BusJobCreditRequestMessage) -> None:
        """Tell a worker that waits how far its events were read."""
        found = self._cases.find(message.job_id, message.source)
        position, is_idle = NOBODY_READS, False
        if found is not None:
            reading = found[1].reading
            stats = self._links.bus.stats(self._links.name)
            position = 0 if reading is None else reading.granted
            is_read = reading is None or reading.read == reading.arrived
            is_idle = is_read and stats.queued == stats.held
        await self._tell(message.source, message.job_id, position, is_idle=is_idle)

    async def _tell(
        self, worker: str, wire_id: str, position: int, *, is_idle: bool = False
    ) -> None:
        with contextlib.suppress(PbusError):  # the worker asks again
            await self._links.send(
                BusJobCreditMessage(
                    source=self._links.address,
                    target=worker,
                    job_id=wire_id,
                    position=position,
                    is_idle=is_idle,
                )
            )
