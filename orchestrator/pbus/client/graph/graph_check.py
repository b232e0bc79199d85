"""The differences of two graphs: a gate for CI."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pbus.client.graph.project_graph import GraphEdge, GraphWorker, ProjectGraph
from pbus.errors import GraphFileError
from pbus.structs import DECODE_ERRORS

_MAX_BYTES = 16 * 1024 * 1024


def load_graph(file: Path) -> ProjectGraph:
    """Read a graph that was saved as JSON.

    Raises:
        GraphFileError: It cannot be read, or is none.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise GraphFileError(file, "it is too large for a graph")
        return msgspec.json.decode(file.read_bytes(), type=ProjectGraph)
    except OSError as error:
        raise GraphFileError(file, error.strerror or str(error)) from error
    except DECODE_ERRORS as error:
        raise GraphFileError(file, f"it is no saved graph ({error})") from error


def differences(saved: ProjectGraph, now: ProjectGraph) -> list[str]:
    """The differences of two graphs, a line each: "+" is new, "-" is gone, "~" is another.

    Numbers and rates do not count. Observed edges and types count where both graphs were observed.
    """
    is_observed = saved.is_observed and now.is_observed
    found = _compare(
        "worker",
        {one.name: _worker_facts(one) for one in _known(saved, is_observed=is_observed)},
        {one.name: _worker_facts(one) for one in _known(now, is_observed=is_observed)},
    )
    found += _compare(
        "edge",
        {_edge_name(one): _edge_facts(one, is_observed) for one in _edges(saved, is_observed)},
        {_edge_name(one): _edge_facts(one, is_observed) for one in _edges(now, is_observed)},
    )
    return sorted(found, key=lambda line: line[2:])


def _known(graph: ProjectGraph, *, is_observed: bool) -> list[GraphWorker]:
    ends = {end for edge in _edges(graph, is_observed) for end in edge.ends}
    own = {"class", "command"}
    return [one for one in graph.workers if one.kind in own or one.name in ends]


def _edges(graph: ProjectGraph, is_observed: bool) -> list[GraphEdge]:  # noqa: FBT001
    return [one for one in graph.edges if one.declared or (is_observed and one.messages)]


def _worker_facts(worker: GraphWorker) -> dict[str, Any]:
    return {"kind": worker.kind, "replicas": worker.replicas, "jobs": worker.jobs}


def _edge_facts(edge: GraphEdge, is_observed: bool) -> dict[str, Any]:  # noqa: FBT001
    facts: dict[str, Any] = {"declared": edge.declared}
    if is_observed:
        facts |= {"jobs": edge.jobs, "types": edge.types, "observed": edge.messages > 0}
    return facts


def _edge_name(edge: GraphEdge) -> str:
    return f"{edge.source} -> {edge.target}"


def _compare(
    what: str, saved: Mapping[str, dict[str, Any]], now: Mapping[str, dict[str, Any]]
) -> list[str]:
    found = [f"- {what} {name}" for name in saved if name not in now]
    found += [f"+ {what} {name}" for name in now if name not in saved]
    for name in saved.keys() & now.keys():
        found += _changes(f"{what} {name}", saved[name], now[name])
    return found


def _changes(name: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[str]:
    return [
        f"~ {name}: {key} {_shown(saved[key])}, now {_shown(now[key])}"
        for key in saved
        if saved[key] != now[key]
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower()
