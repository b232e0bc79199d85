"""Changes of a running project: planned when asked for, and carried out by the plan's id."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from pbus.errors import ControlRefusedError
from pbus.process.supervisor.changes.applied import Applied, load
from pbus.process.supervisor.changes.membership import Membership
from pbus.process.supervisor.changes.plan import (
    Action,
    Plan,
    Present,
    changed_keys,
    fixed_keys,
    make_plan,
)
from pbus.process.supervisor.changes.wanted import (
    Wanted,
    read_request,
    wanted_of_file,
    wanted_of_scale,
)
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker_set import WorkerSet
from pbus.topology.model import Topology, WorkerInstance
from pbus.topology.policy.shared_process import file_names, process_instance

_MAX_PLANS = 16  # kept until they are carried out; the oldest is dropped

logger = logging.getLogger(__name__)

OnApplied = Callable[[Applied, bool], None]


class Changes:
    """Plans changes and carries them out.

    Args:
        applied: What runs from the start.
        workers: The workers.
        membership: Adds workers and takes them out.
        state_dir: The project's state folder.
        on_applied: Called with what is applied now, and whether that is the file.
        is_rolling: Returns those of some workers that are being restarted one by one.

    Attributes:
        applied: What is applied.
    """

    def __init__(
        self,
        applied: Applied,
        workers: WorkerSet,
        membership: Membership,
        state_dir: Path,
        on_applied: OnApplied,
        is_rolling: Callable[[set[str]], set[str]],
    ) -> None:
        self.applied = applied
        self._workers = workers
        self._membership = membership
        self._state_dir = state_dir
        self._on_applied = on_applied
        self._is_rolling = is_rolling
        self._wanted: dict[str, Wanted] = {}

    async def plan(self, request_id: str, scale: Mapping[str, int] | None) -> Plan:
        """Make a plan, and keep it to be carried out.

        Args:
            request_id: Names the plan, and the `UpRequest` where nothing is scaled.
            scale: Wanted numbers of replicas by worker.

        Raises:
            TopologyError: The file has problems.
            ControlRefusedError: There is no such request, or it asks for what cannot be.
        """
        if scale:
            wanted = wanted_of_scale(scale, self.applied, self._instances())
        else:
            request = read_request(self._state_dir, request_id)
            topology = await load([Path(one) for one in request.files], request.environ)
            wanted = wanted_of_file(request, topology, self.applied, self._instances())
        self._wanted[request_id] = wanted
        while len(self._wanted) > _MAX_PLANS:
            del self._wanted[next(iter(self._wanted))]
        return self._plan(wanted)

    def carry_out(self, request_id: str) -> dict[str, Action]:
        """Carry out a plan, as of now; returns what is done by the name of the process.

        Raises:
            ControlRefusedError: There is no such plan, or it cannot be carried out.
        """
        wanted = self._wanted.pop(request_id, None)
        if wanted is None:
            raise ControlRefusedError("the plan is not known any more")
        plan = self._plan(wanted)
        if plan.fixed:
            raise ControlRefusedError(f"{', '.join(plan.fixed)} cannot change while it runs")
        if rolled := sorted(self._is_rolling({one.worker for one in plan.changes})):
            raise ControlRefusedError(f"{', '.join(rolled)} is being restarted one by one")
        instances = {one.name: one for one in wanted.instances}
        actions = self._actions(plan, instances)
        self._apply(actions, instances)
        self.applied = wanted.applied
        self._on_applied(self.applied, wanted.is_of_file)
        return actions

    def _actions(self, plan: Plan, instances: Mapping[str, WorkerInstance]) -> dict[str, Action]:
        """The action for each process; "scale" is one of its two."""
        present = {worker.name for worker in self._present()}
        actions = {name: one.action for one in plan.changes for name in one.instances}
        for name in actions:
            if name not in instances:
                actions[name] = "remove"
            elif name not in present:
                actions[name] = "add"
        return actions

    async def reread(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Have workers take what the file says of them with their next process.

        A file that is missing changes nothing.

        Returns:
            The keys that differ, by the name of the process; only where some do.

        Raises:
            TopologyError: The file has problems.
            ControlRefusedError: It cannot be read in time.
        """
        files = self.applied.topology.files
        if not await asyncio.to_thread(lambda: all(file.exists() for file in files)):
            logger.warning("%s is missing: workers are started as before", files[0])
            return {}
        topology = await load(files, self.applied.environ)
        found = {name: self._adopt_from(topology, name) for name in names}
        changed = {name: keys for name, keys in found.items() if keys}
        if changed:
            specs = {
                name for one in changed for name in file_names(self._workers[one].next_instance)
            }
            workers = self.applied.topology.workers | {one: topology.workers[one] for one in specs}
            applied = msgspec.structs.replace(self.applied.topology, workers=workers)
            self.applied = msgspec.structs.replace(self.applied, topology=applied)
            self._on_applied(self.applied, False)  # noqa: FBT003 - see OnApplied
        return changed

    def _adopt_from(self, topology: Topology, name: str) -> tuple[str, ...]:
        worker = self._workers.get(name)
        old = None if worker is None else worker.next_instance.spec
        new = None if old is None else topology.workers.get(old.name)
        if worker is None or old is None or new is None:
            return ()
        if (old.replicas is None) != (new.replicas is None):
            return ()  # another name: `pbus up` replaces it
        instance = process_instance(topology, new.name, worker.name)
        keys = changed_keys(old, instance.spec)
        if keys:
            worker.adopt(instance)
        return keys

    def _plan(self, wanted: Wanted) -> Plan:
        present = [Present(one.next_instance, _why_down(one)) for one in self._present()]
        plan = make_plan(present, wanted.instances, declared=wanted.applied.topology.workers)
        if wanted.is_of_file:
            fixed = fixed_keys(self.applied.topology, wanted.applied.topology)
            return msgspec.structs.replace(plan, fixed=fixed)
        scaled = tuple(one for one in plan.changes if one.action in {"add", "scale"})
        return msgspec.structs.replace(plan, changes=scaled)

    def _present(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if not worker.target.is_leaving]

    def _instances(self) -> list[WorkerInstance]:
        return [worker.next_instance for worker in self._present()]

    def _apply(
        self, actions: Mapping[str, Action], instances: Mapping[str, WorkerInstance]
    ) -> None:
        def named(*kinds: Action) -> list[str]:
            return [name for name, action in actions.items() if action in kinds]

        for name in named("restart", "update", "start"):
            self._workers[name].adopt(instances[name])
        for name in named("add"):
            self._membership.add(instances[name])
        self._membership.refresh()
        for name in named("restart", "start"):
            self._workers[name].restart()
        self._membership.take_out(named("remove"))


def _why_down(worker: WorkerProcess) -> str:
    """Return why a worker that is wanted does not run; one that has done its work is in order."""
    if worker.target.is_stopped_by_user:
        return "stopped"
    return "failed" if worker.status.state == "failed" else ""
