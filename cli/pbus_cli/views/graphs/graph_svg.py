"""The graph as SVG, drawn without other programs."""

import html
from itertools import pairwise
from typing import Final

from pbus.client.graph.project_graph import GraphWorker, ProjectGraph
from pbus_cli.views.graphs.edge_label import edge_names, worker_label
from pbus_cli.views.graphs.graph_layout import (
    BOX_HEIGHT,
    LINE,
    EdgePlace,
    GraphLayout,
    Place,
    text_width,
)

_INK: Final = "#374151"
_FILL: Final = {
    "class": "#dbeafe",
    "command": "#e5e7eb",
    "clients": "#dcfce7",
    "everyone": "#fef9c3",
    "unknown": "#fee2e2",
}
_HEAD: Final = (
    '<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{_INK}"/></marker></defs>'
)


def svg_text(graph: ProjectGraph) -> str:
    """A picture of the graph, whole in itself: no script, no link, no font of its own."""
    layout = GraphLayout(graph)
    parts = [_way(edge, layout.boxes) for edge in layout.edges]
    parts += [_label(edge, layout.boxes) for edge in layout.edges]  # over all ways
    parts += [_worker(worker, layout.boxes[worker.name]) for worker in graph.workers]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width} {layout.height}" '
        f'width="{layout.width}" height="{layout.height}" font-family="monospace" font-size="13">'
    )
    return "\n".join([
        head,
        f"<title>{html.escape(graph.project)}</title>",
        _HEAD,
        '<rect width="100%" height="100%" fill="white"/>',
        *(part for part in parts if part),
        "</svg>",
    ])


def _worker(worker: GraphWorker, box: Place) -> str:
    about = ", ".join(worker.jobs)
    title = f"<title>jobs: {html.escape(about)}</title>" if about else ""
    return (
        f'<g>{title}<rect x="{box.x}" y="{box.top}" width="{box.width}" height="{BOX_HEIGHT}" rx="5" '
        f'fill="{_FILL[worker.kind]}" stroke="{_INK}"/>'
        f'<text x="{box.x + box.width // 2}" y="{box.middle + 5}" text-anchor="middle">'
        f"{html.escape(worker_label(worker))}</text></g>"
    )


def _way(edge: EdgePlace, boxes: dict[str, Place]) -> str:
    """The line of an edge; dashed where only an order of starts is declared."""
    if edge.is_loop:
        box = boxes[edge.edge.source]
        x, y = box.x + box.width // 2, box.top + BOX_HEIGHT
        curve = f"M{x - 10} {y}C{x - 16} {y + 18} {x + 16} {y + 18} {x + 10} {y}"
    else:
        (x, y), *_ = edge.points
        curve = f"M{x} {y}"
        for number, ((x1, y1), (x2, y2)) in enumerate(pairwise(edge.points)):
            middle = (x1 + x2) // 2
            is_bend = number % 2 == 0  # else it passes a place
            curve += f"C{middle} {y1} {middle} {y2} {x2} {y2}" if is_bend else f"H{x2}"
    dash = "" if edge.edge.messages or edge.edge.carries else ' stroke-dasharray="5 4"'
    return f'<path d="{curve}" fill="none" stroke="{_INK}"{dash} marker-end="url(#end)"/>'


def _label(edge: EdgePlace, boxes: dict[str, Place]) -> str:
    """The names at an edge, one a line, on white."""
    lines = edge_names(edge.edge)
    if not lines or (not edge.is_loop and edge.label is None):
        return ""
    if edge.label is None:
        box = boxes[edge.edge.source]
        x, top = box.x + box.width // 2, box.top + BOX_HEIGHT + LINE
    else:
        x, top = edge.label.x + edge.label.width // 2, edge.label.top
    width = text_width(lines)
    back = (
        f'<rect x="{x - width // 2}" y="{top}" width="{width}" height="{len(lines) * LINE}" '
        'fill="white"/>'
    )
    rows = [
        f'<text x="{x}" y="{top + 12 + row * LINE}" text-anchor="middle">{html.escape(line)}</text>'
        for row, line in enumerate(lines)
    ]
    return back + "".join(rows)
