"""The end of a worker's process: stopped in steps, reported, released."""

import asyncio
import signal

from pbus.concurrency.waiting import first_of
from pbus.process.probes.checks import Surroundings, check
from pbus.process.supervisor.worker import restart_policy, shutdown
from pbus.process.supervisor.worker.host import ProcessHost
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor.worker.worker_target import WorkerTarget
from pbus.process.supervisor_events import Exited
from pbus.process.system.spawn import Child
from pbus.topology.policy.policies import ExecProbe

_DRAIN_S = 0.3  # for the last lines; longer only when a descendant holds the pipes open
_KERNEL_S = 30.0  # for the kernel to end a killed process, before the supervisor exits
_LEFTOVERS_S = 1.0  # a group without its leader gets a short SIGTERM before SIGKILL


class ProcessEnd:
    """Stops processes of a worker, and handles their end.

    Args:
        status: The worker's.
        target: The worker's.
        host: Releases what the process held.
        kill_now: Once set, a process that is being stopped is killed.
    """

    def __init__(
        self,
        status: WorkerStatus,
        target: WorkerTarget,
        host: ProcessHost,
        kill_now: asyncio.Event,
    ) -> None:
        self._status = status
        self._target = target
        self._host = host
        self._kill_now = kill_now

    async def stop(self, child: Child, verdict: str = "", *, is_hung: bool = False) -> bool:
        """End the process and its group.

        Args:
            child: The process.
            verdict: Why its probes have it ended, as text; "" where they do not.
            is_hung: It handles no messages, so it is asked by a signal.

        Returns:
            Whether the process ended.
        """
        self._status.enter("stopping", self._target.reason or verdict)
        began = self._status.clock()
        if is_hung:
            await self._read_stacks(child)
        spec = self._status.instance.spec.stop
        may_drain = spec.drain and self._status.instance.spec.joins
        is_asked = may_drain and self._status.ready_at is not None
        if spec.command is not None:
            await self._run_stop_command(child, spec.command)
        is_down = await shutdown.terminate(
            child,
            (_unasked if is_hung else self._request_end) if is_asked else None,
            self._kill_now,
            shutdown.deadlines_of(spec, is_asked=is_asked),
            job_time_s=lambda: self._target.job_time_s(began),
            signals=shutdown.Signals(
                signal.Signals[spec.signal], before_kill=lambda: self._read_stacks(child)
            ),
        )
        return is_down or await self._wait_unkillable(child)

    async def _read_stacks(self, child: Child) -> None:
        """Keep the stacks of a process that hangs, once; kill_now has no time for it."""
        if self._status.facts.stacks is None and child.code is None and not self._kill_now.is_set():
            reading = self._host.read_stacks(child)
            ended, _ = await first_of(reading, self._kill_now.wait())
            if not ended.cancelled():
                self._status.facts.stacks = ended.result()

    async def _run_stop_command(self, child: Child, command: tuple[str, ...]) -> None:
        """Run the user's program before the signal; its failure is noted, and the signal follows."""
        limit_s = self._status.instance.spec.stop.grace_s or shutdown.Deadlines().ask_s
        around = Surroundings(child.launch.env, child.launch.cwd)
        running = check(ExecProbe(command), around, limit_s)
        ended, _ = await first_of(running, self._kill_now.wait())
        if not ended.cancelled() and (reason := ended.result()):
            self._status.note(f"stop command: {reason}")

    async def _request_end(self) -> bool:
        job_time_s = self._target.job_time_s(self._status.clock())
        return await self._host.request_end(self._status.name, job_time_s)

    async def _wait_unkillable(self, child: Child) -> bool:
        """Report a process that does not end; returns whether it ended before a final stop."""
        self._note_survivors(child)
        self._status.enter("stopping", self._status.survivors)
        while child.code is None and not self._target.is_final:
            await self._target.wait_changed()
        # The kernel may take its time for what was killed, but not for what may not be.
        clock = self._status.clock
        deadline = clock() + (_KERNEL_S if child.send_signal(signal.SIGKILL) else 0.0)
        while child.code is None and (left := deadline - clock()) > 0:
            await self._target.wait_changed(left)
        return child.code is not None

    def _note_survivors(self, child: Child) -> None:
        self._status.survivors = shutdown.describe_survivors(child)
        self._status.note(self._status.survivors, is_error=True)

    async def finish(self, child: Child, code: int) -> None:
        """Handle an ended process: its last lines, the bus, the rest of its group."""
        reason = restart_policy.describe_exit(code)
        deadlines = shutdown.Deadlines(term_s=_LEFTOVERS_S)
        _, open_messages, is_clear = await asyncio.gather(
            self._report_exit(child, code, reason),
            self._host.release_incarnation(child, reason),
            shutdown.terminate_group(child, self._kill_now, deadlines),
        )
        if is_clear:
            self._status.survivors = ""
            self._host.forget_group(child)
        else:
            self._note_survivors(child)
        self._status.open_messages = open_messages
        if open_messages:
            self._status.note(open_messages)

    async def _report_exit(self, child: Child, code: int, reason: str) -> None:
        await child.wait_drained(_DRAIN_S)
        self._status.child = None
        self._status.code = code
        self._status.note(reason)
        if hint := self._host.explain_exit(child, code):
            self._status.note(hint, is_error=True)
        self._status.emit(Exited(self._status.name, child.pid, code))


async def _unasked() -> bool:
    """Stand for a bus message that is not sent."""
    return False
