"""A runner's answer to those who ask which jobs are open."""

import logging
from collections.abc import Iterable, Iterator

from pbus.bus.base import WorkerBus
from pbus.errors import PbusError
from pbus.jobs.listing import BusJobsRequestMessage, BusJobsResponseMessage, JobEntry, OpenJobs
from pbus.runner.hosted_worker import Worker

logger = logging.getLogger(__name__)

_PART = 500  # entries a message: far below any limit of its size


async def reply_with_open_jobs(
    bus: WorkerBus, runner: str, workers: Iterable[Worker], request: BusJobsRequestMessage
) -> None:
    """Tell whoever asked of the open jobs of these workers."""
    found = [worker.open_jobs() for worker in workers]
    asked = [entry for jobs in found for entry in jobs.asked]
    in_hand = [entry for jobs in found for entry in jobs.in_hand]
    parts = list(_in_parts(asked, in_hand))
    try:
        for part in parts:
            await bus.send(
                BusJobsResponseMessage(
                    source=runner,
                    target=request.source,
                    runner=runner,
                    jobs=part,
                    parts=len(parts),
                )
            )
    except PbusError as error:
        logger.warning("%s is not told of open jobs: %s", request.source, error)


def _in_parts(asked: list[JobEntry], in_hand: list[JobEntry]) -> Iterator[OpenJobs]:
    for start in range(0, max(len(asked), len(in_hand), 1), _PART):
        end = start + _PART
        yield OpenJobs(asked=tuple(asked[start:end]), in_hand=tuple(in_hand[start:end]))
