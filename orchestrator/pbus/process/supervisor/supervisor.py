"""The supervisor: runs a topology's workers as processes."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.connect import make_bus
from pbus.bus.queues.store import QueueStore
from pbus.concurrency.background import run_forever
from pbus.concurrency.waiting import unless_set
from pbus.errors import BusClosedError, ProjectRunningError, SurvivorsError
from pbus.ids import new_token
from pbus.observe import HostRecord
from pbus.process.project.broker_key import own_key
from pbus.process.project.discovery import refuse_other_path
from pbus.process.project.history.crashed_run import begin_run
from pbus.process.project.history.run_history import Outcome, RunHistory
from pbus.process.project.log_writer import LogWriter
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock
from pbus.process.project.record import ProjectRecord
from pbus.process.project.recovery_log import RecoveryLog, StopTime
from pbus.process.services.services import Services
from pbus.process.supervisor.bus_client import SupervisorBusClient, host_name
from pbus.process.supervisor.changes.applied import Applied
from pbus.process.supervisor.changes.live_project import LiveProject
from pbus.process.supervisor.control import ControlServer
from pbus.process.supervisor.launcher import ProcessLauncher
from pbus.process.supervisor.metrics_server import open_metrics
from pbus.process.supervisor.project_files import ProjectFiles
from pbus.process.supervisor.queue_admin import QueueAdmin
from pbus.process.supervisor.reports.capsules import CapsuleWriter
from pbus.process.supervisor.reports.event_dispatch import EventDispatch, Listener
from pbus.process.supervisor.reports.state_events import StateEventQueue
from pbus.process.supervisor.reports.traffic_recorder import TrafficRecorder
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    SessionEnded,
    Stopped,
)
from pbus.process.system import event_loop, open_files
from pbus.process.system.launch_plan import ProcessEnvironment
from pbus.topology.model import Topology
from pbus.topology.selection import ALL, Selection

_UPKEEP_EVERY_S = 1.0
_SESSION_END_S = 35.0  # a runner gives its workers 30 s to finish what is queued
_AFTER_SESSION_S = 3.0  # for workers that have not ended by themselves then
_CANCEL_AGAIN_S = 0.5
_SIGNAL_CODE = 128  # as shells have it

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs a topology on this machine, on one event loop.

    Args:
        topology: The topology.
        project: Its state and sockets; one supervisor a project.
        selection: The processes to run.
        is_watching: A change of Python files beside the topology restarts its classes, too, not only
            what has a `watch`.
        session: An id shared with other supervisors; a new one when not given.

    Raises:
        TopologyError: A name or a profile of the selection is not in the topology.

    Attributes:
        workers: The workers by name, to be started, stopped and restarted.
        state_events: State events to be sent on the bus.
    """

    def __init__(
        self,
        topology: Topology,
        project: Project,
        *,
        selection: Selection = ALL,
        is_watching: bool = False,
        session: str | None = None,
    ) -> None:
        self.session = session or new_token()
        self._topology = topology  # for what cannot change while it runs
        self._project = project
        self._name = f"supervisor-{new_token()}"
        self._stop = asyncio.Event()
        self._kill_now = asyncio.Event()
        self._has_changed = asyncio.Event()
        self._stop_time: StopTime | None = StopTime(_AFTER_SESSION_S)  # for running jobs
        self._session_end: str | None = None
        self._log_writer = LogWriter(project)
        self._history = RunHistory(project, self.session)
        self._events = EventDispatch(self._log_writer, self._on_change)
        self._services = Services(project, topology.bus, self._on_broker)
        applied = Applied(topology=topology, selection=selection, is_watching=is_watching)
        self._live = LiveProject(applied, self._kill_now, project.state_dir, self._on_worker_ended)
        self.workers = self._live.workers
        keep = self._history.add_event
        self.state_events = StateEventQueue(self._name, topology.name, self.workers.get, keep)
        self._traffic = TrafficRecorder(project, is_on=topology.history.traffic)
        last = self._traffic.last_of
        kept = CapsuleWriter(project, self._history, self.workers.get, last, topology.bus.delivery)
        self.listen(kept.on_event)
        self._bus: WorkerBus | None = None
        self._bus_client: SupervisorBusClient | None = None
        self._files: ProjectFiles

    async def run(self) -> int:
        """Start everything and supervise it until it is over.

        Returns:
            0 after an orderly stop, the end of the session, or when all workers ended well; 1 when
            a worker failed and no process is left.

        Raises:
            ProjectRunningError: Another supervisor has the project.
            BusUnavailableError: The broker at the topology's URL is not there.
            ProcessError: Guard or embedded broker do not start, or the loop is not installed.
            SurvivorsError: It is over, but for processes that could not be ended.
        """
        code = 0
        try:
            async with contextlib.AsyncExitStack() as stack:
                opened = await unless_set(self._stop, self._open(stack))
                if opened is not None:
                    code = await self._supervise(*opened)
                outcome: Outcome = "stopped" if self._stop.is_set() else "finished"
                self._history.end("failed" if code else outcome, code)
        finally:
            self._log_writer.close()
            self._history.close()
        self._events.emit(Stopped(code))
        if survivors := self.workers.survivors:
            raise SurvivorsError(survivors)
        return code

    def request_stop(self, reason: str) -> None:
        """Stop all workers in order; a second call kills the rest at once.

        Running jobs get 30 s, or the time that `pbus down` left in the state folder.
        """
        if self._stop.is_set():
            self._kill_now.set()
        else:
            self._stop_time = RecoveryLog(self._project.state_dir).take_stop_time()
        self._history.reason = reason
        logger.info("stopping%s: %s", " at once" if self._kill_now.is_set() else "", reason)
        self._stop.set()
        self._live.order.stop_next()
        self._has_changed.set()

    def listen(self, callback: Listener) -> None:
        """Call this with every event, on the loop; it must return at once."""
        self._events.listeners.append(callback)

    def record(self) -> HostRecord:
        """Return the state of all workers."""
        return HostRecord(
            project=self._topology.name,
            host=host_name(),
            pid=os.getpid(),
            session=self.session,
            time=time.time(),
            bus=self._bus.url if self._bus else "",
            processes=self.workers.records(),
            address=self._name,
        )

    @property
    def bus(self) -> WorkerBus:
        """The bus, after the event `BrokerReady`.

        Raises:
            BusClosedError: It is too early.
        """
        if self._bus is None:
            raise BusClosedError("not started")
        return self._bus

    # Callbacks of the bus client: see bus_client.Supervised

    def on_session_end(self, session: str | None, reason: str) -> None:
        """Handle the end of a session (None: of all sessions)."""
        if session in {None, self.session} and self._session_end is None:
            self._session_end = self._history.reason = reason
            logger.info("the session was %s", reason)
            self._events.emit(SessionEnded(reason))

    def on_connection(self, is_connected: bool) -> None:  # noqa: FBT001
        """Report that the bus lost its broker, or reconnected."""
        self._events.emit(BrokerReady(self.bus.url) if is_connected else BrokerLost())

    async def _open(
        self, stack: contextlib.AsyncExitStack
    ) -> tuple[ProcessLauncher, SupervisorBusClient]:
        """Prepare everything that the workers need; the stack closes it."""
        event_loop.require(self._topology.loop)
        refuse_other_path(self._project)
        open_files.raise_open_files()
        await stack.enter_async_context(ProjectLock(self._project))
        begin_run(self._project, self._history)
        stack.push_async_callback(self._services.close)
        url = await self._services.open()
        spec, is_own_broker = self._topology.bus, self._topology.bus.url is None
        key = own_key(self._project.state_dir) if is_own_broker and not spec.key else None
        settings = msgspec.structs.replace(spec, url=url, key=spec.key or key)
        bus = make_bus(settings, incarnation=self._name)
        await open_metrics(stack, self._topology.metrics, bus, self.record)
        queue_admin = _queue_admin(self._topology, self._project, bus.queues)
        control = ControlServer(self._name, self.workers, self._live.changes, self._live.rolling)
        client = SupervisorBusClient(bus, self._name, control, self, queue_admin)
        stack.push_async_callback(client.close)
        await client.open(is_own_broker=is_own_broker)
        self._bus, self._bus_client, self._live.queues = bus, client, client
        grace_s = sum(spec.stop.grace_s or 0.0 for spec in self._topology.workers.values())
        record = self._project.new_record(self.session, settings, grace_s=grace_s)
        self._files = ProjectFiles(self._project, record, own_key=key, is_own_broker=is_own_broker)
        self._files.write()
        self._events.emit(BrokerReady(bus.url))
        guard, emit = self._services.guard, self._events.emit
        environment = _environment(self._topology, record, self._project, guard.token)
        launcher = ProcessLauncher(self._project, environment, guard, client, emit)
        stack.push_async_callback(launcher.close)
        return launcher, client

    async def _supervise(self, launcher: ProcessLauncher, client: SupervisorBusClient) -> int:
        async with asyncio.TaskGroup() as group:
            functions = {**client.tasks(), **self._services.tasks(), **self._live.tasks()}
            functions |= self._traffic.tasks(self.bus)
            functions["upkeep"] = self._run_upkeep
            background = [
                group.create_task(run_forever(f"the supervisor's {name}", function))
                for name, function in functions.items()
            ]
            self._live.membership.open(group, launcher)
            code = await self._run_until_done()
            self._live.order.stop(self._stop_time)
            await self._live.membership.closed()
            await _cancel(background)
        for name, survivors in self.workers.survivors.items():
            logger.error("%s: %s", name, survivors)
        return code

    async def _run_until_done(self) -> int:
        """Wait for the end of this run; returns the exit code."""
        workers = self.workers
        await self._until(lambda: self._is_ending or workers.is_over or workers.decisive)
        if not self._is_ending:
            return self._code_of(workers.decisive)
        if not self._stop.is_set():
            for worker in self.workers:
                worker.finish_and_stop()
            await self._until(
                lambda: self._stop.is_set() or self.workers.has_left_bus, _SESSION_END_S
            )
        return 0

    def _code_of(self, decisive: WorkerProcess | None) -> int:
        """Return the exit code of a run that no command has ended."""
        if decisive is None:
            return int(self.workers.has_failed)
        logger.info("%s has ended, and with it the project: see its on_exit", decisive.name)
        self._stop_time = None
        return _exit_code(decisive)

    async def _until(self, condition: Callable[[], object], limit_s: float | None = None) -> None:
        """Wait until a condition holds; checked after each event."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not condition():
                    self._has_changed.clear()
                    await self._has_changed.wait()

    def _on_broker(self, is_running: bool) -> None:  # noqa: FBT001
        if self._bus_client is not None:
            self._bus_client.broker.set_running(is_running)

    async def _run_upkeep(self) -> None:
        while True:
            self._live.measure()
            self._files.follow(self._live.changes.applied.topology.overrides)
            try:
                if self._files.restore():
                    self._log_writer.close()  # its files went with the folder
            except ProjectRunningError as error:
                self.request_stop(str(error))
            await asyncio.sleep(_UPKEEP_EVERY_S)

    @property
    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._session_end is not None

    def _on_worker_ended(self) -> None:
        self._has_changed.set()
        if self._bus_client is not None:
            self._bus_client.refresh()

    def _on_change(self, event: Event) -> None:
        self._has_changed.set()
        self._live.on_change(event)
        self.state_events.on_event(event)
        if self._bus_client is not None:
            self._bus_client.refresh()


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks, again if need be: before Python 3.12 wait_for() may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)


def _environment(
    topology: Topology, record: ProjectRecord, project: Project, guard_token: str
) -> ProcessEnvironment:
    return ProcessEnvironment(
        bus=record.bus,
        loop=topology.loop,
        env=topology.env,
        preload=topology.preload,
        session=record.session,
        project=topology.name,
        file=topology.file,
        state=project.state_dir,
        guard_token=guard_token,
    )


def _exit_code(decisive: WorkerProcess) -> int:
    code, has_failed = decisive.status.code, decisive.status.state == "failed"
    if code is None or code == 0:
        return int(has_failed)
    return code if code > 0 else _SIGNAL_CODE - code


def _queue_admin(topology: Topology, project: Project, store: QueueStore | None) -> QueueAdmin:
    recovery_log = RecoveryLog(project.state_dir)
    options = topology.bus.delivery_options
    return QueueAdmin(
        store, recovery_log, topology.queues(), groups=topology.groups(), options=options
    )
