"""The runner's answer to queries for open jobs."""

import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

from pbus.bus.base import WorkerBus
from pbus.errors import PbusError
from pbus.jobs.listing import BusJobsRequestMessage, BusJobsResponseMessage, JobEntry, OpenJobs

logger = logging.getLogger(__name__)

_PART = 500  # entries a message: far below any limit of its size


class HasJobs(Protocol):
    """A worker, or what else knows of open jobs."""

    def open_jobs(self) -> OpenJobs:
        """The open jobs that it requested or accepted."""
        ...


async def reply_with_open_jobs(
    bus: WorkerBus, runner: str, workers: Iterable[HasJobs], request: BusJobsRequestMessage
) -> None:
    """Send the open jobs of workers to the source of a query.

    Args:
        bus: The runner's.
        runner: The runner's name.
        workers: Of the runner.
        request: The query.
    """
    found = [worker.open_jobs() for worker in workers]
    requested = [entry for jobs in found for entry in jobs.requested]
    accepted = [entry for jobs in found for entry in jobs.accepted]
    parts = list(_in_parts(requested, accepted))
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
        logger.warning("the open jobs are not sent to %s: %s", request.source, error)


def _in_parts(requested: list[JobEntry], accepted: list[JobEntry]) -> Iterator[OpenJobs]:
    for start in range(0, max(len(requested), len(accepted), 1), _PART):
        end = start + _PART
        yield OpenJobs(requested=tuple(requested[start:end]), accepted=tuple(accepted[start:end]))
