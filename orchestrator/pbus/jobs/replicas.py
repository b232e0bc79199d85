"""One name, several workers: who of a group of replicas gets a message or a job."""

from collections import Counter
from collections.abc import Mapping

from pbus.jobs.group import JobMember
from pbus.names import group_of
from pbus.registry import WorkerReadyData, WorkerRegistry


class Replicas:
    """Spreads what one sender sends to a group: fewest open jobs first, then in turn.

    Attributes:
        loads: What workers have waiting from other senders, by name, as far as it is known.
    """

    def __init__(self, registry: WorkerRegistry) -> None:
        self.loads: Mapping[str, int] = {}
        self._registry = registry
        self._open: Counter[str] = Counter()
        self._last: dict[str, str] = {}  # by group: who got the last one

    def choose(self, name: str) -> WorkerReadyData | None:
        """The ready worker of this name, or a ready and active replica of this group.

        Where no replica is active any ready one is given: it says so better than silence. None
        when none is ready.
        """
        data = self._registry.get(name)
        if data is None or data.worker_name == name:
            return data
        candidates = self._registry.ready(name) or [data]
        names = [candidate.worker_name for candidate in candidates]
        last = self._last.get(name)
        start = names.index(last) + 1 if last in names else 0
        in_turn = candidates[start:] + candidates[:start]
        chosen = min(in_turn, key=lambda candidate: self._load(candidate.worker_name))
        self._last[name] = chosen.worker_name
        return chosen

    def _load(self, worker: str) -> int:
        return self._open[worker] + self.loads.get(worker, 0)

    def all_of(self, name: str) -> list[str]:
        """The ready worker of this name, or all ready replicas of this group, active or not."""
        data = self._registry.get(name)
        if data is None:
            return []
        if data.worker_name == name:
            return [name]
        known = self._registry.local_workers + self._registry.remote_workers
        return sorted({worker for worker in known if group_of(worker) == name})

    def working_on(self, member: JobMember) -> list[str]:
        """Who may be working on a part of a job: where replicas share their mail, any of them."""
        if member.worker != member.name or not member.is_kept:
            return [member.worker]
        return self.all_of(member.name) or [member.name]

    def begin(self, worker: str) -> None:
        """Count a job that this worker was given."""
        self._open[worker] += 1

    def end(self, worker: str) -> None:
        """Count it no more."""
        self._open[worker] -= 1
        if self._open[worker] <= 0:
            del self._open[worker]
