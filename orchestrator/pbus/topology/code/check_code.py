"""Checks a topology's modules, classes, arguments and programs by reading them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Any, Final, NamedTuple

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
from pbus.topology.composition.anchoring import workers_of
from pbus.topology.load import read_tree
from pbus.topology.model import Topology, WorkerSpec
from pbus.topology.parsing.nodes import Mapping, Node, Scalar
from pbus.topology.paths import as_named
from pbus.topology.places import locate
from pbus.topology.policy.policies import ExecProbe
from pbus.topology.problems import Problems, did_you_mean, one_of

_MOVING: Final = ("env", "env_file", "working_dir", "extends")  # they may change what is imported
_REFERENCE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


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
        for keys, text in _WorkerCode(topology.file, spec, {**environ, **spec.env}).problems()
    ]


def refuse_problems(
    files: Sequence[Path], environ: AbstractMapping[str, str], found: Iterable[CodeProblem]
) -> None:
    """Raise problems, if there are any, as those of a topology.

    Args:
        files: Of the topology, as the user named them.
        environ: Of this process.
        found: The problems.

    Raises:
        TopologyError: With every problem, each with file, line and key.
    """
    if found := list(found):
        _add_all(*read_tree(files, environ), found)


def _add_all(tree: Mapping, problems: Problems, found: Iterable[CodeProblem]) -> None:
    for one in found:
        problems.add(locate(tree, "workers", one.worker, *one.keys), one.text)
    problems.raise_if_any()


def problems_beside(
    error: TopologyError, files: Sequence[Path], environ: AbstractMapping[str, str]
) -> TopologyError:
    """The error of a wrong topology with the problems of its code that can be told all the same.

    Those are problems of classes that stand in the files as they are, without variables.
    """
    tree, problems = read_tree(files, environ)
    found = [
        CodeProblem(name, keys, text)
        for name, section in workers_of(tree).entries.items()
        if (spec := _plain_spec(name, section.node, problems)) is not None
        for keys, text in _WorkerCode(as_named(files[0]), spec, environ).problems()
    ]
    try:
        _add_all(tree, problems, found)
    except TopologyError as more:
        whole = TopologyError(error.file, [*error.problems, *more.problems])
        whole.hint = error.hint
        return whole
    return error


def _plain_spec(name: str, section: Node, problems: Problems) -> WorkerSpec | None:
    """The spec of a class whose section says all that its import needs; None of all others."""
    if not isinstance(section, Mapping) or not section.entries.keys().isdisjoint(_MOVING):
        return None
    worker, args = (section.entries.get(key) for key in ("worker", "args"))
    reference = worker.node.text if worker and isinstance(worker.node, Scalar) else ""
    if worker is None or not _REFERENCE.fullmatch(reference):
        return None
    file = as_named(problems.source(worker.line)[0])
    names = args.node.entries if args and isinstance(args.node, Mapping) else {}
    return WorkerSpec(
        name=name,
        working_dir=as_named(problems.file.parent),
        joins=True,
        file=file,
        worker=reference,
        args=dict.fromkeys(names),
    )


class _WorkerCode:
    """The code of one worker."""

    def __init__(
        self,
        file: Path,
        spec: WorkerSpec,
        environ: AbstractMapping[str, str],
    ) -> None:
        self._files = tuple(dict.fromkeys([spec.file or file, file]))
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
        sources = Sources(self._files, self._environ.get("PYTHONPATH", ""), self._spec.working_dir)
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
