"""The graph as SVG, drawn without other programs: layers from left to right."""

import html
from collections.abc import Sequence
from typing import Final

from pbus.client.graph.project_graph import GraphEdge, GraphWorker, ProjectGraph
from pbus_cli.views.graphs.edge_label import edge_label, worker_label

_CHAR: Final = 8  # of the font, in pixels
_BOX_HEIGHT: Final = 36
_ROW: Final = 80
_MARGIN: Final = 24
_GAP: Final = 60  # between layers, beside the longest label
_FILL: Final = {
    "class": "#dbeafe",
    "command": "#e5e7eb",
    "clients": "#dcfce7",
    "everyone": "#fef9c3",
    "unknown": "#fee2e2",
}
_HEAD: Final = (
    '<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#374151"/></marker></defs>'
)


class _Box:
    """The place of a worker."""

    def __init__(self, x: int, y: int, width: int) -> None:
        self.x, self.y, self.width = x, y, width

    @property
    def middle(self) -> int:
        return self.y + _BOX_HEIGHT // 2


def svg_text(graph: ProjectGraph) -> str:
    """A picture of the graph, whole in itself: no script, no link, no font of its own."""
    boxes = _places(graph)
    width = max((box.x + box.width for box in boxes.values()), default=0) + _MARGIN
    height = max((box.y for box in boxes.values()), default=0) + _BOX_HEIGHT + 2 * _MARGIN
    parts = [_edge(edge, boxes, number) for number, edge in enumerate(graph.edges)]
    parts += [_worker(worker, boxes[worker.name]) for worker in graph.workers]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="monospace" font-size="13">'
    )
    return "\n".join([
        head,
        f"<title>{_text(graph.project)}</title>",
        _HEAD,
        '<rect width="100%" height="100%" fill="white"/>',
        *parts,
        "</svg>",
    ])


def layers_of(graph: ProjectGraph) -> list[list[str]]:
    """The workers by layer: each behind those that send to it, as far as there is no circle."""
    depth = {worker.name: 0 for worker in graph.workers}
    edges = _without_circles(graph)
    for _ in graph.workers:  # as many steps as the longest way can have
        changed = False
        for edge in edges:
            if depth[edge.target] < depth[edge.source] + 1:
                depth[edge.target] = depth[edge.source] + 1
                changed = True
        if not changed:
            break
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name, number in depth.items():
        layers[number].append(name)
    return layers


def _without_circles(graph: ProjectGraph) -> list[GraphEdge]:
    """The edges but for those that close a circle, found in the order of the workers."""
    targets: dict[str, list[GraphEdge]] = {worker.name: [] for worker in graph.workers}
    for edge in graph.edges:
        targets[edge.source].append(edge)
    kept: list[GraphEdge] = []
    done: set[str] = set()
    for start in targets:
        way: list[tuple[str, int]] = [(start, 0)] if start not in done else []
        on_way = {start}
        while way:
            name, at = way.pop()
            if at == len(targets[name]):
                done.add(name)
                on_way.discard(name)
                continue
            way.append((name, at + 1))
            edge = targets[name][at]
            if edge.target in on_way:
                continue
            kept.append(edge)
            if edge.target not in done:
                way.append((edge.target, 0))
                on_way.add(edge.target)
    return kept


def _places(graph: ProjectGraph) -> dict[str, _Box]:
    labels = {worker.name: worker_label(worker) for worker in graph.workers}
    longest = max((len(edge_label(edge)) for edge in graph.edges), default=0)
    boxes: dict[str, _Box] = {}
    x = _MARGIN
    for layer in layers_of(graph):
        width = max((len(labels[name]) for name in layer), default=0) * _CHAR + 24
        for row, name in enumerate(layer):
            boxes[name] = _Box(x, _MARGIN + row * _ROW, width)
        x += width + _GAP + longest * _CHAR
    return boxes


def _worker(worker: GraphWorker, box: _Box) -> str:
    about = ", ".join(worker.jobs)
    title = f"<title>jobs: {_text(about)}</title>" if about else ""
    return (
        f'<g>{title}<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{_BOX_HEIGHT}" rx="5" '
        f'fill="{_FILL[worker.kind]}" stroke="#374151"/>'
        f'<text x="{box.x + box.width // 2}" y="{box.middle + 5}" text-anchor="middle">'
        f"{_text(worker_label(worker))}</text></g>"
    )


def _edge(edge: GraphEdge, boxes: dict[str, _Box], number: int) -> str:
    source, target = boxes[edge.source], boxes[edge.target]
    points, label_at = _way(source, target, number)
    dash = "" if edge.messages or edge.carries else ' stroke-dasharray="5 4"'
    label = _text(edge_label(edge))
    text = f'<text x="{label_at[0]}" y="{label_at[1]}" text-anchor="middle">{label}</text>'
    way = f'<path d="{points}" fill="none" stroke="#374151"{dash} marker-end="url(#end)"/>'
    return way + (text if label else "")


def _way(source: _Box, target: _Box, number: int) -> tuple[str, Sequence[int]]:
    """The curve of an edge, and the place of its label."""
    if source.x < target.x:
        x1, x2 = source.x + source.width, target.x
        y1, y2 = source.middle, target.middle
        bend = (x2 - x1) // 2
        curve = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
        return curve, ((x1 + x2) // 2, (y1 + y2) // 2 - 6)
    # Backwards, within a layer, or to itself: below both.
    x1, x2 = source.x + source.width // 2, target.x + target.width // 2 + 8 * (number % 3)
    y1, y2 = source.y + _BOX_HEIGHT, target.y + _BOX_HEIGHT
    low = max(y1, y2) + 30
    curve = f"M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}"
    return curve, ((x1 + x2) // 2, low - 4)


def _text(text: str) -> str:
    return html.escape(text)
