"""The open jobs of all workers, and the cancelling of one by its requester."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client.addresses import CLIENT_PREFIX
from pbus.errors import JobNotCancelledError, JobNotFoundError, RequesterSilentError
from pbus.jobs.listing import (
    BusJobCancelRequestMessage,
    BusJobCancelResponseMessage,
    BusJobsRequestMessage,
    BusJobsResponseMessage,
    CancelOutcome,
    JobEntry,
    OpenJobs,
    merge_jobs,
)
from pbus.messages import BusMessage

ASK_S: Final = 1.0
CANCEL_S: Final = 2.0
_CLIENTS_S: Final = 0.2  # for clients to tell of labels, when all runners have answered
_PROBLEMS: Final = {
    "unknown": "is over",
    "not cancellable": "was requested as one that is not cancellable",
}


class SilentRunner(msgspec.Struct, frozen=True):
    """A runner that did not answer in time, and the workers it hosts."""

    runner: str
    workers: tuple[str, ...]


class OpenJobsResult(msgspec.Struct, frozen=True):
    """The open jobs, as far as runners told of them.

    Attributes:
        jobs: An entry for each worker at work on a job, oldest first.
        silent: The runners that did not answer.
    """

    jobs: list[JobEntry]
    silent: list[SilentRunner]

    def find(self, job_id: str) -> JobEntry:
        """The job of that id; one that several workers do is cancelled as one.

        Raises:
            JobNotFoundError: No runner that answered knows it.
        """
        for entry in self.jobs:
            if job_id in {entry.job_id, entry.wire_id}:
                return entry
        raise JobNotFoundError(job_id, [one.runner for one in self.silent])


class OpenJobsQuery(BusSubscriber):
    """Asks all runners for their open jobs, and gathers the answers.

    Args:
        bus: Started; subscribe this to it.
        name: Its address.
    """

    is_durable = False

    def __init__(self, bus: WorkerBus, name: str) -> None:
        self.name = name
        self._bus = bus
        self._answers: list[OpenJobs] = []
        self._left: dict[str, int] = {}  # runner: messages still to come
        self._expected: set[str] = set()
        self._heard = asyncio.Event()
        self._outcome: asyncio.Queue[CancelOutcome] = asyncio.Queue(1)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep an answer."""
        if isinstance(message, BusJobsResponseMessage):
            self._answers.append(message.jobs)
            left = self._left.get(message.runner, message.parts) - 1
            self._left[message.runner] = left
            if left == 0:
                self._expected.discard(message.runner)
            self._heard.set()
        elif isinstance(message, BusJobCancelResponseMessage):
            await self._outcome.put(message.outcome)

    async def run(self, within_s: float = ASK_S) -> OpenJobsResult:
        """Ask all runners, and wait until all have answered or time is up."""
        hosted: dict[str, list[str]] = {}
        for lease in await self._bus.leases.leases():
            hosted.setdefault(lease.runner, []).append(lease.name)
        self._expected = set(hosted)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._bus.send(BusJobsRequestMessage(source=self.name))
                await self._until(lambda: not self._expected)
                async with asyncio.timeout(_CLIENTS_S):
                    await self._until(lambda: not self._silent_clients())
        silent = [
            SilentRunner(runner, tuple(sorted(hosted[runner]))) for runner in sorted(self._expected)
        ]
        return OpenJobsResult(merge_jobs(self._answers), silent)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._heard.clear()
            await self._heard.wait()

    def _silent_clients(self) -> set[str]:
        """Clients that requested jobs and have not told of them; they may have left since."""
        requesters = {entry.requester for jobs in self._answers for entry in jobs.accepted}
        return {name for name in requesters - set(self._left) if name.startswith(CLIENT_PREFIX)}

    async def cancel(self, entry: JobEntry, reason: str | None) -> None:
        """Ask the requester of a job to cancel it.

        Raises:
            JobNotCancelledError: It is over, or not cancellable.
            RequesterSilentError: The requester did not answer.
        """
        await self._bus.send(
            BusJobCancelRequestMessage(
                source=self.name, target=entry.requester, job_id=entry.job_id, reason=reason
            )
        )
        try:
            async with asyncio.timeout(CANCEL_S):
                outcome = await self._outcome.get()
        except TimeoutError:
            raise RequesterSilentError(entry.job_id, entry.requester, CANCEL_S) from None
        if outcome != "cancelled":
            raise JobNotCancelledError(entry.job_id, outcome, _PROBLEMS[outcome])
