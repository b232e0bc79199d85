"""Asking all runners which jobs are open, and the requester of one to cancel it."""

import asyncio
import contextlib
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import JobNotFoundError
from pbus.ids import new_token
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


class SilentRunner(msgspec.Struct, frozen=True):
    """A runner that did not answer in time, and the workers it hosts."""

    runner: str
    workers: tuple[str, ...]


class Findings(msgspec.Struct, frozen=True):
    """The open jobs, as far as runners told of them."""

    jobs: list[JobEntry]
    silent: list[SilentRunner]


class Census(BusSubscriber):
    """Asks and gathers the answers, under an address that only this command has.

    Args:
        bus: Started; subscribe this to it.
    """

    is_durable = False

    def __init__(self, bus: WorkerBus) -> None:
        self.name = f"cli-{new_token(32)}"
        self._bus = bus
        self._answers: list[OpenJobs] = []
        self._left: dict[str, int] = {}  # runner: messages still to come
        self._expected: set[str] = set()
        self._complete = asyncio.Event()
        self._outcome: asyncio.Queue[CancelOutcome] = asyncio.Queue(1)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep an answer."""
        if isinstance(message, BusJobsResponseMessage):
            self._answers.append(message.jobs)
            left = self._left.get(message.runner, message.parts) - 1
            self._left[message.runner] = left
            if left == 0:
                self._expected.discard(message.runner)
            if not self._expected:
                self._complete.set()
        elif isinstance(message, BusJobCancelResponseMessage):
            await self._outcome.put(message.outcome)

    async def take(self, within_s: float = ASK_S) -> Findings:
        """Ask everybody, and wait until all have answered or time is up."""
        hosted: dict[str, list[str]] = {}
        for lease in await self._bus.leases.leases():
            hosted.setdefault(lease.runner, []).append(lease.name)
        self._expected = set(hosted)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._bus.send(BusJobsRequestMessage(source=self.name))
                if hosted:
                    await self._complete.wait()
        silent = [
            SilentRunner(runner, tuple(sorted(hosted[runner]))) for runner in sorted(self._expected)
        ]
        return Findings(merge_jobs(self._answers), silent)

    async def cancel(self, entry: JobEntry, reason: str) -> CancelOutcome:
        """Ask the requester of a job to cancel it.

        Raises:
            TimeoutError: It did not answer.
        """
        await self._bus.send(
            BusJobCancelRequestMessage(
                source=self.name, target=entry.requester, job_id=entry.job_id, reason=reason
            )
        )
        try:
            async with asyncio.timeout(CANCEL_S):
                return await self._outcome.get()
        except TimeoutError:
            problem = (
                f"{entry.requester}, who asked for job {entry.job_id}, "
                f"did not answer within {CANCEL_S:g} s"
            )
            raise TimeoutError(problem) from None


def find_job(job_id: str, found: Findings) -> JobEntry:
    """The job of that id; one that several workers do is cancelled as one.

    Raises:
        JobNotFoundError: No runner that answered knows it.
    """
    for entry in found.jobs:
        if job_id in {entry.job_id, entry.wire_id}:
            return entry
    raise JobNotFoundError(job_id, [one.runner for one in found.silent])
