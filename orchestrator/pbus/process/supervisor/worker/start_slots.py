"""Start slots: a bound on the workers of one supervisor that start at the same time."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from pbus.process.supervisor.worker.host import Blocker
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor.worker.worker_target import WorkerTarget

_PER_CORE: Final = 4
_HOLD_S: Final = 10.0  # long imports, or a hung start, must not keep others from starting


def usual_limit() -> int:
    """Return the number of workers that may start at once on this machine."""
    if hasattr(os, "sched_getaffinity"):
        return _PER_CORE * len(os.sched_getaffinity(0))
    return _PER_CORE * (os.cpu_count() or 1)


class StartSlots:
    """The slots of one supervisor, given in the order of the requests.

    Args:
        limit: The number of slots; by default of the machine's cores.
        hold_s: Seconds after which a slot is free again without a word of its holder.
    """

    def __init__(self, limit: int | None = None, hold_s: float = _HOLD_S) -> None:
        self._limit = usual_limit() if limit is None else limit
        self._hold_s = hold_s
        self._holders: dict[StartTurn, asyncio.TimerHandle] = {}
        self._queue: deque[StartTurn] = deque()

    def take(self, turn: "StartTurn") -> bool:
        """Return whether a turn holds a slot, or takes a free one; else it is in the queue."""
        if turn in self._holders:
            return True
        if turn not in self._queue and len(self._holders) < self._limit:
            self._give(turn)
            return True
        if turn not in self._queue:
            self._queue.append(turn)
        return False

    def free(self, turn: "StartTurn") -> None:
        """Free a turn's slot, or take the turn out of the queue. Idempotent."""
        timer = self._holders.pop(turn, None)
        if timer is not None:
            timer.cancel()
        elif turn in self._queue:
            self._queue.remove(turn)
        while self._queue and len(self._holders) < self._limit:
            following = self._queue.popleft()
            self._give(following)
            following.wake()

    def _give(self, turn: "StartTurn") -> None:
        loop = asyncio.get_running_loop()
        self._holders[turn] = loop.call_later(self._hold_s, self.free, turn)


class StartTurn:
    """The place of one worker among those that start.

    Args:
        slots: The slots of all workers.
        status: The worker's.
        target: The worker's.
    """

    def __init__(self, slots: StartSlots, status: WorkerStatus, target: WorkerTarget) -> None:
        self.wake = target.wake
        self._slots = slots
        self._status = status
        self._target = target

    async def wait(self, find_blocker: Callable[[], Blocker | None]) -> bool:
        """Wait until the dependencies are met and a slot is free; it is held from then.

        Args:
            find_blocker: Returns the first dependency that is not met.

        Returns:
            Whether the worker is still wanted; no slot is held where it is not.
        """
        while self._target.is_wanted:
            blocker = find_blocker()
            if blocker is not None:
                self.free()
                if blocker.has_failed:
                    self._target.is_wanted = False
                    self._status.fail(f"a dependency failed: {blocker.text}")
                    return False
                self._status.enter_waiting(f"waiting for {blocker.text}")
            elif self._slots.take(self):
                return True
            else:
                self._status.set_pending("waiting for others to start")
                self._status.enter("starting")
            await self._target.wait_changed()
        self.free()
        self._status.enter("exited")
        return False

    def free(self) -> None:
        """Let others start: the worker is registered, has ended or does not start. Idempotent."""
        self._slots.free(self)
