"""All workers of a topology in this very process, on a bus in memory: where a breakpoint works."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from pbus.bus.connect import make_bus
from pbus.bus.subscriber import BusSubscriber
from pbus.ids import new_token
from pbus.messages import BusCancelMessage, BusEndMessage, BusMessage
from pbus.process.project.discovery import refuse_other_path
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.project.recovery_log import RecoveryLog
from pbus.process.system.groups import PROJECT_VARIABLE, STATE_VARIABLE
from pbus.process.system.spawn import WorkerLaunchSpec
from pbus.process.worker_loader import import_path, load_worker
from pbus.registry import WorkerErrorData, WorkerReadyData
from pbus.runner import WorkerRunner
from pbus.runner.runner import END_TIMEOUT_S
from pbus.topology.model import Topology, WorkerInstance
from pbus.workers.base import BaseWorker

logger = logging.getLogger(__name__)

Tell = Callable[[str, str], None]


class InProcessRunner(BusSubscriber):
    """Runs a topology without processes: nobody is restarted, and no other process can see it.

    It takes this process over: its folder, environment and import path become those of the workers.

    Args:
        topology: What to run; its bus is in memory.
        project: Only one runs at a time, here as elsewhere.
        only: Names of workers (or of single replicas) to run; all when empty.
        tell: Called on the loop with a worker (or "pbus") and what became of it.
    """

    name = "pbus.single"  # no worker can have it

    def __init__(
        self, topology: Topology, project: Project, *, only: frozenset[str], tell: Tell
    ) -> None:
        self.session = new_token()
        self._topology = topology
        self._project = project
        self._only = only
        self._tell = tell
        self._runner: WorkerRunner | None = None
        self._is_asked_to_end = False
        self._stopping: asyncio.Future[None] | None = None

    async def run(self) -> int:
        """Load the workers, and run them until all have ended or it is told to stop.

        Returns:
            1 when a worker failed and nobody asked for the end, else 0.

        Raises:
            ProjectRunningError: It runs already.
            WorkerLoadError: A class cannot be loaded; none was started then.
        """
        refuse_other_path(self._project)
        async with self._project.lock():
            self._project.write_record(self._describe())
            self._settle_in()
            workers = [self._load(one) for one in self._instances()]
            bus = make_bus(self._topology.bus)
            runner = WorkerRunner(bus=bus, session=self.session, handle_sigint=False)
            runner.add_event_handler("on_ready", self._note_running)
            runner.add_event_handler("on_error", self._note_error)
            await bus.subscribe(self)
            await runner.add_workers(*workers)
            if not self._is_asked_to_end:
                self._runner = runner
                await runner.run()
        return int(bool(runner.errors) and not self._is_asked_to_end)

    def request_stop(self, reason: str) -> None:
        """Have the workers finish what is queued and stop; the second time at once. On the loop."""
        is_again, self._is_asked_to_end = self._is_asked_to_end, True
        if self._runner is not None:
            given_s = RecoveryLog(self._project.state_dir).take_stop_timeout()
            self._runner.end_timeout = END_TIMEOUT_S if given_s is None else given_s
            stop = self._runner.cancel if is_again else self._runner.end
            self._stopping = asyncio.ensure_future(stop(reason))

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """The end of the session."""
        return isinstance(message, BusEndMessage | BusCancelMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Note that it was asked for."""
        self._is_asked_to_end = True
        verb = "cancelled" if isinstance(message, BusCancelMessage) else "ended"
        self._tell("pbus", f"the session was {verb} by {message.source}")

    def _instances(self) -> list[WorkerInstance]:
        only = self._only
        return [
            one
            for one in self._topology.instances()
            if not only or {one.name, one.spec.name} & only
        ]

    def _settle_in(self) -> None:
        """Do once for the process what is otherwise done for each: folder, environment, imports."""
        specs = self._topology.workers.values()
        for spec in specs:
            os.environ.update(spec.env)
        os.environ.update({
            **self._topology.bus.to_env(),
            "PBUS_SESSION": self.session,
            PROJECT_VARIABLE: self._topology.name,
            STATE_VARIABLE: str(self._project.state_dir),
        })
        os.chdir(next(spec.working_dir for spec in specs))  # the same for all, by the check
        sys.path += import_path(self._topology.file)

    def _load(self, instance: WorkerInstance) -> BaseWorker:
        spec = instance.spec
        order = WorkerLaunchSpec(
            worker=spec.worker or "",
            args=spec.args,
            active=spec.active,
            file=str(self._topology.file),
        )
        return load_worker(order, instance.name)

    def _describe(self) -> ProjectRecord:
        return ProjectRecord(
            name=self._topology.name,
            folder=str(self._project.folder),
            file=str(self._project.file),
            session=self.session,
            bus=self._topology.bus,
        )

    def _note_running(self, runner: WorkerRunner) -> None:
        for instance in self._instances():
            runner.registry.watch(instance.name, self._note_ready)

    async def _note_ready(self, data: WorkerReadyData) -> None:
        self._tell(data.worker_name, "ready")

    def _note_error(self, _runner: WorkerRunner, data: WorkerErrorData) -> None:
        self._tell(data.worker_name, f"failed: {data.error}")
