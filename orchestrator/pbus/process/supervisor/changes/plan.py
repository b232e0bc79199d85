"""The difference between the workers that run and those that are wanted, as a pure function."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from pbus.settings import BusSettings
from pbus.topology.model import LIVE_KEYS, REPLICA_VARIABLE, Topology, WorkerInstance, WorkerSpec

_FIXED = ("loop", "metrics", "history", "preload")

Action = Literal["add", "remove", "scale", "restart", "update", "start"]

NOT_IN_FILE = "not in the file any more"
NOT_CHOSEN = "not chosen any more"


class Change(msgspec.Struct, frozen=True):
    """One change of one worker.

    Attributes:
        worker: Its name in the file.
        action: "update": only what needs no new process.
        why: The keys that differ, or the reason in a few words.
        instances: The processes concerned, by name.
    """

    worker: str
    action: Action
    why: tuple[str, ...]
    instances: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be done for a project to be as it is wanted.

    Attributes:
        changes: In the order of the file; what is removed comes last.
        fixed: Keys that differ and cannot change while the project runs.
    """

    changes: tuple[Change, ...] = ()
    fixed: tuple[str, ...] = ()

    @property
    def instances(self) -> tuple[str, ...]:
        """The processes concerned, each once."""
        return tuple(dict.fromkeys(name for one in self.changes for name in one.instances))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.changes or self.fixed)


class Present(msgspec.Struct, frozen=True):
    """A worker of the supervisor.

    Attributes:
        instance: As the next process of it would be started.
        is_down: Why it does not run though it is wanted; "" for one that runs or has done its work.
    """

    instance: WorkerInstance
    is_down: str = ""


def make_plan(
    present: Iterable[Present],
    wanted: Iterable[WorkerInstance],
    *,
    declared: Iterable[str] = (),
) -> Plan:
    """Compare the workers that run with those that are wanted.

    Args:
        present: The workers of the supervisor.
        wanted: The workers that are to run.
        declared: Names of the workers in the file.
    """
    groups: dict[str, _Group] = {}
    for instance in wanted:
        groups.setdefault(instance.spec.name, _Group()).new[instance.name] = instance
    for one in present:
        groups.setdefault(one.instance.spec.name, _Group()).old[one.instance.name] = one
    known = frozenset(declared)
    changes = [one for name, group in groups.items() for one in _changes_of(name, group, known)]
    changes.sort(key=lambda change: change.action == "remove")
    return Plan(changes=tuple(changes))


class _Group:
    """The processes of one worker of the file, by name.

    Attributes:
        old: Those that run.
        new: Those that are wanted.
    """

    def __init__(self) -> None:
        self.old: dict[str, Present] = {}
        self.new: dict[str, WorkerInstance] = {}


def _changes_of(worker: str, group: _Group, declared: frozenset[str]) -> Iterator[Change]:
    added = tuple(name for name in group.new if name not in group.old)
    removed = tuple(name for name in group.old if name not in group.new)
    if len(added) == len(group.new) or len(removed) == len(group.old):
        why = NOT_CHOSEN if worker in declared else NOT_IN_FILE
        yield from _whole_changes(worker, added, removed, why)
        return
    if added or removed:
        why = f"{len(group.old)} → {len(group.new)}"
        yield Change(worker, "scale", (why,), (*added, *removed))
    yield from _kept_changes(worker, group)


def _whole_changes(
    worker: str, added: tuple[str, ...], removed: tuple[str, ...], why: str
) -> Iterator[Change]:
    """Changes of a worker of which no process stays."""
    if added:
        yield Change(worker, "add", ("replicas",) if removed else (), added)
    if removed:
        yield Change(worker, "remove", ("replicas" if added else why,), removed)


def _kept_changes(worker: str, group: _Group) -> Iterator[Change]:
    found: dict[tuple[Action, tuple[str, ...]], list[str]] = {}
    for name, new in group.new.items():
        old = group.old.get(name)
        change = None if old is None else _change_of(old, new)
        if change is not None:
            found.setdefault(change, []).append(name)
    for (action, why), names in found.items():
        yield Change(worker, action, why, tuple(names))


def _change_of(old: Present, new: WorkerInstance) -> tuple[Action, tuple[str, ...]] | None:
    keys = changed_keys(old.instance.spec, new.spec)
    if old.is_down:
        return "start", (old.is_down, *keys)
    if not keys:
        return None
    return "update" if LIVE_KEYS.issuperset(keys) else "restart", keys


def changed_keys(old: WorkerSpec, new: WorkerSpec) -> tuple[str, ...]:
    """Return the keys of the file by which two specs of one instance differ.

    The number of replicas is none of them: it makes or ends other instances.
    """
    return tuple(
        path
        for key in WorkerSpec.__struct_fields__
        if key not in {"name", "replicas"}
        for path in _differences(key, getattr(old, key), getattr(new, key))
        if path != f"env.{REPLICA_VARIABLE}"
    )


def _differences(path: str, old: Any, new: Any) -> list[str]:
    if path in {"args", "env"}:
        names = dict.fromkeys([*old, *new])
        return [f"{path}.{name}" for name in names if _is_other(old, new, name)]
    return [] if old == new else [path]


def _is_other(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> bool:
    if (name in old) != (name in new):
        return True
    one, other = old[name], new[name]
    return one != other or type(one) is not type(other)  # 1 == True


def fixed_keys(old: Topology, new: Topology) -> tuple[str, ...]:
    """Return the keys by which two topologies differ that no running project can change."""
    found = [f"bus.{key}" for key in _bus_keys(old.bus, new.bus)]
    return (*found, *(key for key in _FIXED if getattr(old, key) != getattr(new, key)))


def _bus_keys(old: BusSettings, new: BusSettings) -> list[str]:
    before, after = old.to_keys(), new.to_keys()
    return [key for key in before if before[key] != after[key]]
