"""The processes of a topology that are to run: all, some by name, some by profile."""

from collections.abc import Iterable

import msgspec

from pbus.errors import TopologyError
from pbus.topology.model import Topology, WorkerInstance
from pbus.topology.policy.dependencies import closure
from pbus.topology.policy.shared_process import process_key
from pbus.topology.problems import did_you_mean


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that are to run.

    Attributes:
        only: Names of workers, or of single replicas; where empty, the profiles decide.
        profiles: The chosen profiles; a worker without profiles is always chosen.
        with_dependencies: Also run what a chosen worker depends on.
    """

    only: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()
    with_dependencies: bool = True


ALL = Selection()


def select(topology: Topology, selection: Selection = ALL) -> list[WorkerInstance]:
    """Choose processes, in the order of the file; workers of one process are chosen together.

    Raises:
        TopologyError: A name or a profile is not in the topology.
    """
    _check_names(topology, selection.only)
    _check_profiles(topology, selection.profiles)
    chosen = [one for one in topology.instances() if _is_chosen(one, selection)]
    names = {one.spec.name for one in chosen}
    needed = closure(names, _waits_for(topology)) if selection.with_dependencies else names
    keys = {
        process_key(one)
        for one in topology.instances()
        if one in chosen or one.spec.name in needed - names
    }
    return [one for one in topology.instances() if process_key(one) in keys]


def _waits_for(topology: Topology) -> dict[str, list[str]]:
    """The workers that each worker needs: its dependencies, and the others of its process."""
    return {
        name: [
            *(one.worker for one in spec.depends_on),
            *(
                one
                for one, other in topology.workers.items()
                if spec.process and other.process == spec.process
            ),
        ]
        for name, spec in topology.workers.items()
    }


def _is_chosen(instance: WorkerInstance, selection: Selection) -> bool:
    spec = instance.spec
    if selection.only:
        return bool({instance.name, spec.name} & selection.only)
    return not spec.profiles or not spec.profiles.isdisjoint(selection.profiles)


def _check_names(topology: Topology, only: frozenset[str]) -> None:
    known = {*topology.workers, *(one.name for one in topology.instances())}
    _refuse(topology, only - known, topology.workers, "no worker is named")


def _check_profiles(topology: Topology, profiles: frozenset[str]) -> None:
    known = sorted({one for spec in topology.workers.values() for one in spec.profiles})
    _refuse(topology, profiles - set(known), known, "no worker has the profile")


def _refuse(topology: Topology, strangers: Iterable[str], known: Iterable[str], what: str) -> None:
    there = ", ".join(known)
    problems = [
        f"{topology.file}: {what} {name!r}{did_you_mean(name, known) or f' ({there})'}"
        for name in sorted(strangers)
    ]
    if problems:
        raise TopologyError(topology.file, problems)
