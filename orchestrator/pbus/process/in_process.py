"""All workers of a topology in this process, on a bus in memory, for debuggers."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from pbus.bus.connect import make_bus
from pbus.bus.otel import trace_if_configured
from pbus.bus.subscriber import BusSubscriber
from pbus.ids import new_token
from pbus.messages import BusCancelMessage, BusEndMessage, BusMessage
from pbus.process.project.discovery import refuse_other_path
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock
from pbus.process.project.recovery_log import RecoveryLog
from pbus.process.system.launch_plan import launch_spec
from pbus.process.worker_loader import load_worker
from pbus.registry import WorkerErrorData, WorkerReadyData
from pbus.runner import WorkerRunner
from pbus.runner.runner_lifecycle import END_TIMEOUT_S
from pbus.settings import PROJECT_VARIABLE, STATE_VARIABLE
from pbus.topology.model import Topology, WorkerInstance
from pbus.topology.paths import import_path
from pbus.topology.selection import Selection, select

logger = logging.getLogger(__name__)

Report = Callable[[str, str], None]


class InProcessRunner(BusSubscriber):
    """Runs a topology without processes: no worker is restarted, and no other process can see it.

    The folder, environment and import path of this process become those of the workers.

    Args:
        topology: The topology; its bus is in memory.
        project: Its project; it is locked, as elsewhere.
        selection: The workers to run.
        report: Called on the loop with a worker (or "pbus") and its new state.
    """

    name = "pbus.single"  # no worker can have it

    def __init__(
        self, topology: Topology, project: Project, *, selection: Selection, report: Report
    ) -> None:
        self.session = new_token()
        self._topology = topology
        self._project = project
        self._selection = selection
        self._report = report
        self._runner: WorkerRunner | None = None
        self._is_stopping = False
        self._stopping: asyncio.Future[None] | None = None

    async def run(self) -> int:
        """Load the workers, and run them until all have ended or a stop is requested.

        Returns:
            1 when a worker failed and no end was requested, else 0.

        Raises:
            ProjectRunningError: It runs already.
            WorkerLoadError: A class cannot be loaded; no worker was started.
        """
        refuse_other_path(self._project)
        async with ProjectLock(self._project):
            record = self._project.new_record(self.session, self._topology.bus)
            self._project.write_record(record)
            self._adopt_environment()
            workers = [
                load_worker(launch_spec(one.spec, self._topology.file), one.name)
                for one in self._instances()
            ]
            bus = make_bus(self._topology.bus)
            trace_if_configured(bus, os.environ)
            runner = WorkerRunner(
                bus=bus, session=self.session, handle_sigint=False, handle_sigterm=False
            )
            runner.add_event_handler("on_ready", self._on_ready)
            runner.add_event_handler("on_error", self._on_error)
            await bus.subscribe(self)
            await runner.add_workers(*workers)
            if not self._is_stopping:
                self._runner = runner
                await runner.run()
        return int(bool(runner.errors) and not self._is_stopping)

    def request_stop(self, reason: str) -> None:
        """Stop: workers finish their queued messages; a second call cancels them. On the loop."""
        is_again, self._is_stopping = self._is_stopping, True
        if self._runner is not None:
            time = RecoveryLog(self._project.state_dir).take_stop_time()
            self._runner.end_timeout = END_TIMEOUT_S if time is None else time.seconds
            stop = self._runner.cancel if is_again else self._runner.end
            self._stopping = asyncio.ensure_future(stop(reason))

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Accept the end of the session."""
        return isinstance(message, BusEndMessage | BusCancelMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle the end of the session."""
        self._is_stopping = True
        verb = "cancelled" if isinstance(message, BusCancelMessage) else "ended"
        self._report("pbus", f"the session was {verb} by {message.source}")

    def _instances(self) -> list[WorkerInstance]:
        return select(self._topology, self._selection)

    def _adopt_environment(self) -> None:
        """Set the folder, environment and import path of the workers."""
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
        files = [spec.file or self._topology.file for spec in specs]
        sys.path += import_path(*files, self._topology.file)

    def _on_ready(self, runner: WorkerRunner) -> None:
        for instance in self._instances():
            runner.registry.watch(instance.name, self._on_worker_ready)

    async def _on_worker_ready(self, data: WorkerReadyData) -> None:
        self._report(data.worker_name, "ready")

    def _on_error(self, _runner: WorkerRunner, data: WorkerErrorData) -> None:
        self._report(data.worker_name, f"failed: {data.error}")
