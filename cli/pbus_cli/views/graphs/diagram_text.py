"""The graph in the languages of diagrams: Mermaid and Graphviz."""

import html
import json
from typing import Final

from pbus.client.graph.project_graph import GraphEdge, GraphWorker, ProjectGraph
from pbus_cli.views.graphs.edge_label import edge_label, worker_label

_SHAPES: Final = {
    "class": ("[", "]"),
    "command": ("[[", "]]"),
    "clients": ("([", "])"),
    "everyone": ("((", "))"),
    "unknown": ("{{", "}}"),
}
_DOT_SHAPES: Final = {
    "class": "box",
    "command": "box3d",
    "clients": "oval",
    "everyone": "circle",
    "unknown": "octagon",
}


def mermaid_text(graph: ProjectGraph) -> str:
    """A flowchart of Mermaid; nodes are numbered, so that any name is a label only."""
    ids = _ids(graph)
    lines = ["flowchart LR"]
    lines += [f"  {ids[worker.name]}{_mermaid_node(worker)}" for worker in graph.workers]
    for edge in graph.edges:
        arrow = "-->" if edge.messages or edge.carries else "-.->"
        label = edge_label(edge)
        shown = f'|"{_escaped(label)}"|' if label else ""
        lines.append(f"  {ids[edge.source]} {arrow}{shown} {ids[edge.target]}")
    return "\n".join(lines)


def dot_text(graph: ProjectGraph) -> str:
    """A graph of Graphviz."""
    ids = _ids(graph)
    lines = [f"digraph {_quoted(graph.project)} {{", "  rankdir=LR;"]
    lines += [
        f"  {ids[one.name]} [label={_quoted(worker_label(one))}, shape={_DOT_SHAPES[one.kind]}];"
        for one in graph.workers
    ]
    lines += [
        f"  {ids[edge.source]} -> {ids[edge.target]} "
        f"[label={_quoted(edge_label(edge))}, style={_style(edge)}];"
        for edge in graph.edges
    ]
    return "\n".join([*lines, "}"])


def _ids(graph: ProjectGraph) -> dict[str, str]:
    return {worker.name: f"n{number}" for number, worker in enumerate(graph.workers)}


def _mermaid_node(worker: GraphWorker) -> str:
    opens, closes = _SHAPES[worker.kind]
    return f'{opens}"{_escaped(worker_label(worker))}"{closes}'


def _escaped(text: str) -> str:
    """A text within quotes of Mermaid: characters of its own are entities."""
    return html.escape(text).replace("#", "#35;").replace("&#35;", "&#").replace("`", "&#96;")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _style(edge: GraphEdge) -> str:
    return "solid" if edge.messages or edge.carries else "dashed"
