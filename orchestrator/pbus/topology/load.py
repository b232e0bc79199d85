"""Topology files become a `Topology` in four steps: compose, expand, check, build."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import cast

import msgspec

from pbus.errors import TopologyError
from pbus.settings import BusSettings
from pbus.topology.check import check_shape
from pbus.topology.composition.anchoring import Origin, anchored, origins
from pbus.topology.composition.compose import compose
from pbus.topology.model import DEFAULT_START, StartMode, Topology, WorkerSpec
from pbus.topology.name_rules import clean_name
from pbus.topology.parsing.env_file import EnvFiles
from pbus.topology.parsing.nodes import Mapping, secret_paths
from pbus.topology.parsing.variables import expand_tree
from pbus.topology.paths import as_named
from pbus.topology.policy.policies import HistorySpec, MetricsSpec
from pbus.topology.policy.policy_build import (
    build_dependencies,
    build_health,
    build_limits,
    build_ready,
    build_restart,
    build_stop,
    parse_address,
)
from pbus.topology.policy.process_rules import shared_alike
from pbus.topology.problems import Place, Problems
from pbus.topology.rules import backend_of, check_rules, listen_text
from pbus.topology.schema import (
    BusSection,
    HistorySection,
    MetricsSection,
    TopologyFile,
    WorkerSection,
)
from pbus.urls import MEMORY_URL

DOT_ENV = ".env"


def load_topology(file: Path | Sequence[Path], environ: AbstractMapping[str, str]) -> Topology:
    """Read and check a whole topology; nothing is imported and nothing started.

    Args:
        file: The YAML file; of several, later ones are merged into the first, which gives the folder.
        environ: The values of ``${VAR}`` in the files; those that it lacks are read from a file
            named .env beside the first.

    Raises:
        TopologyError: With every problem of all files, each with file, line and key.
    """
    files = (file,) if isinstance(file, Path) else tuple(file)
    problems = Problems(files[0])
    env_files, environ = _surroundings(environ, problems)
    tree = compose(files, environ, problems)
    expanded = expand_tree(tree, environ, problems, Place(tree.line, ""))
    tree = anchored(cast("Mapping", expanded), problems)
    checked = check(tree, env_files, problems)
    return _build(checked, tree, env_files, problems, files)


def read_tree(
    files: Sequence[Path], environ: AbstractMapping[str, str]
) -> tuple[Mapping, Problems]:
    """The tree of a topology, unchecked, with an empty collection of problems for its lines."""
    problems = Problems(files[0])
    _, environ = _surroundings(environ, problems)
    try:
        tree = compose(files, environ, problems)
    except TopologyError:  # it was edited meanwhile
        tree = Mapping(1, {})
    return tree, problems.emptied()


def _surroundings(
    environ: AbstractMapping[str, str], problems: Problems
) -> tuple[EnvFiles, dict[str, str]]:
    """The reader of environment files, and the variables with those of `.env`."""
    folder = as_named(problems.file.parent)
    env_files = EnvFiles(folder, problems, environ)
    is_there = (folder / DOT_ENV).is_file()  # a folder of that name is a virtual environment
    own = env_files.read(DOT_ENV, Place(1, "")) if is_there else {}
    return env_files, {**own, **environ}


def check(tree: Mapping, env_files: EnvFiles, problems: Problems) -> TopologyFile:
    """The values of a tree, checked.

    Raises:
        TopologyError: With every problem of this step and those before it.
    """
    file = check_shape(tree, problems)
    if file is None:
        raise problems.error()
    check_rules(file, tree, origins(tree, problems), env_files, problems)
    problems.raise_if_any()
    return file


def _build(
    checked: TopologyFile,
    tree: Mapping,
    env_files: EnvFiles,
    problems: Problems,
    given: Iterable[Path],
) -> Topology:
    """The values that the rest of pbus reads, with defaults.

    Args:
        checked: The values of the tree.
        tree: It tells the files that workers stand in.
        env_files: Read already.
        problems: Of the load: they know its files.
        given: Those of the files that the user named.
    """
    file, *overrides = (as_named(file.parent) / file.name for file in given)
    parts = (as_named(file.parent) / file.name for file in problems.files)
    folder = file.parent
    name = checked.name or clean_name(folder.name)
    shared = _variables(checked.env, checked.env_file, env_files)
    found = origins(tree, problems)
    bus = _build_bus(checked.bus or BusSection(), name)
    own = _variables_of_workers(checked, env_files)
    return Topology(
        name=name,
        file=file,
        overrides=tuple(overrides),
        parts=tuple(part for part in parts if part not in {file, *overrides}),
        folder=folder,
        bus=bus,
        workers=shared_alike(
            {
                worker: _build_worker(
                    worker,
                    section,
                    found[worker],
                    shared | own[worker],
                    _start_of(section, checked),
                )
                for worker, section in checked.workers.items()
            },
            checked.workers,
        ),
        env=shared,
        loop=checked.loop or "asyncio",
        preload=tuple(checked.preload or ()),
        metrics=_build_metrics(checked.metrics),
        history=_build_history(checked.history, bus),
        secrets=frozenset(secret_paths(tree)),
    )


def _build_bus(section: BusSection, name: str) -> BusSettings:
    keys = msgspec.structs.asdict(section)
    if backend_of(section) == "memory":
        keys["url"] = MEMORY_URL
    return BusSettings.from_keys({**keys, "channel": section.channel or f"pbus:{name}"})


def _build_metrics(section: MetricsSection | None) -> MetricsSpec | None:
    return None if section is None else MetricsSpec(*parse_address(listen_text(section)))


def _build_history(section: HistorySection | None, bus: BusSettings) -> HistorySpec:
    given = None if section is None else section.traffic
    is_dear = bus.is_stored and bus.backend == "pgmq"  # a row of the server for each message
    return HistorySpec(traffic=not (is_dear or bus.is_in_process) if given is None else given)


def _variables(
    given: AbstractMapping[str, object] | None, names: Iterable[str] | None, env_files: EnvFiles
) -> dict[str, str]:
    from_files = env_files.read_all(names or (), Place(1, ""))
    return from_files | {key: str(value) for key, value in (given or {}).items()}


def _variables_of_workers(checked: TopologyFile, env_files: EnvFiles) -> dict[str, dict[str, str]]:
    """The variables of each worker's own keys, or of those of all in its process."""
    own = {
        name: _variables(section.env, section.env_file, env_files)
        for name, section in checked.workers.items()
    }
    of_process: dict[str | None, dict[str, str]] = {}
    for name, section in checked.workers.items():
        of_process.setdefault(section.process, {}).update(own[name])
    return {
        name: own[name] if section.process is None else of_process[section.process]
        for name, section in checked.workers.items()
    }


def _build_worker(
    name: str,
    section: WorkerSection,
    origin: Origin,
    env: dict[str, str],
    start: StartMode,
) -> WorkerSpec:
    folder = origin.folder
    return WorkerSpec(
        name=name,
        file=origin.file,
        worker=section.worker,
        command=tuple(str(word) for word in section.command) if section.command else None,
        stdio=section.stdio,
        joins=section.joins_bus,
        pipecat=bool(section.pipecat),
        args=section.args or {},
        env=env,
        working_dir=folder / (section.working_dir or ""),
        active=section.active is not False,
        replicas=section.replicas,
        depends_on=build_dependencies(section.depends_on),
        ready=build_ready(section.ready),
        health=build_health(section.health),
        restart=build_restart(section.restart),
        success_exit_codes=frozenset(section.success_exit_codes or ()),
        on_exit=section.on_exit or "ignore",
        limits=build_limits(section.limits),
        stop=build_stop(section.stop),
        start=start,
        watch=_watched(section.watch, folder),
        profiles=frozenset(section.profiles or ()),
        sends_to=tuple(section.sends_to or ()),
        process=section.process,
    )


def _start_of(section: WorkerSection, checked: TopologyFile) -> StartMode:
    if section.command is not None and section.stdio is None:
        return "exec"
    return section.start or checked.start or DEFAULT_START


def _watched(names: Iterable[str] | None, folder: Path) -> tuple[Path, ...] | None:
    return None if names is None else tuple(as_named(folder / name) for name in names)
