"""One worker on a runner: registered, running, ended, removed."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.user_code import as_handler_error
from pbus.errors import PbusError, text_of
from pbus.jobs.listing import OpenJobs
from pbus.messages import BusEndWorkerMessage
from pbus.registry import WorkerFigures, WorkerRegistry

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """A worker as its runner sees it; BaseWorker is one."""

    name: str
    takes_opaque: bool

    @property
    def address(self) -> str:
        """Its address for other processes."""
        ...

    @property
    def parent(self) -> Any:
        """The worker that added it; None for a root."""
        ...

    @property
    def active(self) -> bool:
        """Whether it is, or will start, active."""
        ...

    @property
    def job_names(self) -> Sequence[str]:
        """The names of the jobs it handles."""
        ...

    @property
    def handles_messages(self) -> bool:
        """Whether it has started."""
        ...

    def lease_figures(self) -> WorkerFigures:
        """Its figures for the registry."""
        ...

    def open_jobs(self) -> OpenJobs:
        """The open jobs that it requested or accepted."""
        ...

    async def attach(self, *, registry: WorkerRegistry, bus: WorkerBus, runner: Any) -> None:
        """Attach it to the runner."""
        ...

    def restore_activation(self, *, active: bool, args: dict[str, Any] | None) -> None:
        """Restore the activation of an earlier incarnation."""
        ...

    async def run(self) -> None:
        """Start, work until a request to stop, and stop. Raises the error that ended it."""
        ...

    def request_stop(self, *, drain: bool, timeout_s: float | None = None) -> None:
        """Have run() return, after accepted jobs or at once."""
        ...

    @property
    def bus_subscription(self) -> BusSubscriber:
        """The subscriber for the bus, once the worker has its name."""
        ...


class HostedWorker:
    """One incarnation of a worker on a runner.

    Args:
        worker: The worker.
        bus: The runner's.
        registry: The runner's.

    Attributes:
        family: The identity of its parent; None for a root.
        is_launched: Whether its start has begun.
        task: Runs the worker; None before it is registered.
        error: The error that ended it or kept it from starting.
    """

    __slots__ = (
        "_bus", "_is_open", "_reason", "_registry", "error", "family", "is_launched", "task", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, bus: WorkerBus, registry: WorkerRegistry) -> None:
        self.worker = worker
        self.family = None if worker.parent is None else id(worker.parent)
        self.is_launched = False
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self._bus = bus
        self._registry = registry
        self._reason = "ended"
        self._is_open = False

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.worker.name

    @property
    def is_root(self) -> bool:
        """Whether it has no parent."""
        return self.family is None

    async def open(self) -> None:
        """Claim the worker's name, then subscribe it; in this order.

        Raises:
            DuplicateWorkerError: The name is taken.
            BusUnavailableError: The broker does not answer.
        """
        if self.is_root:
            await self._register()
        else:
            self._registry.add_child(self._registry.new_lease(self.name, active=self.worker.active))
        self._is_open = True
        try:
            await self._bus.subscribe(self.worker.bus_subscription)
        except BaseException:
            await self.close()
            raise

    async def run(self) -> None:
        """Run the worker to its end, then close it; its error is kept in `error`."""
        try:
            await self.worker.run()
        except asyncio.CancelledError:
            self._reason = "cancelled"
        except BaseException as raised:
            error = as_handler_error(raised, f"worker {self.name!r}", asyncio.current_task())
            if error is None:
                raise
            self.fail(error)
        finally:
            await self.close()

    def fail(self, error: BaseException) -> None:
        """Keep an error; the first one counts."""
        if self.error is None:
            self.error = error
            self._reason = f"failed: {one_line(error)}"

    async def ask_to_end(
        self, source: str, reason: str | None, timeout_s: float | None = None
    ) -> None:
        """End the worker after earlier messages to it are handled.

        Args:
            source: The name of the runner.
            reason: For people.
            timeout_s: Seconds for its accepted jobs; None for the runner's end_timeout.
        """
        message = BusEndWorkerMessage(
            source=source, target=self.worker.address, reason=reason, timeout_s=timeout_s
        )
        if self._bus.is_connected:
            try:
                await self._bus.send(message)
            except PbusError as error:
                logger.warning("%s is ended without a message: %s", self.name, error)
            else:
                return
        self.worker.request_stop(drain=True, timeout_s=timeout_s)

    async def close(self) -> None:
        """Release the name and unsubscribe. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        unhandled = self._bus.stats(self.name).unhandled
        if unhandled:
            what = "message" if unhandled == 1 else "messages"
            logger.warning("%s: %d %s waited in it and are lost", self.name, unhandled, what)
        try:
            await self._registry.unregister(self.name, self._reason, unhandled=unhandled)
        finally:
            try:
                await self._bus.unsubscribe(self.worker.bus_subscription)
            except PbusError as error:
                logger.warning("%s cannot be unsubscribed: %s", self.name, error)

    async def _register(self) -> None:
        activation = await self._registry.last_activation(self.name)
        if activation is not None:
            self.worker.restore_activation(active=activation.active, args=activation.args)
        lease = self._registry.new_lease(
            self.name,
            active=self.worker.active if activation is None else activation.active,
            args=None if activation is None else activation.args,
            jobs=self.worker.job_names,
        )
        await self._registry.register(lease, self.worker.lease_figures)


def one_line(error: BaseException) -> str:
    """Format an error as one line of text."""
    text, kind = " ".join(text_of(error).split()), type(error).__name__
    return kind if text == kind else f"{kind}: {text}"
