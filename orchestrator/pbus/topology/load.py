"""A topology file becomes a `Topology` in four steps: read, expand, check, build."""

from collections.abc import Iterable
from collections.abc import Mapping as AbstractMapping
from pathlib import Path

import msgspec

from pbus.settings import BusSettings
from pbus.topology.check import check_shape
from pbus.topology.model import Topology, WorkerSpec
from pbus.topology.name_rules import clean_name
from pbus.topology.parsing.bounded_read import NO_FILE, read_text
from pbus.topology.parsing.env_file import EnvFiles
from pbus.topology.parsing.nodes import Mapping, Node, secret_paths
from pbus.topology.parsing.variables import expand_tree
from pbus.topology.parsing.yaml_tree import parse_yaml
from pbus.topology.paths import as_named
from pbus.topology.policy.policy_build import (
    build_dependencies,
    build_health,
    build_limits,
    build_ready,
    build_restart,
    build_stop,
)
from pbus.topology.problems import Place, Problems
from pbus.topology.rules import backend_of, check_rules
from pbus.topology.schema import BusSection, TopologyFile, WorkerSection
from pbus.urls import MEMORY_URL

DOT_ENV = ".env"


def load_topology(path: Path, environ: AbstractMapping[str, str]) -> Topology:
    """Read and check a whole topology file; nothing is imported and nothing started.

    Args:
        path: The YAML file.
        environ: The values of ``${VAR}`` in the file; those that it lacks are read from a file
            named .env beside the topology.

    Raises:
        TopologyError: With every problem of the file, each with file, line and key.
    """
    problems = Problems(path)
    tree = read(path, problems)
    folder = as_named(path.parent)
    env_files = EnvFiles(folder, problems, environ)
    environ = {**_dot_env(folder, env_files), **environ}
    tree = expand_tree(tree, environ, problems, Place(tree.line, ""))
    file = check(tree, folder, env_files, problems)
    return build(file, folder / path.name, env_files, frozenset(secret_paths(tree)))


def _dot_env(folder: Path, env_files: EnvFiles) -> dict[str, str]:
    """The file beside the topology that says what variables in it stand for, if there is one."""
    is_there = (folder / DOT_ENV).is_file()  # a folder of that name is a virtual environment
    return env_files.read(DOT_ENV, Place(1, "")) if is_there else {}


def read(path: Path, problems: Problems) -> Node:
    """Step 1: the file as a tree with line numbers.

    Raises:
        TopologyError: There is no tree: no such file, not YAML, or nothing in it.
    """
    try:
        tree = parse_yaml(read_text(path), problems)
    except ValueError as error:
        problems.add_file(str(error))
        wrong = problems.error()
        if str(error) == NO_FILE:
            wrong.hint = "`pbus init` writes one to begin with"
        raise wrong from None
    if tree is None:
        problems.add(Place(1, ""), "the file is empty: expected at least the key `workers`")
        raise problems.error()
    return tree


def check(tree: Node, folder: Path, env_files: EnvFiles, problems: Problems) -> TopologyFile:
    """Step 3 (step 2 is `expand_tree`): the file's values, checked.

    Raises:
        TopologyError: With every problem of this step and those before it.
    """
    file = check_shape(tree, problems)
    if file is None or not isinstance(tree, Mapping):
        raise problems.error()
    check_rules(file, tree, folder, env_files, problems)
    problems.raise_if_any()
    return file


def build(
    file: TopologyFile,
    path: Path,
    env_files: EnvFiles,
    secrets: frozenset[tuple[str, ...]] = frozenset(),
) -> Topology:
    """Step 4: the values that the rest of pbus reads, with defaults."""
    folder = path.parent
    name = file.name or clean_name(folder.name)
    shared = _variables(file.env, file.env_file, env_files)
    return Topology(
        name=name,
        file=path,
        folder=folder,
        bus=_build_bus(file.bus or BusSection(), name),
        workers={
            worker: _build_worker(
                worker,
                section,
                folder,
                shared | _variables(section.env, section.env_file, env_files),
            )
            for worker, section in file.workers.items()
        },
        loop=file.loop or "asyncio",
        secrets=secrets,
    )


def _build_bus(section: BusSection, name: str) -> BusSettings:
    keys = msgspec.structs.asdict(section)
    if backend_of(section) == "memory":
        keys["url"] = MEMORY_URL
    return BusSettings.from_keys({**keys, "channel": section.channel or f"pbus:{name}"})


def _variables(
    given: AbstractMapping[str, object] | None, names: Iterable[str] | None, env_files: EnvFiles
) -> dict[str, str]:
    from_files = env_files.read_all(names or (), Place(1, ""))
    return from_files | {key: str(value) for key, value in (given or {}).items()}


def _build_worker(
    name: str, section: WorkerSection, folder: Path, env: dict[str, str]
) -> WorkerSpec:
    is_class = section.worker is not None
    return WorkerSpec(
        name=name,
        worker=section.worker,
        command=tuple(str(word) for word in section.command) if section.command else None,
        joins=is_class if section.joins is None else section.joins,
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
        watch=_watched(section.watch, folder),
        profiles=frozenset(section.profiles or ()),
    )


def _watched(names: Iterable[str] | None, folder: Path) -> tuple[Path, ...] | None:
    return None if names is None else tuple(as_named(folder / name) for name in names)
