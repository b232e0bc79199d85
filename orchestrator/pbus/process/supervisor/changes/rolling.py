"""Rolling restarts: of a group of replicas the next process is ready before an old one drains."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from pbus.messages import ControlOutcome
from pbus.names import replica_name, replica_number
from pbus.process.supervisor.changes.membership import Membership
from pbus.process.supervisor.start_order import StartOrder
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker_set import WorkerSet
from pbus.topology.model import Topology
from pbus.topology.policy.shared_process import process_instance

_READY_S = 330.0  # a worker that is not registered in time is given up by its probe, after 300 s

logger = logging.getLogger(__name__)

Outcome: TypeAlias = tuple[ControlOutcome, str]


class NotReplacedError(Exception):
    """A process did not become ready; its text says why."""


class RollingRun:
    """One rolling restart.

    Attributes:
        names: The processes that are replaced.
        groups: The workers of the file that they belong to.
        outcomes: The outcome of each that is done with, by name.
    """

    def __init__(self, names: Sequence[str], groups: Iterable[str] = ()) -> None:
        self.names = list(names)
        self.groups = frozenset(groups)
        self.outcomes: dict[str, Outcome] = {}


class Rolling:
    """Replaces processes one after the other.

    A group gets one more replica, made as its next ones are. When that is ready the others are
    restarted in turn, each when the one before is ready again, and then it leaves. So there are never
    fewer ready replicas than before, and each keeps its name with all that waits for it.

    Args:
        workers: All workers.
        membership: Adds workers and takes them out.
        order: Their order.
        topology: Returns what is applied of the file.
        on_outcome: Called when an outcome is known.
    """

    def __init__(
        self,
        workers: WorkerSet,
        membership: Membership,
        order: StartOrder,
        topology: Callable[[], Topology],
        on_outcome: Callable[[], None],
    ) -> None:
        self.groups: set[str] = set()
        self._runs: list[RollingRun] = []
        self._workers = workers
        self._membership = membership
        self._order = order
        self._topology = topology
        self._on_outcome = on_outcome
        self._has_changed = asyncio.Event()
        self._turn = asyncio.Lock()

    def notify(self) -> None:
        """Handle a change of any worker."""
        self._has_changed.set()

    def start(
        self, names: Iterable[str], *, timeout_s: float | None = None, reason: str = ""
    ) -> RollingRun:
        """Replace workers; runs in the background, after those before.

        Args:
            names: Workers that run; others are left alone.
            timeout_s: Seconds for running jobs of each; None for the default.
            reason: Why pbus itself does it, as text.
        """
        listed = list(names)
        run = RollingRun(listed, map(_group, self._named(listed)))
        self._runs.append(run)
        self.groups |= run.groups
        self._membership.spawn(self._run(run, timeout_s, reason), "rolling restart")
        return run

    async def _run(self, run: RollingRun, timeout_s: float | None, reason: str) -> None:
        async with self._turn:
            try:
                await self._replace_all(run, timeout_s, reason)
            except Exception:
                logger.exception("a rolling restart failed")
            finally:
                self._runs.remove(run)
                self.groups -= run.groups.difference(*(one.groups for one in self._runs))
                left = [name for name in run.names if name not in run.outcomes]
                self._tell(run, left, ("refused", "left as it was"))

    async def _replace_all(self, run: RollingRun, timeout_s: float | None, reason: str) -> None:
        members: dict[str, list[WorkerProcess]] = {}
        for worker in self._named(run.names):
            if worker.is_running:
                members.setdefault(_group(worker), []).append(worker)
            else:
                self._tell(run, worker.names, ("unchanged", "it does not run"))
        try:
            for group in self._order.sorted_groups(members):
                await self._replace_group(members[group], run, timeout_s, reason)
        except NotReplacedError as error:
            left = [name for name in run.names if name not in run.outcomes]
            self._tell(run, left, ("refused", f"left as it was: {error}"))

    async def _replace_group(
        self,
        members: Sequence[WorkerProcess],
        run: RollingRun,
        timeout_s: float | None,
        reason: str,
    ) -> None:
        """Replace processes of one worker.

        Raises:
            NotReplacedError: The next process did not become ready; those after it are not replaced.
        """
        group = _group(members[0])
        is_declared = group in self._topology().workers
        has_replicas = is_declared and members[0].next_instance.spec.replicas is not None
        spare = None
        if has_replicas:
            spare = await self._add_spare(group, is_required=not reason)
        for worker in members:
            try:
                with _rolling(worker) if spare is not None else contextlib.nullcontext():
                    await self._replace(worker, timeout_s, reason)
            except NotReplacedError as error:
                note = "" if spare is None else f"; {spare.name} serves until the next `pbus up`"
                self._tell(run, worker.names, ("failed", f"{error}{note}"))
                raise
            if worker is members[-1]:
                await self._take_out(spare)
            detail = "" if has_replicas else "in place, since it has no replicas"
            self._tell(run, worker.names, ("done", worker.status.open_messages or detail))

    async def _add_spare(self, group: str, *, is_required: bool) -> WorkerProcess | None:
        """Start one more replica.

        Args:
            group: The worker of the file.
            is_required: Whether its failure is the end of the rolling restart.

        Returns:
            The replica; None where it failed and is not required.

        Raises:
            NotReplacedError: It did not become ready, and is gone again.
        """
        own = [one.name for one in self._workers if _group(one) == group]
        name = replica_name(group, max(map(replica_number, own)) + 1)
        spare = self._membership.add(process_instance(self._topology(), group, name))
        try:
            await self._until_ready(spare, 1)
        except NotReplacedError as error:
            await self._take_out(spare)
            if is_required:
                raise
            logger.warning("%s is recycled in place: %s", group, error)
            return None
        return spare

    async def _take_out(self, spare: WorkerProcess | None) -> None:
        if spare is not None:
            self._membership.take_out([spare.name])
            with contextlib.suppress(NotReplacedError):
                await self._until(lambda: spare.target.is_final and not spare.is_running)

    async def _replace(self, worker: WorkerProcess, timeout_s: float | None, reason: str) -> None:
        if not worker.target.may_run:
            return  # a command has come between
        if reason:
            worker.replace(reason)
        else:
            worker.restart(timeout_s)
        await self._until_ready(worker, worker.target_start_count)

    async def _until_ready(self, worker: WorkerProcess, start_count: int) -> None:
        """Wait until a start of a worker is ready.

        Raises:
            NotReplacedError: It will not be.
        """
        status = worker.status

        def is_decided() -> bool:
            if worker.target.is_final or worker.target.is_stopped_by_user:
                return True
            return status.start_count >= start_count and status.state in _DECIDED

        await self._until(is_decided)
        if worker.target.is_final or worker.target.is_stopped_by_user:
            raise NotReplacedError(f"{worker.name} was stopped meanwhile")
        if status.state != "ready":
            why = status.record().trouble or status.state
            raise NotReplacedError(f"{worker.name} did not become ready: {why}")

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(_READY_S):
                while not condition():
                    self._has_changed.clear()
                    await self._has_changed.wait()
        except TimeoutError:
            raise NotReplacedError(f"not within {_READY_S:g} s") from None

    def _named(self, names: Iterable[str]) -> list[WorkerProcess]:
        found = dict.fromkeys(self._workers.get(name) for name in names)
        return [one for one in found if one is not None]

    def _tell(self, run: RollingRun, names: Iterable[str], outcome: Outcome) -> None:
        run.outcomes |= dict.fromkeys(names, outcome)
        self._on_outcome()


_DECIDED = frozenset({"ready", "backoff", "failed", "exited"})


def _group(worker: WorkerProcess) -> str:
    return worker.next_instance.spec.name


@contextlib.contextmanager
def _rolling(worker: WorkerProcess) -> Iterator[None]:
    """Mark a worker as being replaced while others serve: dependents are not restarted with it."""
    worker.target.is_rolling = True
    try:
        yield
    finally:
        worker.target.is_rolling = False
