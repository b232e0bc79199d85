"""The graph as lines: workers, edges, and what is wrong with them."""

from collections.abc import Iterator, Sequence

from pbus.client.graph.project_graph import Ends, GraphEdge, ProjectGraph
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views.graphs.edge_label import edge_label, worker_label


def graph_lines(graph: ProjectGraph) -> list[str]:
    """One line a worker, with its edges below it; then the problems."""
    lines = []
    for worker in graph.workers:
        if worker.kind in {"everyone", "unknown"}:
            continue
        jobs = f"  jobs: {', '.join(worker.jobs)}" if worker.jobs else ""
        lines.append(clean_line(worker_label(worker) + jobs))
        lines += [
            f"  -> {_line(edge, is_observed=graph.is_observed)}"
            for edge in graph.edges
            if edge.source == worker.name
        ]
    return lines


def problem_lines(graph: ProjectGraph) -> list[str]:
    """The undeclared, silent and dangling edges, a line each."""
    return [
        *_problems("undeclared: messages were observed, no `sends_to` and no code says so",
                   graph.undeclared),
        *_problems("silent: declared, and no message was observed", graph.silent),
        *_problems("dangling: the topology has no worker of that name", graph.dangling),
    ]  # fmt: skip


def _line(edge: GraphEdge, *, is_observed: bool) -> str:
    target = "everyone" if edge.target == "*" else edge.target
    parts = [target, edge_label(edge)]
    if is_observed and edge.messages:
        parts.append(f"{edge.messages:,} messages")
    if edge.declared:
        parts.append(f"({', '.join(edge.declared)})")
    return clean_line("  ".join(filter(None, parts)))


def _problems(text: str, ends: Sequence[Ends]) -> Iterator[str]:
    for source, target in ends:
        yield clean_line(f"{source} -> {target} is {text}")
