"""One worker's processes: started, watched, restarted and stopped by one task."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from pbus.ids import new_token
from pbus.process.supervisor.worker import restart_policy, shutdown
from pbus.process.supervisor.worker.host import ProcessHost
from pbus.process.supervisor.worker.restarts import Restarts, joined
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor.worker.worker_target import WorkerTarget
from pbus.process.supervisor_events import Exited, Ready, Started
from pbus.process.system.spawn import Child
from pbus.topology.model import WorkerInstance

_DRAIN_S = 0.3  # for the last lines; longer only when a descendant holds the pipes open
_KERNEL_S = 30.0  # for the kernel to end a killed process, before the supervisor exits
_LEFTOVERS_S = 1.0  # a group without its leader gets a short SIGTERM before SIGKILL

logger = logging.getLogger(__name__)


class WorkerProcess:
    """Keeps one worker in its target state. Commands only set the target: the one task acts.

    Args:
        instance: The worker.
        kill_now: Once set, processes that are being stopped are killed.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        instance: WorkerInstance,
        kill_now: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = instance.name
        self.joins = instance.spec.joins
        self.status = WorkerStatus(instance, clock)
        self.target = WorkerTarget(clock)
        self._kill_now = kill_now
        self._host: ProcessHost
        self._restarts: Restarts

    # Commands

    def start(self) -> None:
        """Run the worker, also after a stop or failure; a running or starting one is left alone."""
        is_starting = self.status.state == "starting"
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

    def finish_and_stop(self) -> None:
        """Start no further process; a ready worker may end by itself."""
        self.target.finish(is_ready=self.status.state == "ready")

    def on_ready(self, incarnation: str) -> None:
        """Handle an incarnation that the registry has as ready; an earlier one is ignored."""
        child = self.status.child
        if child is None or self.status.state != "starting":
            return
        if incarnation.startswith(child.incarnation):
            self.status.set_ready()
            self.status.emit(Ready(self.name))

    # State

    @property
    def target_start_count(self) -> int:
        """The start count that all commands so far lead to."""
        return self.status.start_count + int(self.target.restart_requested)

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
        self.status.emit = host.emit
        while True:
            if self.target.is_wanted:
                await self._run_contained()
            elif self.target.is_final:
                return
            else:
                await self.target.wait_changed()

    async def _run_contained(self) -> None:
        """Run one process; an error in its supervision counts as its exit."""
        try:
            await self._run_once()
        except Exception as error:
            logger.exception("%s: an error in its supervision", self.name)
            if self.status.child is not None:
                await shutdown.terminate_group(self.status.child, self._kill_now)
                self.status.child = None
            reason = f"an error in pbus: {type(error).__name__}: {error}"
            self.status.output.set_error(reason)
            await self._restarts.after_exit(1, reason)

    async def _run_once(self) -> None:
        """Run one process, and wait until the next may start."""
        self.target.restart_requested = False
        self.status.survivors = ""
        child = await self._start()
        if child is None:
            return
        try:
            while child.code is None and self.target.may_run:
                await self.target.wait_changed()
            was_told = child.code is None
            if was_told and not await self._stop(child):
                return
            code = await child.wait()
            await self._finish(child, code)
        finally:
            child.close()
        reason, open_messages = restart_policy.describe_exit(code), self.status.open_messages
        if not was_told:
            await self._restarts.after_exit(code, reason, open_messages)
        elif not self.target.is_wanted:
            self.status.enter("exited", joined(reason, open_messages))

    async def _start(self) -> Child | None:
        incarnation = new_token()
        status = self.status
        status.begin_start()
        try:
            child = await self._host.start_child(
                status.instance, incarnation, status.on_line, self.target.wake
            )
        except (OSError, ValueError) as error:
            await self._restarts.after_launch_error(error)
            return None
        status.child = child
        status.emit(Started(self.name, child.pid, incarnation))
        status.note(f"started, pid {child.pid}")
        if not self.joins:
            self.on_ready(incarnation)
        return child

    async def _stop(self, child: Child) -> bool:
        """End the process and its group; returns whether the process ended."""
        self.status.enter("stopping")
        began = self.status.clock()
        is_asked = self.status.ready_at is not None and self.joins
        is_down = await shutdown.terminate(
            child,
            self._request_end if is_asked else None,
            self._kill_now,
            job_time_s=lambda: self.target.job_time_s(began),
        )
        return is_down or await self._wait_unkillable(child)

    async def _request_end(self) -> bool:
        job_time_s = self.target.job_time_s(self.status.clock())
        return await self._host.request_end(self.name, job_time_s)

    async def _wait_unkillable(self, child: Child) -> bool:
        """Report a process that does not end; returns whether it ended before a final stop."""
        self._note_survivors(child)
        self.status.enter("stopping", self.status.survivors)
        while child.code is None and not self.target.is_final:
            await self.target.wait_changed()
        # The kernel may take its time for what was killed, but not for what may not be.
        clock = self.status.clock
        deadline = clock() + (_KERNEL_S if child.send_signal(signal.SIGKILL) else 0.0)
        while child.code is None and (left := deadline - clock()) > 0:
            await self.target.wait_changed(left)
        return child.code is not None

    def _note_survivors(self, child: Child) -> None:
        self.status.survivors = shutdown.describe_survivors(child)
        self.status.note(self.status.survivors, is_error=True)

    async def _finish(self, child: Child, code: int) -> None:
        """Handle an ended process: its last lines, the bus, the rest of its group."""
        reason = restart_policy.describe_exit(code)
        deadlines = shutdown.Deadlines(term_s=_LEFTOVERS_S)
        _, open_messages, is_clear = await asyncio.gather(
            self._report_exit(child, code, reason),
            self._host.release_incarnation(child, reason),
            shutdown.terminate_group(child, self._kill_now, deadlines),
        )
        if is_clear:
            self.status.survivors = ""
            self._host.forget_group(child)
        else:
            self._note_survivors(child)
        self.status.open_messages = open_messages
        if open_messages:
            self.status.note(open_messages)

    async def _report_exit(self, child: Child, code: int, reason: str) -> None:
        await child.wait_drained(_DRAIN_S)
        self.status.child = None
        self.status.code = code
        self.status.note(reason)
        if hint := self._host.explain_exit(child, code):
            self.status.note(hint, is_error=True)
        self.status.emit(Exited(self.name, child.pid, code))
