"""The supervisor: runs a topology's workers as processes and keeps them as the topology says."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.connect import make_bus
from pbus.concurrency.background import ErrorLog, run_forever
from pbus.concurrency.waiting import first_of
from pbus.errors import BusClosedError, ProcessError, ProjectRunningError, SurvivorsError
from pbus.ids import new_token
from pbus.observe import HostRecord
from pbus.process.project.broker_key import keep_key, own_key
from pbus.process.project.discovery import refuse_other_path
from pbus.process.project.log_writer import LogWriter
from pbus.process.project.project import Project, hold_again, is_held
from pbus.process.project.record import ProjectRecord, write_last
from pbus.process.project.recovery_log import RecoveryLog
from pbus.process.services.services import Services
from pbus.process.supervisor.bus_client import SupervisorBusClient, host_name
from pbus.process.supervisor.launcher import ProcessLauncher
from pbus.process.supervisor.queue_admin import QueueAdmin
from pbus.process.supervisor.state_events import StateEventQueue
from pbus.process.supervisor.worker_set import WorkerSet
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    Line,
    SessionEnded,
    Stopped,
)
from pbus.process.system import event_loop, open_files
from pbus.process.system.spawn import ProcessEnvironment
from pbus.settings import BusSettings
from pbus.topology.model import Topology

_MEASURE_EVERY_S = 1.0
_SESSION_END_S = 35.0  # a runner gives its workers 30 s to finish what is queued
_AFTER_SESSION_S = 3.0  # for those who have not ended by themselves then
_CANCEL_AGAIN_S = 0.5

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]
T = TypeVar("T")


class Supervisor:
    """Runs a topology on this machine.

    Everything happens on one loop. Whoever wants to see it listens, or asks for a `record()`.

    Args:
        topology: What to run.
        project: Where state and sockets go; only one supervisor a project.
        only: Names of workers (or of single replicas) to run; all when empty.
        session: An id shared with other supervisors; a new one when not given.

    Raises:
        TopologyError: `only` names what the topology does not have.
    """

    def __init__(
        self,
        topology: Topology,
        project: Project,
        *,
        only: frozenset[str] = frozenset(),
        session: str | None = None,
    ) -> None:
        self.session = session or new_token()
        self._topology = topology
        self._project = project
        self._name = f"supervisor-{new_token()}"
        self.news = StateEventQueue(self._name, topology.name)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._changed = asyncio.Event()
        self._stop_s: float | None = _AFTER_SESSION_S  # what jobs get at the end
        self._session_end: str | None = None
        self._listeners: list[Listener] = []
        self._journal = LogWriter(project)
        self._errors = ErrorLog("writing down what happens")
        self._foundation = Services(project, topology.bus, self._note_broker)
        self._crew = WorkerSet(topology, only, self._hurry)
        self._key: str | None = None
        self._bus: WorkerBus | None = None
        self._link: SupervisorBusClient | None = None
        self._described: ProjectRecord

    async def run(self) -> int:
        """Start everything, and see to it until it is over.

        Returns:
            0 after an orderly stop, the end of the session, or when all workers ended well; 1 when
            some worker failed and nothing is left running.

        Raises:
            ProjectRunningError: Another supervisor has the project.
            BusUnavailableError: The broker at the topology's URL is not there.
            ProcessError: Guard or embedded broker do not start, or the loop is not installed.
            SurvivorsError: It is over, but for processes that could not be ended.
        """
        code = 0
        try:
            async with contextlib.AsyncExitStack() as stack:
                opened = await self._unless_stopped(self._open(stack))
                if opened is not None:
                    code = await self._supervise(*opened)
        finally:
            self._journal.close()
        self._emit(Stopped(code))
        if survivors := self._crew.survivors:
            raise SurvivorsError(survivors)
        return code

    def request_stop(self, reason: str) -> None:
        """Stop all workers, gently; a second call kills what is left at once.

        Jobs in hand get 30 s, or what `pbus down` left word of.
        """
        if self._stop.is_set():
            self._hurry.set()
        else:
            self._stop_s = RecoveryLog(self._project.state_dir).given_s()
        logger.info("stopping%s: %s", " at once" if self._hurry.is_set() else "", reason)
        self._stop.set()
        self._changed.set()

    def listen(self, callback: Listener) -> None:
        """Call this with every event, on the loop; it must be quick."""
        self._listeners.append(callback)

    def record(self) -> HostRecord:
        """All workers as they are now."""
        return HostRecord(
            project=self._topology.name,
            host=host_name(),
            pid=os.getpid(),
            session=self.session,
            time=time.time(),
            bus=self._bus.url if self._bus else "",
            processes=self._crew.records(),
            address=self._name,
        )

    @property
    def bus(self) -> WorkerBus:
        """The bus, once `BrokerReady` was heard.

        Raises:
            BusClosedError: It is too early.
        """
        if self._bus is None:
            raise BusClosedError("not started")
        return self._bus

    # Single workers, by the names of their instances

    def start_worker(self, name: str) -> None:
        """Start a worker that was stopped, has ended or failed."""
        self._crew[name].start()

    def stop_worker(self, name: str) -> None:
        """Stop a worker and leave it so."""
        self._crew[name].stop()

    def restart(self, name: str) -> None:
        """Stop a worker if it runs, and start it again."""
        self._crew[name].restart()

    # What the bus tells: see link.Supervised

    def note_session_end(self, session: str | None, reason: str) -> None:
        """Somebody ended a session, or all."""
        if session in {None, self.session} and self._session_end is None:
            self._session_end = reason
            logger.info("the session was %s", reason)
            self._emit(SessionEnded(reason))

    def note_connection(self, is_connected: bool) -> None:  # noqa: FBT001
        """The bus lost its broker, or has it again."""
        self._emit(BrokerReady(self.bus.url) if is_connected else BrokerLost())

    # From beginning to end

    async def _open(
        self, stack: contextlib.AsyncExitStack
    ) -> tuple[ProcessLauncher, SupervisorBusClient]:
        """Make everything ready for the workers; what is opened is closed by the stack."""
        event_loop.require(self._topology.loop)
        refuse_other_path(self._project)
        open_files.raise_open_files()
        await stack.enter_async_context(self._project.lock())
        stack.push_async_callback(self._foundation.close)
        url = await self._foundation.open()
        spec = self._topology.bus
        self._key = spec.key or (own_key(self._project.state_dir) if spec.url is None else None)
        settings = msgspec.structs.replace(spec, url=url, key=self._key)
        bus = make_bus(settings, incarnation=self._name)
        post = QueueAdmin(
            bus.queues,
            RecoveryLog(self._project.state_dir),
            self._topology.queues(),
            groups=self._topology.groups(),
            options=spec.delivery_options,
        )
        link = SupervisorBusClient(bus, self._name, self._crew, self, post)
        stack.push_async_callback(link.close)
        await link.open(is_own_broker=spec.url is None)
        self._bus, self._link = bus, link
        self._described = self._describe(settings)
        self._write_records()
        self._emit(BrokerReady(bus.url))
        site = ProcessLauncher(
            self._surroundings(settings), self._foundation.guard, link, self._emit
        )
        return site, link

    def _describe(self, bus: BusSettings) -> ProjectRecord:
        return ProjectRecord(
            name=self._topology.name,
            folder=str(self._project.folder),
            file=str(self._project.file),
            session=self.session,
            bus=bus,
        )

    def _surroundings(self, bus: BusSettings) -> ProcessEnvironment:
        return ProcessEnvironment(
            bus=bus,
            loop=self._topology.loop,
            session=self.session,
            project=self._topology.name,
            file=self._topology.file,
            state=self._project.state_dir,
            guard_token=self._foundation.guard.token,
        )

    async def _supervise(self, site: ProcessLauncher, link: SupervisorBusClient) -> int:
        async with asyncio.TaskGroup() as tasks:
            regularly = {**link.chores(), **self._foundation.chores(), "figures": self._measure}
            chores = [
                tasks.create_task(run_forever(f"the supervisor's {name}", chore))
                for name, chore in regularly.items()
            ]
            lives = [
                tasks.create_task(actor.run(site), name=f"pbus {actor.name}")
                for actor in self._crew
            ]
            code = await self._run_until_done()
            self._crew.stop(self._stop_s)
            if lives:
                await asyncio.wait(lives)
            await _cancel(chores)
        for name, what in self._crew.survivors.items():
            logger.error("%s: %s", name, what)
        return code

    async def _run_until_done(self) -> int:
        """Wait for whatever ends this run; returns the exit code."""
        await self._until(lambda: self._is_ending or self._crew.is_over)
        if not self._is_ending:
            return int(self._crew.has_failed)
        if not self._stop.is_set():
            self._crew.dismiss()
            await self._until(
                lambda: self._stop.is_set() or self._crew.has_left_the_bus, _SESSION_END_S
            )
        return 0

    async def _until(self, claim: Callable[[], bool], limit_s: float | None = None) -> None:
        """Wait until a claim holds; it is looked at whenever something changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not claim():
                    self._changed.clear()
                    await self._changed.wait()

    async def _unless_stopped(self, opening: Coroutine[Any, Any, T]) -> T | None:
        """Do this, but give it up when a stop is requested before it is done."""
        opened, stopped = await first_of(opening, self._stop.wait())
        return opened.result() if stopped.cancelled() else None

    def _note_broker(self, is_there: bool) -> None:  # noqa: FBT001
        if self._link is not None:
            self._link.note_broker(is_there)

    async def _measure(self) -> None:
        while True:
            self._crew.measure()
            if not is_held(self._project):
                self._hold_again()
            else:
                with self._errors.catch():
                    self._make_again()
            await asyncio.sleep(_MEASURE_EVERY_S)

    def _make_again(self) -> None:
        """Parts of the state folder may have been removed: without a record no verb finds us."""
        self._project.make_state_dir()
        if not self._project.record_path.exists():
            self._write_records()
        self._keep_key()

    def _keep_key(self) -> None:
        if self._key is not None and self._topology.bus.key is None:
            keep_key(self._project.state_dir, self._key)

    def _write_records(self) -> None:
        is_own_broker = self._topology.bus.url is None
        self._project.write_record(self._described)
        write_last(self._project.state_dir, self._described, is_own_broker=is_own_broker)

    def _hold_again(self) -> None:
        """The state folder is gone, or another's: a second supervisor may find the project free."""
        folder = self._project.state_dir
        try:
            hold_again(self._project)
            self._write_records()
            self._keep_key()
        except ProjectRunningError as error:
            logger.error("%s was removed, and another supervisor has the project now", folder)  # noqa: TRY400 - no fault of ours
            self.request_stop(str(error))
        except (ProcessError, OSError) as error:
            logger.warning("%s was removed and cannot be made again: %s", folder, error)
        else:
            self._journal.close()  # its files went with the folder
            logger.warning("%s was removed and is made again; older logs are lost", folder)

    @property
    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._session_end is not None

    def _emit(self, event: Event) -> None:
        """Write down what belongs into a log, and tell the listeners; never raises."""
        with self._errors.catch():
            self._note(event)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed at %s", type(event).__name__)

    def _note(self, event: Event) -> None:
        if isinstance(event, Line):
            self._journal.write(event)
            return
        self._changed.set()
        self.news.hear(event)
        if self._link is not None:
            self._link.refresh()


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks, again if need be: before Python 3.12 wait_for() may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
