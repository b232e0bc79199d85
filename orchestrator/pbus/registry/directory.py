"""The reading side of the registry: ready workers, watches, and choice among replicas."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from pbus.errors import WorkerNotFoundError
from pbus.names import group_of
from pbus.registry.event_data import WorkerLostData, WorkerReadyData
from pbus.registry.table import Change, MembershipTable
from pbus.registry.watches import Handler, Watch, Watches


class Directory:
    """Finds and watches workers by name.

    The name of a group ("x" for "x.1" … "x.9") stands for its replicas.

    Attributes:
        is_live: Whether it hears of other workers as they come and go, not only with its polls.
    """

    def __init__(self) -> None:
        self.is_live = True
        self._table = MembershipTable()
        self._groups = self._table.groups()
        self._children = (
            MembershipTable()
        )  # known in this process only: neither leased nor announced
        self._watches = Watches()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str) -> WorkerReadyData | None:
        """The ready worker of a name, children of this runner first; the first replica of a group."""
        if not self.is_live:
            self._note_asked(name)
        member = self._children.find(name) or self._table.find(name)
        if member is not None and member.entry.ready:
            return member.data
        replicas = self._table.replicas(name)
        return replicas[0].data if replicas else None

    def ready_names(self) -> list[str]:
        """The names of all ready workers, children of this runner included."""
        if not self.is_live:
            self._note_asked(None)
        return [*self._children.ready_names(), *self._table.ready_names()]

    def is_group(self, name: str) -> bool:
        """Whether a name stands for ready replicas rather than for a ready worker of just that name."""
        if name not in self._groups:  # nearly always; called for each message
            return False
        data = self.get(name)
        return data is not None and data.worker_name != name

    def is_there(self, name: str) -> bool:
        """Whether a worker of a name, or a replica of a group, is known, ready or not."""
        member = self._children.find(name) or self._table.find(name)
        return member is not None or name in self._groups

    @property
    def version(self) -> int:
        """Grows with each change of the workers that processes announce."""
        return self._table.version

    def is_inactive(self, name: str) -> bool:
        """Whether a worker of a name is inactive, or was when it left."""
        return self._table.is_inactive(name)

    def is_child(self, name: str) -> bool:
        """Whether a name is that of a child of this runner."""
        return self._children.find(name) is not None

    def ready(self, name: str) -> list[WorkerReadyData]:
        """The ready and active workers of a name, replicas by number."""
        member = self._children.find(name) or self._table.find(name)
        found = [member] if member is not None else self._table.replicas(name)
        return [each.data for each in found if each.entry.ready and each.entry.active]

    def watch(self, name: str, handler: Handler[WorkerReadyData]) -> Watch[WorkerReadyData]:
        """Call a handler each time an incarnation of a worker is ready, at once if one is already.

        ``await registry.watch(…)`` waits until a call for a worker that is ready already has ended.

        Args:
            name: Of a worker; for a group, the handler is called when the first replica is ready.
            handler: Called with the data.

        Returns:
            The watch; the same one for the same name and handler.
        """
        if not self.is_live:
            self._note_asked(name)
        watch, is_new = self._watches.ready.add(name, handler)
        data = self.get(name)
        if is_new and data is not None:
            watch.call(data)
        return watch

    def watch_lost(
        self, name: str | None, handler: Handler[WorkerLostData]
    ) -> Watch[WorkerLostData]:
        """Call a handler each time a worker is lost.

        Args:
            name: Of a worker or a group; None for all workers.
            handler: Called with the data.
        """
        if not self.is_live:
            self._note_asked(name)
        watch, _ = self._watches.lost.add(name, handler)
        return watch

    async def wait_ready(
        self,
        name: str,
        timeout: float | None = None,  # noqa: ASYNC109 - raises an error of its own
    ) -> WorkerReadyData:
        """Wait until a worker, or a replica of a group, is ready.

        Args:
            name: The worker's or the group's.
            timeout: Seconds; None for no limit.

        Raises:
            WorkerNotFoundError: None was ready in time.
        """
        data = self.get(name)
        if data is not None:
            return data
        ready: asyncio.Future[WorkerReadyData] = asyncio.get_running_loop().create_future()

        async def note(data: WorkerReadyData) -> None:
            if not ready.done():
                ready.set_result(data)

        watch = self.watch(name, note)
        try:
            async with asyncio.timeout(timeout):
                return await ready
        except TimeoutError:
            raise WorkerNotFoundError(name, timeout or 0.0) from None
        finally:
            watch.cancel()

    async def follow(self) -> None:
        """Hear of other workers as they come and go, and know those that are there. Idempotent.

        While the broker is away it returns at once; what is missing comes with a later heartbeat.
        """
        if not self.is_live:
            await self._go_live()

    async def _go_live(self) -> None:
        """Follow for the first time."""

    def _note_asked(self, name: str | None) -> None:
        """Something here asks for a worker, or for all, while the view is not live."""

    def _notify(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._watches.notify(change)


class Replicas:
    """Spreads messages and jobs: fewest open jobs first, then in turn.

    Args:
        directory: Knows the workers.

    Attributes:
        loads: Jobs and messages of other senders that wait at workers, by name, as far as known.
    """

    def __init__(self, directory: Directory) -> None:
        self.loads: Mapping[str, int] = {}
        self._directory = directory
        self._open: Counter[str] = Counter()
        self._last: dict[str, str] = {}  # by group: the replica chosen last

    def choose(self, name: str) -> WorkerReadyData | None:
        """Choose the receiver of a message or a job.

        Args:
            name: Of a worker or a group.

        Returns:
            The ready worker of that name, or a ready and active replica. A ready but inactive
            replica when none is active, since its rejection is better than silence. None when no
            worker is ready.
        """
        data = self._directory.get(name)
        if data is None or data.worker_name == name:
            return data
        candidates = self._directory.ready(name) or [data]
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
        """The ready worker of a name, or all ready replicas of a group, active or not."""
        data = self._directory.get(name)
        if data is None:
            return []
        if data.worker_name == name:
            return [name]
        return sorted({each for each in self._directory.ready_names() if group_of(each) == name})

    def job_started(self, worker: str) -> None:
        """Count an open job of a worker."""
        self._open[worker] += 1

    def job_ended(self, worker: str) -> None:
        """Count an open job of a worker no longer."""
        self._open[worker] -= 1
        if self._open[worker] <= 0:
            del self._open[worker]
