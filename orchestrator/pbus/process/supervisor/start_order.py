"""The order of workers: each starts when its dependencies are met, and stops before them."""

import asyncio
import functools
import time
from collections.abc import Iterable, Mapping
from typing import Final

from pbus.process.project.recovery_log import StopTime
from pbus.process.supervisor.worker.host import Blocker
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor_events import Event, Started
from pbus.topology.policy.dependencies import closure
from pbus.topology.policy.policies import Condition, Dependency
from pbus.topology.policy.shared_process import file_names

_AWAITED: Final[Mapping[Condition, str]] = {
    "started": "to start",
    "ready": "to be ready",
    "active": "to be active",
    "healthy": "to be healthy",
    "completed": "to complete",
}
_LEAST_S: Final = 3.0  # to end, for each worker of a chain


class StartOrder:
    """Applies the dependencies among the workers of one supervisor; others count as met.

    Args:
        workers: All workers; see `refresh`.
        kill_now: Once set, the order does not matter.
    """

    def __init__(self, workers: Iterable[WorkerProcess], kill_now: asyncio.Event) -> None:
        self._all = workers
        self._kill_now = kill_now
        self._stop_time: StopTime | None = None  # for running jobs, while all are being stopped
        self._stop_began = 0.0
        self._unstopped: list[WorkerProcess] = []  # while they are being stopped
        self.refresh()

    def refresh(self) -> None:
        """Take the workers, and what they depend on, as they are now."""
        self._workers = {worker.name: worker for worker in self._all}
        self._has_shared = any(
            len(names) > 1 for one in self._all for names in (one.names, one.next_instance.names)
        )
        self._groups: dict[str, list[WorkerProcess]] = {}
        for worker in self._workers.values():
            worker.find_blocker = functools.partial(self._blocker, worker)
            for name in file_names(worker.status.instance):
                self._groups.setdefault(name, []).append(worker)
        self._dependents: dict[str, list[tuple[WorkerProcess, Dependency]]] = {}
        for worker in self._workers.values():
            for dependency in worker.status.instance.spec.depends_on:
                self._dependents.setdefault(dependency.worker, []).append((worker, dependency))

    def _blocker(self, worker: WorkerProcess) -> Blocker | None:
        """Return the first dependency of a worker that is not met, or a process that has its names."""
        if (holder := self._holder_of(worker)) is not None:
            return Blocker(f"{holder.name} to end", has_failed=False)
        for dependency in worker.status.instance.spec.depends_on:
            for other in self._groups.get(dependency.worker, ()):
                if _is_met(other, dependency.condition):
                    continue
                has_failed = other.is_over
                if has_failed and not dependency.required:
                    continue
                return Blocker(_describe(other, dependency.condition, has_failed), has_failed)
        return None

    def sorted_groups(self, names: Iterable[str]) -> list[str]:
        """Return names of workers in the order of their dependencies, those first."""
        wanted = set(names)
        left = [name for name in self._groups if name in wanted]
        waits_for = {name: self._needs(name) for name in self._groups}
        ordered: list[str] = []
        while left:
            free = [name for name in left if not closure(waits_for[name], waits_for) & {*left}]
            ordered += free or left
            left = [name for name in left if name not in ordered]
        return ordered

    def _needs(self, name: str) -> list[str]:
        spec = self._groups[name][0].next_instance.spec
        return [one.worker for one in spec.depends_on]

    def _holder_of(self, worker: WorkerProcess) -> WorkerProcess | None:
        """Return another process that still runs one of the workers, after a change of `process`."""
        if not self._has_shared:
            return None
        names = frozenset(worker.next_instance.names)
        others = (one for one in self._workers.values() if one is not worker and one.is_running)
        return next((one for one in others if not names.isdisjoint(one.names)), None)

    def stop(self, stop_time: StopTime | None = None) -> None:
        """Stop all workers finally: each as soon as those that depend on it are down.

        Args:
            stop_time: The time from now for running jobs; None for the default, of each worker.
        """
        self._stop_time, self._stop_began = stop_time, time.monotonic()
        self._stop_in_order(list(self._workers.values()))

    def take_out(self, workers: Iterable[WorkerProcess]) -> None:
        """Stop some workers finally, in the same order; the project goes on without them."""
        self._stop_in_order([*self._unstopped, *workers])

    def keep(self, worker: WorkerProcess) -> None:
        """Keep a worker that was to be taken out; it is started again."""
        self._unstopped = [one for one in self._unstopped if one is not worker]
        worker.target.rejoin()

    def _stop_in_order(self, workers: list[WorkerProcess]) -> None:
        self._unstopped = workers
        for worker in workers:
            worker.finish_and_stop()
        self.stop_next()

    def stop_next(self) -> None:
        """While workers are being stopped: stop those that no running worker depends on."""
        waiting = []
        for worker in self._unstopped:
            if self._kill_now.is_set() or not self._is_needed(worker):
                worker.stop(self._left_s(worker))
            else:
                waiting.append(worker)
        self._unstopped = waiting

    def _left_s(self, worker: WorkerProcess) -> float | None:
        """Return the seconds that a worker gets; some also where its dependents took all of them."""
        given = self._stop_time
        if given is None or (
            given.is_usual and worker.status.instance.spec.stop.grace_s is not None
        ):
            return None
        left_s = given.seconds - (time.monotonic() - self._stop_began)
        return max(min(_LEAST_S, given.seconds), left_s)

    def _is_needed(self, worker: WorkerProcess) -> bool:
        """Whether a running worker depends on one, and on no other of its group that stays."""
        group = self._groups.get(worker.status.instance.spec.name, ())
        if not all(one.target.is_final for one in group):
            return False
        return any(one.is_running for one, _ in self._dependents_of(worker))

    def on_change(self, event: Event) -> None:
        """Handle an event of a worker: others may have waited for it."""
        if isinstance(event, Started):
            self._restart_dependents(self._workers[event.worker])
        for worker in self._workers.values():
            if worker.status.state == "waiting":
                worker.target.wake()
        self.stop_next()

    def _restart_dependents(self, worker: WorkerProcess) -> None:
        if worker.status.start_count > 1 and not worker.target.is_rolling:
            for dependent, dependency in self._dependents_of(worker):
                if dependency.restart and dependent.target.is_wanted:
                    dependent.restart()

    def _dependents_of(self, worker: WorkerProcess) -> list[tuple[WorkerProcess, Dependency]]:
        return [
            one
            for name in file_names(worker.status.instance)
            for one in self._dependents.get(name, ())
        ]


def _is_met(worker: WorkerProcess, condition: Condition) -> bool:
    status = worker.status
    if status.has_succeeded:
        return not worker.target.is_stopped_by_user
    if condition == "completed" or worker.target.restart_requested:
        return False
    if condition == "started":
        return status.child is not None
    if status.state != "ready":
        return False
    if condition == "healthy":
        return status.instance.spec.health is None or status.is_healthy is True
    return condition == "ready" or not worker.joins or status.is_active


def _describe(worker: WorkerProcess, condition: Condition, has_failed: bool) -> str:  # noqa: FBT001
    """Return what is missing: a worker, the condition, and its state where that needs attention."""
    state = "stopped" if worker.target.is_stopped_by_user else worker.status.state
    awaited = worker.name if has_failed else f"{worker.name} {_AWAITED[condition]}"
    return awaited if state in {"starting", "ready", "waiting"} else f"{awaited} ({state})"
