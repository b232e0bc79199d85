"""Checks a topology's modules, classes, arguments and programs by reading them."""

import os
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Any, NamedTuple

from pbus.errors import TopologyError
from pbus.topology.code.classes import (
    MissingClassError,
    Parameters,
    find_class,
    has_no_base,
    parameters_of,
)
from pbus.topology.code.modules import SourceError, Sources
from pbus.topology.code.programs import program_problem, script_problem
from pbus.topology.load import read
from pbus.topology.model import Topology, WorkerSpec
from pbus.topology.parsing.nodes import Mapping
from pbus.topology.places import locate
from pbus.topology.policy.policies import ExecProbe
from pbus.topology.problems import Problems, did_you_mean, one_of


class CodeProblem(NamedTuple):
    """A problem of a worker's code.

    Attributes:
        worker: Its name.
        keys: The path to the key in the worker's section.
        text: The problem.
    """

    worker: str
    keys: tuple[str, ...]
    text: str


def code_problems(topology: Topology, environ: AbstractMapping[str, str]) -> list[CodeProblem]:
    """Check what the topology's own rules cannot know; nothing is imported.

    What syntax trees do not tell (star imports, classes made at run time) is no problem.

    Args:
        topology: It was loaded.
        environ: Of this process; workers inherit it.
    """
    return [
        CodeProblem(spec.name, keys, text)
        for spec in topology.workers.values()
        for keys, text in _WorkerCode(topology, spec, {**environ, **spec.env}).problems()
    ]


def refuse_problems(file: Path, found: Iterable[CodeProblem]) -> None:
    """Raise problems, if there are any, as those of a topology.

    Args:
        file: The topology, as the user named it.
        found: The problems.

    Raises:
        TopologyError: With every problem, each with file, line and key.
    """
    problems = Problems(file)
    tree = _tree(file)
    for one in found:
        problems.add(locate(tree, "workers", one.worker, *one.keys), one.text)
    problems.raise_if_any()


def _tree(file: Path) -> Mapping:
    try:
        tree = read(file, Problems(file))
    except TopologyError:  # it was edited meanwhile
        return Mapping(1, {})
    return tree if isinstance(tree, Mapping) else Mapping(1, {})


class _WorkerCode:
    """The code of one worker."""

    def __init__(
        self,
        topology: Topology,
        spec: WorkerSpec,
        environ: AbstractMapping[str, str],
    ) -> None:
        self._topology = topology
        self._spec = spec
        self._environ = environ

    def problems(self) -> list[tuple[tuple[str, ...], str]]:
        """Keys and the text of each problem."""
        found = [one for keys, command in self._programs() for one in self._program(keys, command)]
        return found + (self._class(self._spec.worker) if self._spec.worker is not None else [])

    def _programs(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Keys and words of each program that is started for the worker."""
        spec = self._spec
        if spec.command:
            yield ("command",), spec.command
        for key, policy in (("ready", spec.ready), ("health", spec.health)):
            if policy is not None and isinstance(policy.probe, ExecProbe):
                yield (key, "exec"), policy.probe.command
        if spec.stop.command:
            yield ("stop", "command"), spec.stop.command

    def _program(
        self, keys: tuple[str, ...], command: tuple[str, ...]
    ) -> list[tuple[tuple[str, ...], str]]:
        folder = self._spec.working_dir
        found = program_problem(command, folder, self._environ.get("PATH", os.defpath))
        found = found or script_problem(command, folder)
        return [(keys, found)] if found else []

    def _class(self, reference: str) -> list[tuple[tuple[str, ...], str]]:
        module, _, path = reference.partition(":")
        sources = Sources(
            self._topology.file, self._environ.get("PYTHONPATH", ""), self._spec.working_dir
        )
        try:
            found = find_class(sources, module, path)
        except SourceError as error:
            near = did_you_mean(module, sources.neighbours())
            return [(("worker",), f"{error}{near}")]
        except MissingClassError as error:
            return [(("worker",), f"{error}{did_you_mean(path, error.known)}")]
        if found is None:
            return []
        if has_no_base(found):
            return [(("worker",), f"`{path}` is no subclass of BaseWorker")]
        parameters = parameters_of(sources, found)
        return [] if parameters is None else args_problems(path, parameters, self._spec.args)


def args_problems(
    path: str, parameters: Parameters, args: AbstractMapping[str, Any]
) -> list[tuple[tuple[str, ...], str]]:
    """The keys of `args` that a class does not take, and those that it needs."""
    if not parameters.takes_name:
        return [(("worker",), f"`{path}.__init__` has no parameter for the worker's name")]
    found: list[tuple[tuple[str, ...], str]] = []
    for key in args:
        if key == parameters.name:
            found.append((("args", key), f"`{path}` gets the worker's name as `{key}`: remove it"))
        elif key not in parameters.known and not parameters.takes_any:
            near = did_you_mean(key, parameters.known) or _known(parameters)
            found.append((("args", key), f"`{path}` has no parameter `{key}`{near}"))
    found += [
        (("args",), f"`{path}` needs the argument `{name}`")
        for name in parameters.required
        if name not in args
    ]
    return found


def _known(parameters: Parameters) -> str:
    known = parameters.known
    return f" (it takes {one_of(known)})" if known else " (it takes none)"
