"""Recycling: processes over one of their `limits` are replaced, one replica of a group at a time."""

from collections.abc import Iterable

from pbus.process.supervisor.changes.rolling import Rolling
from pbus.process.supervisor.worker.usage import group_memory
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.topology.policy.policies import LimitsSpec

_MEASUREMENTS = 3  # in a row: a short peak is no leak
_MB = 1024 * 1024
_IN_ORDER = frozenset({"ready", "unhealthy"})
_AT_REST = _IN_ORDER | {"exited", "failed"}


class Recycling:
    """Replaces workers that are over a limit: replicas by a rolling restart, others in place.

    Args:
        workers: All workers.
        rolling: Rolling restarts.
    """

    def __init__(self, workers: Iterable[WorkerProcess], rolling: Rolling) -> None:
        self._workers = workers
        self._rolling = rolling
        self._peaks: dict[str, int] = {}  # measurements over the limit in a row, by incarnation

    def check(self) -> None:
        """Measure the limited workers; called each second."""
        limited = [one for one in self._workers if _has_limits(one)]
        memory = _memory_of(limited)
        peaks, self._peaks = self._peaks, {}
        for worker in limited:
            child = worker.status.child
            if child is None or not _is_in_order(worker):
                continue
            reason = self._memory_reason(worker.status, memory.get(child.pid, 0), peaks)
            reason = reason or _age_or_jobs_reason(worker.status)
            if reason and all(map(_is_at_rest, self._group_of(worker))):
                self._replace(worker, f"recycled: {reason}")

    def _replace(self, worker: WorkerProcess, reason: str) -> None:
        spec = worker.status.instance.spec
        if spec.replicas is None:
            worker.replace(reason)
        elif spec.name not in self._rolling.groups:
            self._rolling.start([worker.name], reason=reason)

    def _group_of(self, worker: WorkerProcess) -> list[WorkerProcess]:
        name = worker.status.instance.spec.name
        return [one for one in self._workers if one.status.instance.spec.name == name]

    def _memory_reason(self, status: WorkerStatus, used: int, peaks: dict[str, int]) -> str:
        limit, child = status.instance.spec.limits.memory_bytes, status.child
        if limit is None or child is None or used <= limit:
            return ""
        count = self._peaks[child.incarnation] = peaks.get(child.incarnation, 0) + 1
        if count < _MEASUREMENTS:
            return ""
        return f"{_megabytes(used)} of memory, more than {_megabytes(limit)}"


def _age_or_jobs_reason(status: WorkerStatus) -> str:
    limits, age_s = status.instance.spec.limits, status.clock() - status.begun_at
    if limits.age_s is not None and age_s >= limits.age_s:
        return f"it has run for {age_s:.0f} s, its limit is {limits.age_s:.10g} s"
    if limits.jobs is not None and status.jobs_done >= limits.jobs:
        return f"it has finished {status.jobs_done:,} jobs, its limit is {limits.jobs:,}"
    return ""


def _memory_of(workers: Iterable[WorkerProcess]) -> dict[int, int]:
    """Measure those that have a limit; returns bytes by pid."""
    return group_memory([
        one.status.child.pid
        for one in workers
        if one.status.child and one.status.instance.spec.limits.memory_bytes is not None
    ])


def _has_limits(worker: WorkerProcess) -> bool:
    return worker.status.instance.spec.limits != LimitsSpec()


def _is_in_order(worker: WorkerProcess) -> bool:
    return worker.target.may_run and worker.status.state in _IN_ORDER


def _is_at_rest(worker: WorkerProcess) -> bool:
    """Whether a replica is neither being replaced nor on its way up."""
    return not worker.target.restart_requested and worker.status.state in _AT_REST


def _megabytes(size: int) -> str:
    return f"{size / _MB:,.0f} MB" if size >= _MB else f"{size:,} bytes"
