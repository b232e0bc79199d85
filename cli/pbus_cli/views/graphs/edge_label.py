"""The label of an edge: jobs, types and the rate."""

from typing import Final

from pbus.client.graph.project_graph import GraphEdge, GraphWorker
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views.tables.edge_lines import rate_text

_MOST: Final = 3  # names in a label


def edge_label(edge: GraphEdge) -> str:
    """The jobs and types, a few of many, and the rate where there is one."""
    return ", ".join(edge_names(edge))


def edge_names(edge: GraphEdge) -> list[str]:
    """The parts of a label, each for a line of its own."""
    names = [f"{job}()" for job in edge.jobs] + edge.types
    shown = names[:_MOST]
    if len(names) > _MOST:
        shown.append(f"{len(names) - _MOST} more")
    if edge.rate > 0:
        shown.append(rate_text(edge.rate))
    return [clean_line(name) for name in shown]


def worker_label(worker: GraphWorker) -> str:
    """The name, with the number of replicas."""
    names = {"everyone": "everyone", "clients": "clients"}
    name = names.get(worker.kind, worker.name)
    return clean_line(f"{name} x{worker.replicas}" if worker.replicas is not None else name)
