"""Rules for workers of one process: what belongs to the process must be the same for all."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from pbus.topology.model import WorkerSpec
from pbus.topology.policy.dependencies import find_cycles
from pbus.topology.policy.policy_rules import PlaceOf
from pbus.topology.problems import Place, Problems
from pbus.topology.schema import WorkerSection

# Given by one worker they hold for all of its process.
PROCESS_KEYS: Final = (
    "working_dir", "ready", "health", "restart", "success_exit_codes", "on_exit", "limits", "start",
    "stop",
)  # fmt: skip

_OUTSIDE: Final = ("healthy", "completed")  # conditions of whole processes


class Sharer(msgspec.Struct, frozen=True):
    """A worker of a process.

    Attributes:
        section: Its keys.
        folder: Of the file that declares it.
        variables: Those of its `env` and `env_file`.
    """

    section: WorkerSection
    folder: Path
    variables: Mapping[str, str]


def check_processes(sharers: Mapping[str, Sharer], place: PlaceOf, problems: Problems) -> None:
    """Note every broken rule of workers that share processes.

    Args:
        sharers: All workers of the file.
        place: From keys below `workers` to their place in the file.
        problems: Where to note them.
    """
    groups: dict[str, dict[str, Sharer]] = {}
    for name, one in sharers.items():
        if one.section.process is not None:
            groups.setdefault(one.section.process, {})[name] = one
    for process, group in groups.items():
        _Group(process, group, place, problems).check()
    _check_circles(sharers, place, problems)


class _Group:
    """The workers of one process."""

    def __init__(
        self, process: str, workers: Mapping[str, Sharer], place: PlaceOf, problems: Problems
    ) -> None:
        self._process = process
        self._workers = workers
        self._place = place
        self._problems = problems

    def check(self) -> None:
        """Note every broken rule."""
        for name, one in self._workers.items():
            self._check_kind(name, one.section)
            self._check_order(name, one.section)
        for key in PROCESS_KEYS:
            self._check_equal(key, {name: _given(one, key) for name, one in self._workers.items()})
        self._check_equal(
            "replicas", {n: (one.section.replicas,) for n, one in self._workers.items()}
        )
        if not any(one.section.working_dir for one in self._workers.values()):
            self._check_equal("working_dir", {n: (one.folder,) for n, one in self._workers.items()})
        self._check_variables()

    def _check_kind(self, name: str, section: WorkerSection) -> None:
        for key in ("command", "pipecat"):
            if getattr(section, key):
                self._add(name, key, "a program is a process of its own: remove `process`")
        if section.joins is False:
            self._add(name, "joins", "workers of one process join the bus: remove one of the two")

    def _check_order(self, name: str, section: WorkerSection) -> None:
        named = section.depends_on if isinstance(section.depends_on, dict) else {}
        for other, dependency in named.items():
            condition = getattr(dependency, "condition", None)
            if other in self._workers and condition in _OUTSIDE:
                problem = f"{other} is in the same process, so it cannot be {condition} before"
                self._problems.add(self._place(name, "depends_on", other), problem)

    def _check_equal(self, key: str, given: Mapping[str, tuple[object, ...]]) -> None:
        """Note a worker whose value differs from the first one that is given."""
        first = ""
        for name, values in given.items():
            if values and not first:
                first = name
            elif values and values != given[first]:
                self._differs(name, key, first)

    def _check_variables(self) -> None:
        held: dict[str, str] = {}
        for name, one in self._workers.items():
            for variable, value in one.variables.items():
                other = held.setdefault(variable, name)
                if self._workers[other].variables[variable] != value:
                    self._differs(name, "env", other, f" in the value of {variable}")

    def _differs(self, name: str, key: str, other: str, where: str = "") -> None:
        at, there = self._place(name, key), self._place(other, key)
        shown = self._problems.shown(there.line, beside=at.line)
        self._problems.add(
            at,
            f"it differs{where} from {other} ({shown}), and both run in the process {self._process}",
        )

    def _add(self, name: str, key: str, text: str) -> None:
        self._problems.add(self._place(name, key), text)


def _given(sharer: Sharer, key: str) -> tuple[object, ...]:
    value = getattr(sharer.section, key)
    if value is None:
        return ()
    return (sharer.folder / str(value),) if key == "working_dir" else (value,)


def _check_circles(sharers: Mapping[str, Sharer], place: PlaceOf, problems: Problems) -> None:
    """Note processes that wait for each other, where their workers do not."""
    plain = {name: list(one.section.depends_on or ()) for name, one in sharers.items()}
    if find_cycles(plain):  # told already
        return
    processes = {name: _process_of(name, one.section) for name, one in sharers.items()}
    for cycle in find_cycles(_between(processes, plain)):
        at: Place = place(
            next(name for name, one in processes.items() if one == cycle[0]), "process"
        )
        problems.add(
            at, f"these processes wait for each other: {' → '.join(map(str.strip, cycle))}"
        )


def _between(
    processes: Mapping[str, str], waits_for: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    """What each process waits for, from what each worker waits for."""
    found: dict[str, list[str]] = {process: [] for process in processes.values()}
    for name, others in waits_for.items():
        own = processes[name]
        needed = (processes.get(other, other) for other in others)
        found[own] += [process for process in needed if process != own]
    return found


def _process_of(name: str, section: WorkerSection) -> str:
    return name if section.process is None else f"process {section.process}"


def shared_alike(
    specs: Mapping[str, WorkerSpec], sections: Mapping[str, WorkerSection]
) -> dict[str, WorkerSpec]:
    """Give all workers of a process what one of them says of it.

    Args:
        specs: The workers, checked.
        sections: Their keys as given.
    """
    givers: dict[tuple[str | None, str], WorkerSpec] = {}
    for name, section in sections.items():
        for key in PROCESS_KEYS:
            if getattr(section, key) is not None:
                givers.setdefault((section.process, key), specs[name])
    return {
        name: spec
        if spec.process is None
        else msgspec.structs.replace(
            spec,
            **{
                key: getattr(givers[spec.process, key], key)
                for key in PROCESS_KEYS
                if (spec.process, key) in givers
            },
        )
        for name, spec in specs.items()
    }
