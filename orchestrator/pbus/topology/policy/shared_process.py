"""Workers of one process (`process: NAME`): which instances share one, and what it is."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import msgspec

from pbus.topology.model import REPLICA_VARIABLE, Member, Topology, WorkerInstance

Key: TypeAlias = tuple[str, str | None]


def process_key(instance: WorkerInstance) -> Key:
    """Return a key that is the same for all instances of one process, and for no others."""
    spec = instance.spec
    if spec.process is None:
        return instance.name, None
    return f"{spec.process} ", spec.env.get(REPLICA_VARIABLE)  # no name has a space


def processes_of(instances: Iterable[WorkerInstance]) -> list[WorkerInstance]:
    """Return one instance a process: its first worker, with all others as `members` of its spec."""
    found: dict[Key, list[WorkerInstance]] = {}
    for one in instances:
        found.setdefault(process_key(one), []).append(one)
    return [group[0] if len(group) == 1 else _joined(group) for group in found.values()]


def process_instance(topology: Topology, worker: str, name: str) -> WorkerInstance:
    """Return the process of an instance, also of a replica that the file does not count.

    Args:
        topology: The topology.
        worker: A worker of it.
        name: Of the instance of that worker.
    """
    spec = topology.workers[worker]
    own = spec.instance(name)
    if spec.process is None:
        return own
    suffix = name.removeprefix(worker)
    sharing = [one for one in topology.workers.values() if one.process == spec.process]
    return processes_of([one.instance(one.name + suffix) for one in sharing])[0]


def file_names(instance: WorkerInstance) -> list[str]:
    """Return the names in the file of all workers of a process."""
    return [member.group for member in instance.spec.members] or [instance.spec.name]


def process_names(topology: Topology) -> dict[str, str]:
    """Return the name under which each instance is supervised: that of the first of its process."""
    return {
        name: process.name
        for process in processes_of(topology.instances())
        for name in process.names
    }


def _joined(group: list[WorkerInstance]) -> WorkerInstance:
    first = group[0]
    own = {one.spec.name: one.name for one in group}
    needed = [dependency for one in group for dependency in one.spec.depends_on]
    spec = msgspec.structs.replace(
        first.spec,
        members=tuple(_member(one, own) for one in group),
        depends_on=tuple(dict.fromkeys(one for one in needed if one.worker not in own)),
        watch=_watched(group),
    )
    return WorkerInstance(name=first.name, spec=spec)


def _watched(group: Iterable[WorkerInstance]) -> tuple[Path, ...] | None:
    given = [one.spec.watch for one in group if one.spec.watch is not None]
    return tuple(dict.fromkeys(path for paths in given for path in paths)) if given else None


def _member(instance: WorkerInstance, own: dict[str, str]) -> Member:
    spec = instance.spec
    return Member(
        name=instance.name,
        group=spec.name,
        worker=spec.worker or "",
        args=spec.args,
        active=spec.active,
        file=spec.file,
        after=tuple(own[one.worker] for one in spec.depends_on if one.worker in own),
    )
