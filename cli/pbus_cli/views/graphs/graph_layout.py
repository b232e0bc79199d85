"""Places of boxes, labels and edges of a graph: layers from left to right, nothing upon another."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from rich.cells import cell_len

from pbus.client.graph.project_graph import GraphEdge, ProjectGraph
from pbus_cli.views.graphs.edge_label import edge_names, worker_label

CHAR: Final = 8  # of the font, in pixels
LINE: Final = 16
BOX_HEIGHT: Final = 36
MARGIN: Final = 24
_GAP: Final = 14  # between two places of a column
_BETWEEN: Final = 34  # columns: room for a bend
_FARTHEST: Final = 12  # layers over which an edge is led around what is between
_SWEEPS: Final = 8

Point: TypeAlias = tuple[int, int]


class Place:
    """A place in a column: of a box, of a label, or of an edge that passes.

    Attributes:
        column: Boxes have even ones, labels odd ones.
        lines: The text in it.
        height: With what is drawn below a box, for an edge to itself.
        room: The width, likewise.
        y: Its middle.
    """

    def __init__(self, column: int, lines: Sequence[str], width: int, height: int) -> None:
        self.column, self.lines, self.width, self.height = column, lines, width, height
        self.room = width
        self.x, self.y = 0, 0.0
        self.before: list[Place] = []
        self.after: list[Place] = []

    @property
    def top(self) -> int:
        """The upper end."""
        return round(self.y - self.height / 2)

    @property
    def middle(self) -> int:
        """The middle of a box; what is below it is no part of that."""
        return self.top + BOX_HEIGHT // 2


class EdgePlace:
    """An edge: from a point by the ends of the places that it passes to a point, and its label."""

    def __init__(self, edge: GraphEdge, way: list[Place], label: Place | None) -> None:
        self.edge, self.label = edge, label
        self.points: list[Point] = []
        self._way = way

    @property
    def is_loop(self) -> bool:
        """Whether it leads to its own source."""
        return len(self._way) == 1

    def connect(self) -> None:
        """Find the points, when all places are known; an edge that leads back begins at the right."""
        first, last = self._way[0], self._way[-1]
        points = [(first.x + first.width, _port(first, self._way[1], first.after))]
        for place in self._way[1:-1]:
            y = round(place.y)
            points += [(place.x, y), (place.x + place.width, y)]
        points.append((last.x, _port(last, self._way[-2], last.before)))
        is_back = self.edge.source == last.lines[0]
        self.points = points[::-1] if is_back else points


class GraphLayout:
    """All places, and the size of the picture."""

    def __init__(self, graph: ProjectGraph) -> None:
        layers = layers_of(graph)
        self.boxes = _boxes(graph, layers)
        columns: list[list[Place]] = [[] for _ in range(2 * len(layers) - 1)]
        for name in (name for layer in layers for name in layer):
            columns[self.boxes[name].column].append(self.boxes[name])
        self.edges = [self._led(edge, columns) for edge in graph.edges]
        _order(columns)
        _align(columns)
        self.width = _spread(columns)
        self.height = _lower([place for column in columns for place in column])
        for edge in self.edges:
            if not edge.is_loop:
                edge.connect()

    def _led(self, edge: GraphEdge, columns: list[list[Place]]) -> EdgePlace:
        """Lead an edge through the columns between its ends; its label is near its source."""
        ends = sorted((self.boxes[edge.source], self.boxes[edge.target]), key=_column)
        first, last = ends
        if first is last:
            return EdgePlace(edge, [first], None)
        is_forth = first is self.boxes[edge.source]
        between = range(first.column + 1, last.column)
        labelled = between[0] if is_forth else between[-1]
        passed = between if len(between) <= 2 * _FARTHEST else (labelled,)
        way, label = [first], None
        for column in passed:
            names = edge_names(edge) if column == labelled else []
            place = Place(column, names, text_width(names), max(len(names) * LINE, 4))
            label = place if names else label
            columns[column].append(place)
            way.append(place)
        way.append(last)
        for one, other in pairwise(way):
            one.after.append(other)
            other.before.append(one)
        return EdgePlace(edge, way, label)


def _port(box: Place, other: Place, others: list[Place]) -> int:
    """The height at which an edge touches a box: in the order of the ways on that side."""
    row = sorted(others, key=lambda one: one.y).index(other)
    step = min(9.0, (BOX_HEIGHT - 10) / len(others))
    return round(box.middle + (row - (len(others) - 1) / 2) * step)


def text_width(lines: Sequence[str]) -> int:
    """The pixels of the longest line, with some room."""
    return max(map(cell_len, lines)) * CHAR + 4 if lines else 0


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
    ends = {name for edge in graph.edges for name in edge.ends}
    for name in sorted(depth, key=lambda one: one not in ends):  # those without edges at last
        layers[depth[name]].append(name)
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


def _boxes(graph: ProjectGraph, layers: list[list[str]]) -> dict[str, Place]:
    """A place for each worker; one that sends to itself has room for that below."""
    loops = {edge.source: edge_names(edge) for edge in graph.edges if edge.source == edge.target}
    workers = {worker.name: worker for worker in graph.workers}
    boxes: dict[str, Place] = {}
    for number, layer in enumerate(layers):
        for name in layer:
            width = text_width([worker_label(workers[name])]) + 20
            below = LINE + len(loops[name]) * LINE if name in loops else 0
            box = boxes[name] = Place(2 * number, [name], width, BOX_HEIGHT + below)
            box.room = max(width, *(text_width([one]) for one in loops.get(name, [])), 0)
    return boxes


def _column(place: Place) -> int:
    return place.column


def _order(columns: list[list[Place]]) -> None:
    """Put each column into the order of what it is joined to, from the left and from the right."""
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            rows = {id(place): row for other in columns for row, place in enumerate(other)}
            near = [place.before if sweep % 2 == 0 else place.after for place in column]
            wanted = {
                id(place): _mean([rows[id(one)] for one in others], rows[id(place)])
                for place, others in zip(column, near, strict=True)
            }
            column.sort(key=lambda place: wanted[id(place)])


def _align(columns: list[list[Place]]) -> None:
    """Give each place the height of what it is joined to, as far as its column has room."""
    for column in columns:
        _settle(column, lambda place: place.y)
    ways: tuple[Callable[[Place], list[Place]], ...] = (
        lambda place: place.before,
        lambda place: place.after,
    )
    for sweep in range(_SWEEPS):
        way = ways[sweep % 2]
        for column in columns if sweep % 2 == 0 else reversed(columns):
            _settle(column, lambda place, way=way: _mean([one.y for one in way(place)], place.y))  # type: ignore[misc]


def _settle(column: list[Place], wanted: Callable[[Place], float]) -> None:
    """Put places as near to where they are wanted as those above and below allow.

    Neighbours that want the same room become a block, which takes the mean of what they want.
    """
    offsets, at = [], 0.0
    for place in column:
        offsets.append(at + place.height / 2)
        at += place.height + _GAP
    blocks: list[tuple[float, int]] = []  # sum of what is wanted, number of places
    for place, offset in zip(column, offsets, strict=True):
        total, count = wanted(place) - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            more, others = blocks.pop()
            total, count = total + more, count + others
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    for place, offset, start in zip(column, offsets, starts, strict=True):
        place.y = start + offset


def _spread(columns: list[list[Place]]) -> int:
    """Put the columns beside each other; the width of all."""
    x = MARGIN
    for column in columns:
        width = max((place.room for place in column), default=0)
        for place in column:
            if not place.lines:  # an edge passes
                place.width = width
            place.x = x + (width - place.width) // 2
        x += width + _BETWEEN
    return x - _BETWEEN + MARGIN


def _lower(places: list[Place]) -> int:
    """Let the picture begin at the margin; its height."""
    top = min((place.top for place in places), default=0)
    for place in places:
        place.y += MARGIN - top
    return max((place.top + place.height for place in places), default=0) + MARGIN


def _mean(values: Iterable[float], otherwise: float) -> float:
    found = list(values)
    return sum(found) / len(found) if found else otherwise
