"""The wanted state of one worker, set by users and the supervisor, read by the worker's task."""

import asyncio
import contextlib
from collections.abc import Callable


class WorkerTarget:
    """The wanted state; each change wakes the worker's task.

    Args:
        clock: Seconds, monotonic.

    Attributes:
        is_wanted: A process is to run.
        restart_requested: The running process is to be replaced by a new one without delay.
        is_final: No further process is started.
        is_stopped_by_user: A user stopped the worker.
        is_watched: A change of its files restarts the worker: it is not given up.
        is_leaving: The worker is being taken out of the project.
        is_rolling: Other replicas serve while its process is replaced.
        reason: Why pbus itself wants the process replaced, as text; "" for a command of a user's.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.is_wanted = True
        self.restart_requested = False
        self.is_final = False
        self.is_stopped_by_user = False
        self.is_watched = False
        self.is_leaving = False
        self.is_rolling = False
        self.reason = ""
        self._clock = clock
        self._jobs_end_at: float | None = None
        self._wakeup = asyncio.Event()

    @property
    def may_run(self) -> bool:
        """Whether the running process, or a wait for its restart, goes on."""
        return self.is_wanted and not self.restart_requested

    def begin(self) -> None:
        """Handle a process about to start: it is what earlier requests led to."""
        self.restart_requested, self.reason = False, ""

    def stop(self, timeout_s: float | None) -> None:
        """Want no process; running jobs get that many seconds from now (None: the default)."""
        self._set_job_time(timeout_s)
        self.is_wanted, self.is_stopped_by_user, self.restart_requested = False, True, False
        self.reason = ""
        self.wake()

    def restart(self, timeout_s: float | None, reason: str = "") -> None:
        """Want a new process, for a reason of pbus' own if one is given; `timeout_s` as for `stop`."""
        self._set_job_time(timeout_s)
        self.is_wanted, self.is_stopped_by_user, self.restart_requested = True, False, True
        self.reason = reason
        self.wake()

    def finish(self, *, is_ready: bool) -> None:
        """Start no further process; a ready one may end by itself, another is ended."""
        self.is_final = True
        self.is_wanted = self.is_wanted and is_ready
        self.wake()

    def rejoin(self) -> None:
        """Want a process again, after the end of the running one, of a worker that was leaving."""
        self.is_final = self.is_leaving = False
        self.restart(None)

    def job_time_s(self, since: float) -> float | None:
        """Return the seconds for running jobs, counted from a time; None for the default."""
        return None if self._jobs_end_at is None else max(0.0, self._jobs_end_at - since)

    def wake(self) -> None:
        """Wake the worker's task: something changed."""
        self._wakeup.set()

    async def wait_changed(self, limit_s: float | None = None) -> None:
        """Wait for a change, at most that many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._wakeup.wait()
        self._wakeup.clear()

    def _set_job_time(self, timeout_s: float | None) -> None:
        self._jobs_end_at = None if timeout_s is None else self._clock() + timeout_s
