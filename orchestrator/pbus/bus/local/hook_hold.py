"""The lane hold of a hook that runs in a task of its own."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from pbus.bus.lane_gate import LaneGate
from pbus.bus.local.causes import current_cause
from pbus.bus.local.lane_hold import CURRENT_HOLD
from pbus.bus.local.lane_reader import current_reader


class LaneHold:
    """The hold of a hook that runs in a task of its own.

    Tasks that the hook starts belong to its hold. One caller waits for the release.

    Args:
        on_released: Called once, when the hook has ended or the lane reads on.
        gate: Held from the release until the hook ends, so that only job messages pass; None lets
            all messages pass.
        gate_timeout_s: Seconds after which the gate is opened, unless the hook waits for a job.
    """

    __slots__ = (
        "_gate_timeout_s", "_held_gate", "_job_waits", "_on_released", "_released", "_task", "_timer",
        "cause", "gate", "reader",
    )  # fmt: skip

    def __init__(
        self,
        on_released: Callable[[], None] | None = None,
        *,
        gate: LaneGate | None = None,
        gate_timeout_s: float | None = None,
    ) -> None:
        self.reader = current_reader()
        self.cause = current_cause()
        self.gate = gate
        self._held_gate: LaneGate | None = None
        self._released = asyncio.get_running_loop().create_future()
        self._on_released = on_released
        self._gate_timeout_s = gate_timeout_s
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._job_waits = 0

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run the hook in a new task within this hold.

        Args:
            work: The hook's coroutine.
            name: Of the task.
        """
        context = contextvars.copy_context()
        context.run(CURRENT_HOLD.set, self)
        task = self._task = asyncio.create_task(work, name=name, context=context)
        task.add_done_callback(lambda _: self._on_ended())
        return task

    def release(self) -> None:
        """Let the lane read on, before a wait for a job."""
        self.release_on_wait()
        self._job_waits += 1
        self._stop_timer()

    def resume(self) -> None:
        """End the wait that followed release()."""
        self._job_waits -= 1
        self._start_timer()

    def release_on_wait(self) -> None:
        """Let the lane read on now: waits of a separate task cannot be observed."""
        task = self._task
        if self._released.done() or task is None or task.done():
            return
        if self.gate is not None:
            self._held_gate = self.gate
            self._held_gate.hold()
            self._start_timer()
        self._set_released()

    async def wait_released(self, timeout_s: float | None = None) -> bool:
        """Wait until the hook has ended or the lane reads on.

        Args:
            timeout_s: Seconds; None waits without a limit. After a timeout the gate stays open.

        Returns:
            Whether it happened in time.
        """
        if timeout_s is None:
            await self._released
            return True
        done, _ = await asyncio.wait([self._released], timeout=timeout_s)
        if not done:
            self.gate = None  # other messages have passed already
        return bool(done)

    def _on_ended(self) -> None:
        if self._released.done():
            self._open_gate()
        else:
            self._set_released()

    def _set_released(self) -> None:
        self._released.set_result(None)
        if self._on_released is not None:
            self._on_released()

    def _start_timer(self) -> None:
        self._stop_timer()
        if self._held_gate is not None and self._gate_timeout_s is not None and not self._job_waits:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._gate_timeout_s, self._open_gate)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open_gate(self) -> None:
        """Release the gate. Idempotent."""
        self._stop_timer()
        gate, self._held_gate = self._held_gate, None
        if gate is not None:
            gate.release()
