"""What a worker class says of messages and jobs, as far as its syntax tree tells: names in plain text."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

import msgspec

from pbus.topology.code.classes import MissingClassError, find_class, lineage
from pbus.topology.code.modules import SourceError, Sources
from pbus.topology.model import Topology, WorkerSpec

EVERYONE: Final = "*"
_ACTIVATION: Final = {
    "activate_worker": "BusActivateWorkerMessage",
    "deactivate_worker": "BusDeactivateWorkerMessage",
}
_ONE: Final = {"job", "request_job"}
_SEVERAL: Final = {"job_group", "request_job_group"}


class Exchanges(msgspec.Struct, frozen=True):
    """Messages and jobs of a worker class.

    Attributes:
        jobs: The names of the jobs that it handles.
        requests: Workers that it asks for jobs, with the job's name where that is written.
        sends: Targets of messages that it makes, "*" for everyone, with the name of the type.
    """

    jobs: tuple[str, ...] = ()
    requests: tuple[tuple[str, str | None], ...] = ()
    sends: tuple[tuple[str, str], ...] = ()


def exchanges_of(topology: Topology, environ: Mapping[str, str]) -> dict[str, Exchanges]:
    """The exchanges of each worker class of a topology; nothing is imported.

    Args:
        topology: It was loaded.
        environ: Of this process; workers inherit it.
    """
    return {
        spec.name: _of_worker(topology, spec, {**environ, **spec.env})
        for spec in topology.workers.values()
    }


def _of_worker(topology: Topology, spec: WorkerSpec, environ: Mapping[str, str]) -> Exchanges:
    if spec.worker is None:
        return Exchanges()
    files = tuple(dict.fromkeys([spec.file or topology.file, topology.file]))
    sources = Sources(files, environ.get("PYTHONPATH", ""), spec.working_dir)
    module, _, name = spec.worker.partition(":")
    try:
        found = find_class(sources, module, name)
    except (SourceError, MissingClassError):
        return Exchanges()
    if found is None:
        return Exchanges()
    return _of_nodes([one.node for one in lineage(sources, found)])


def _of_nodes(classes: list[ast.ClassDef]) -> Exchanges:
    nodes = [node for one in classes for node in ast.walk(one)]
    marks = list(_job_marks(nodes))
    jobs = [_text(_keyword(call, "name")) for call in marks]
    calls = [node for node in nodes if isinstance(node, ast.Call) and node not in marks]
    return Exchanges(
        jobs=tuple(dict.fromkeys(filter(None, jobs))),
        requests=tuple(dict.fromkeys(chain.from_iterable(map(_requests, calls)))),
        sends=tuple(dict.fromkeys(chain.from_iterable(map(_sends, calls)))),
    )


def _job_marks(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """The decorators that make a method the handler of a job."""
    for node in nodes:
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            calls = [one for one in node.decorator_list if isinstance(one, ast.Call)]
            yield from (one for one in calls if _name(one.func) == "job")


def _requests(call: ast.Call) -> Iterator[tuple[str, str | None]]:
    """The workers that a call asks for a job."""
    if not isinstance(call.func, ast.Attribute):
        return
    first, *others = [_text(one) for one in call.args] or [None]
    name = _text(_keyword(call, "name"))
    if call.func.attr in _ONE and first is not None:
        yield first, name or next(iter(others), None)
    elif call.func.attr in _SEVERAL:
        yield from ((text, name) for text in (first, *others) if text is not None)


def _sends(call: ast.Call) -> Iterator[tuple[str, str]]:
    """The target and type of a message that a call makes, or sends by a method for it."""
    name = _name(call.func)
    if name in _ACTIVATION and call.args and (target := _text(call.args[0])) is not None:
        yield target, _ACTIVATION[name]
        return
    if not name[:1].isupper() or _keyword(call, "source") is None:
        return
    given = _keyword(call, "target")
    if given is None or (isinstance(given, ast.Constant) and given.value is None):
        yield EVERYONE, name
    elif (target := _text(given)) is not None:
        yield target, name


def _name(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def _text(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None
