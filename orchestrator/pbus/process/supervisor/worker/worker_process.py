"""One worker's processes: started, watched, restarted and stopped by one task."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from pbus.ids import new_token
from pbus.process.supervisor.worker import restart_policy, shutdown
from pbus.process.supervisor.worker.ends import note_end
from pbus.process.supervisor.worker.host import Blocker, ProcessHost
from pbus.process.supervisor.worker.probing import Probing
from pbus.process.supervisor.worker.process_end import ProcessEnd
from pbus.process.supervisor.worker.restarts import Restarts, joined
from pbus.process.supervisor.worker.start_slots import StartSlots, StartTurn
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor.worker.worker_target import WorkerTarget
from pbus.process.supervisor_events import Ready, Started
from pbus.process.system.spawn import Child
from pbus.topology.model import WorkerInstance, with_live_keys

logger = logging.getLogger(__name__)


class LaunchError(Exception):
    """A process could not be started: `cause` says why."""

    def __init__(self, cause: OSError | ValueError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Ended(msgspec.Struct, frozen=True):
    """The end of a process.

    Attributes:
        child: The process.
        code: Its exit code.
        verdict: Why its probes had it ended, as text; "" where they had not.
        was_told: A command ended it.
    """

    child: Child
    code: int
    verdict: str
    was_told: bool


class WorkerProcess:
    """Keeps one worker in its target state. Commands only set the target: the one task acts.

    Args:
        instance: The worker.
        kill_now: Once set, processes that are being stopped are killed.
        clock: Seconds, monotonic.
        slots: Bounds the workers that start at once; None for a bound of its own.

    Attributes:
        next_instance: The worker as its next process is started.
        turn: Its place among the workers that start.
    """

    def __init__(
        self,
        instance: WorkerInstance,
        kill_now: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
        slots: StartSlots | None = None,
    ) -> None:
        self.name = instance.name
        self.next_instance = instance
        self.status = WorkerStatus(instance, clock)
        self.target = WorkerTarget(clock)
        self.turn = StartTurn(slots or StartSlots(), self.status, self.target)
        self.find_blocker: Callable[[], Blocker | None] = lambda: None
        self._registered: set[str] = set()  # of the workers of the process
        self._is_left = False
        self._probing: Probing | None = None
        self._kill_now = kill_now
        self._host: ProcessHost
        self._restarts: Restarts
        self._process_end: ProcessEnd

    # Commands

    def start(self) -> None:
        """Run the worker, also after a stop or failure; a running or starting one is left alone."""
        is_starting = self.status.state in {"starting", "waiting"}
        if self.target.is_stopped_by_user or (self.status.child is None and not is_starting):
            self.restart()

    def stop(self, timeout_s: float | None = None) -> None:
        """Stop the worker until it is started again.

        Args:
            timeout_s: Seconds for running jobs, from now; None for the default.
        """
        self.target.stop(timeout_s)

    def restart(self, timeout_s: float | None = None) -> None:
        """Stop the worker if it runs, and start it without delay; `timeout_s` as for `stop`."""
        if not self.target.is_final:
            self.target.restart(timeout_s)
            self.status.history = restart_policy.History()

    def replace(self, reason: str) -> None:
        """Restart the running process for a reason of pbus' own, which log and event give."""
        if self.target.may_run and not self.target.is_final:
            self.status.note(reason)
            self.target.restart(None, reason)

    def reload(self, reason: str) -> None:
        """Restart the worker for a change of its files, also one that has ended; not after `stop`."""
        if not (self.target.is_final or self.target.is_stopped_by_user):
            self.status.note(reason)
            self.target.restart(None, reason)
            self.status.history = restart_policy.History()

    def adopt(self, instance: WorkerInstance) -> None:
        """Take a changed spec: what supervises a process at once, the rest with the next process."""
        self.next_instance = instance
        if self.status.child is None:
            self.status.instance = instance
        else:
            self.status.instance = with_live_keys(self.status.instance, instance.spec)
        self.target.wake()

    def finish_and_stop(self) -> None:
        """Start no further process; a ready worker may end by itself."""
        self.target.finish(is_ready=self.status.state == "ready")

    def on_ready(self, incarnation: str, worker: str) -> None:
        """Handle an incarnation that the registry has as ready; an earlier one is ignored.

        Args:
            incarnation: The worker's.
            worker: This one, or another of its process.
        """
        child = self.status.child
        if child is None or self.status.state != "starting":
            return
        if incarnation.startswith(child.incarnation):
            self.turn.free()
            self._registered.add(worker)
            self._check_ready()

    def _check_ready(self) -> None:
        """Enter "ready" as soon as the registry has the worker and its probe has succeeded."""
        if self.status.state != "starting" or self._probing is None:
            return
        if self._probing.is_passed and (self._registered.issuperset(self.names) or not self.joins):
            self.status.set_ready()
            self._probing.on_ready()
            self.status.emit(Ready(self.name))

    # State

    @property
    def target_start_count(self) -> int:
        """The start count that all commands so far lead to."""
        return self.status.start_count + int(self.target.restart_requested)

    @property
    def joins(self) -> bool:
        """Whether its process is expected in the registry."""
        return self.status.instance.spec.joins

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all workers in its process; its own is the first."""
        return self.status.instance.names

    @property
    def is_running(self) -> bool:
        """Whether a process runs, and its end is still waited for."""
        return self.status.child is not None and not self._is_left

    @property
    def is_over(self) -> bool:
        """Whether nothing runs, and nothing will without a command."""
        is_down = self.status.child is None and self.status.state in {"exited", "failed"}
        return is_down and not self.target.is_stopped_by_user

    # The task

    async def run(self, host: ProcessHost) -> None:
        """Keep the worker in its target state until that is final and no process runs."""
        self._host = host
        self._restarts = Restarts(self.status, self.target, host)
        self._process_end = ProcessEnd(self.status, self.target, host, self._kill_now)
        self.status.emit = host.emit
        while True:
            if self.target.is_wanted:
                await self._run_contained()
            elif self.target.is_final:
                self._is_left = True
                return
            else:
                await self.target.wait_changed()

    async def _run_contained(self) -> None:
        """Run one process; an error in its supervision counts as its exit."""
        try:
            await self._run_once()
        except Exception as error:
            logger.exception("%s: an error in its supervision", self.name)
            child = self.status.child
            if child is not None:
                await shutdown.terminate_group(child, self._kill_now)
                self.status.child = None
            reason = f"an error in pbus: {type(error).__name__}: {error}"
            self.status.output.set_error(reason)
            if child is not None:
                note_end(self.status, child, reason, is_failure=True)
            await self._restarts.after_exit(1, reason)

    async def _run_once(self) -> None:
        """Run one process, and wait until the next may start."""
        self.target.begin()
        self.status.survivors = ""
        if not await self.turn.wait(self.find_blocker):
            return
        self.target.begin()  # a restart that was requested while it waited is this start
        self.status.instance = self.next_instance
        incarnation = new_token()
        try:
            self._probing = self._make_probing(incarnation)
            ended = await self._run_process(incarnation, self._probing)
        except LaunchError as error:
            self.turn.free()
            await self._restarts.after_launch_error(error.cause)
            return
        if ended is None:
            return
        reason, open_messages = restart_policy.describe_exit(ended.code), self.status.open_messages
        is_failure = bool(ended.verdict)
        why = ended.verdict or reason
        note_end(self.status, ended.child, why, is_told=ended.was_told, is_failure=is_failure)
        if not ended.was_told:
            await self._restarts.after_exit(ended.code, why, open_messages, is_failure=is_failure)
        elif not self.target.is_wanted:
            self.status.enter("exited", joined(reason, open_messages))

    def _make_probing(self, incarnation: str) -> Probing:
        try:
            return Probing(self.status, self._host, incarnation, self._on_probe)
        except OSError as error:
            raise LaunchError(error) from error

    async def _run_process(self, incarnation: str, probing: Probing) -> "_Ended | None":
        """Run one process to its end; None where it cannot be ended."""
        try:
            child = await self._start(incarnation, probing)
            try:
                while child.code is None and self.target.may_run and not probing.verdict:
                    await self.target.wait_changed()
                is_alive = child.code is None
                verdict = probing.verdict if is_alive and self.target.may_run else ""
                is_hung = probing.is_hung and bool(verdict)
                if is_alive and not await self._process_end.stop(child, verdict, is_hung=is_hung):
                    return None
                code = await child.wait()
                await self._process_end.finish(child, code)
                return _Ended(child, code, verdict, was_told=is_alive and not verdict)
            finally:
                child.close()
        finally:
            self.turn.free()
            self._probing = None
            await probing.close()

    def _on_probe(self) -> None:
        self._check_ready()
        self.target.wake()

    async def _start(self, incarnation: str, probing: Probing) -> Child:
        status = self.status
        status.begin_start()
        self._registered = set()
        try:
            child = await self._host.start_child(
                status.instance, incarnation, status.on_line, self.target.wake, probing.env
            )
        except (OSError, ValueError) as error:
            raise LaunchError(error) from error
        status.child = child
        status.emit(Started(self.name, child.pid, incarnation))
        status.note(f"started, pid {child.pid}")
        if not self.joins:
            self.turn.free()
        probing.start(child)
        self._check_ready()
        return child
