"""WorkerRunner: hosts workers in this process and ends them in order."""

import asyncio
import logging
from typing import Any

from pbus.errors import DuplicateWorkerError, PbusError, RunnerStateError
from pbus.jobs.listing import BusJobsRequestMessage
from pbus.messages import (
    BusAddWorkerMessage,
    BusCancelMessage,
    BusEndMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerRegistryMessage,
)
from pbus.registry import WorkerErrorData
from pbus.runner.hosted_worker import Worker, one_line
from pbus.runner.open_jobs import reply_with_open_jobs
from pbus.runner.runner_lifecycle import END_TIMEOUT_S, RunnerLifecycle
from pbus.runner.type_checks import BusAcceptanceRequestMessage, answer_acceptance

logger = logging.getLogger(__name__)

_REPORT_TIMEOUT_S = 2.0

_ACCEPTED = (
    BusWorkerRegistryMessage,
    BusEndMessage,
    BusCancelMessage,
    BusJobsRequestMessage,
    BusAcceptanceRequestMessage,
)


class WorkerRunner(RunnerLifecycle):
    """Runs workers on a bus until they have finished, or until a request to end.

    Events: ``on_ready(runner)`` when the bus works and the workers were started,
    ``on_error(runner, data: WorkerErrorData)`` when a worker failed.

    Args:
        bus: The bus; one within this process when not given. `run` starts a bus that is not started,
            and stops it at its end.
        name: Unique among the runners of the channel; random when not given.
        session: BaseWorker.end() and cancel() end all runners of one session. When not given, that
            of the `pbus up` that started this process (PBUS_SESSION), else a new one.
        handle_sigint: Whether Ctrl-C ends it: the first in order, the second at once.
        handle_sigterm: Whether SIGTERM does; when not given, unless the program handles it itself.
        start_timeout: Seconds for a bus that `run` starts to reach its broker. With None `run` waits
            without a limit, also for the registration of workers, unless the broker refuses them.
    """

    @property
    def errors(self) -> list[WorkerErrorData]:
        """The workers that failed, oldest first; the last hundred."""
        return list(self._errors)

    def get_worker(self, name: str) -> Any:
        """The worker of a name on this runner; None when there is none."""
        hosted = self._hosted.get(name)
        return None if hosted is None else hosted.worker

    async def add_workers(self, *workers: Worker) -> None:
        """Add workers; they start with `run`, or at once when it runs.

        Args:
            *workers: New workers.

        Raises:
            DuplicateWorkerError: A name is taken, here (then none is added) or on the channel.
            RunnerStateError: The runner is stopping.
            BusUnavailableError: The broker does not answer.
        """
        if self._state in {"stopping", "stopped"}:
            raise RunnerStateError(self.name, f"is {self._state} and takes no workers")
        hosted_workers = self._hosted.add(workers)
        try:
            for hosted in hosted_workers:
                await hosted.worker.attach(registry=self.registry, bus=self.bus, runner=self)
            if self._state == "running":
                for hosted in hosted_workers:
                    await self._hosted.launch(hosted)
        except BaseException:
            self._hosted.drop(hosted_workers)
            raise

    async def remove_workers(self, *names: str, timeout: float = END_TIMEOUT_S) -> None:  # noqa: ASYNC109 - then it cancels
        """End workers after earlier messages to them are handled, and remove them.

        A worker must not wait for its own removal.

        Args:
            *names: Of workers; unknown ones are ignored.
            timeout: Seconds until they are cancelled.
        """
        found = [hosted for name in names if (hosted := self._hosted.get(name))]
        self._hosted.drop(found)
        try:
            async with asyncio.timeout(timeout):
                await self._hosted.end_some(found, "removed", timeout)
        except TimeoutError:
            logger.warning("%r: %s did not end within %g s", self, ", ".join(names), timeout)
            await self._hosted.cancel(found)

    # Messages

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Whether a message is for runners."""
        if isinstance(message, BusAddWorkerMessage):
            return message.target == self.name
        return isinstance(message, _ACCEPTED)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle announcements, the end of the session, new children and queries."""
        if isinstance(message, BusWorkerRegistryMessage):
            self.registry.on_announcement(message)
        elif isinstance(message, BusAddWorkerMessage):
            self._spawn(self._add_child(message.worker), "child")
        elif isinstance(message, BusJobsRequestMessage):
            workers = self._hosted.workers()
            self._spawn(reply_with_open_jobs(self.bus, self.name, workers, message), "open jobs")
        elif isinstance(message, BusAcceptanceRequestMessage):
            workers = self._hosted.workers()
            self._spawn(answer_acceptance(self.bus, self.name, workers, message), "type check")
        elif isinstance(message, BusEndMessage | BusCancelMessage):
            if message.session is not None and message.session != self.session:
                return
            if isinstance(message, BusCancelMessage):
                self._cancel_requested.set()
            self._begin_stop(message.reason or f"asked by {message.source}")

    async def _add_child(self, worker: Worker) -> None:
        try:
            await self.add_workers(worker)
        except PbusError as error:
            await self._report(worker, error)

    async def _report(self, worker: Worker, error: BaseException) -> None:
        """Report the failure of a worker: to the log, `errors`, event handlers, and the bus."""
        data = WorkerErrorData(worker.name, one_line(error))
        trace = None if isinstance(error, PbusError) else error
        logger.error("worker %s failed: %s", worker.name, data.error, exc_info=trace)
        self._errors.append(data)
        self._fire_event("on_error", data)
        # A worker without its name must not send as the worker that has it.
        source = self.name if isinstance(error, DuplicateWorkerError) else worker.name
        if worker.parent is None:
            news: BusMessage = BusWorkerErrorMessage(source=source, error=data.error)
        else:
            news = BusWorkerLocalErrorMessage(
                source=worker.name, target=worker.parent.name, error=data.error
            )
        try:
            async with asyncio.timeout(_REPORT_TIMEOUT_S):
                await self.bus.send(news)
        except (PbusError, TimeoutError) as failure:
            logger.warning("the failure of %s is not reported on the bus: %s", worker.name, failure)
