"""The graph as text and pictures: valid for any names, and true."""

import itertools
import re
from xml.etree import ElementTree as ET

import pytest

from pbus.client.graph.project_graph import GraphEdge, GraphWorker, ProjectGraph
from pbus_cli.views.graphs.diagram_text import dot_text, mermaid_text
from pbus_cli.views.graphs.graph_layout import BOX_HEIGHT, GraphLayout, layers_of
from pbus_cli.views.graphs.graph_svg import svg_text
from pbus_cli.views.graphs.graph_text import graph_lines, problem_lines

HARD = '<b>"x"&\\`]--> #\x1b[2J\n'


def graph(ends, *names, **changes):
    names = names or ("a", "b", "c", "d")
    kinds = {"*": "everyone", "cli-*": "clients", "ghost": "unknown"}
    workers = [GraphWorker(name=name, kind=kinds.get(name, "class")) for name in names]
    values = {"project": "shop", "is_observed": True, "workers": workers}
    made = [GraphEdge(source=one[0], target=one[1], messages=1) for one in ends]
    return ProjectGraph(**(values | {"edges": made} | changes))


def index(layers, name):
    return next(number for number, layer in enumerate(layers) if name in layer)


@pytest.mark.parametrize(
    "edges",
    [
        [],
        [("a", "b"), ("b", "c"), ("c", "d")],
        [("a", "b"), ("b", "a")],
        [("a", "a")],
        [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")],
        [("d", "a"), ("d", "b"), ("a", "c"), ("b", "c")],
        [(one, two) for one in "abcd" for two in "abcd"],
    ],
)
def test_layers_follow_the_edges(edges):
    """Each worker once; without circles every edge leads to the right."""
    layers = layers_of(graph(edges))

    assert ["a", "b", "c", "d"] == sorted(name for layer in layers for name in layer)
    backwards = [one for one in edges if index(layers, one[0]) >= index(layers, one[1])]
    is_circular = any(
        (two, one) in edges or one == two or ("c", "a") in edges for one, two in edges
    )
    assert is_circular or [] == backwards


def test_layers_of_a_large_graph_end():
    """A thousand workers in a row, and all to one: no recursion, no long search."""
    names = [f"w{number}" for number in range(1_000)]
    row = list(itertools.pairwise(names))

    assert 1_000 == len(layers_of(graph(row, *names)))
    assert 2 == len(layers_of(graph([(name, "w0") for name in names[1:]], *names)))


def test_svg_is_whole_in_itself():
    """Valid XML with each worker and edge, nothing from elsewhere, whatever the names are."""
    edge = GraphEdge(source=HARD, target="*", types=[HARD], rate=12.0, messages=1)
    dashed = GraphEdge(source="a", target=HARD, declared=["depends_on"])
    text = svg_text(graph([], HARD, "a", "*", "cli-*", "ghost", edges=[edge, dashed]))
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"

    assert 5 == len(root.findall(f"{space}g"))
    paths = root.findall(f"{space}path")
    assert [None, "5 4"] == [path.get("stroke-dasharray") for path in paths]
    assert "12/s" in "".join(root.itertext())
    assert not re.search(r"<script|href|url\((?!#)|@import", text)


VOICE = [
    ("cli-*", "caller"), ("caller", "stt"), ("caller", "agent"), ("caller", "tts"), ("stt", "agent"),
    ("caller", "*"), ("agent", "tools"), ("agent", "clock"), ("agent", "tts"), ("agent", "*"),
    ("tts", "caller"), ("tts", "tts"), ("tools", "agent"),
]  # fmt: skip


def rectangles(root):
    """What is drawn in the picture, but for its ground: boxes and the grounds of labels."""
    found = [rect for rect in root.iter() if rect.tag.endswith("rect") and rect.get("x")]
    return [tuple(int(one.get(key)) for key in ("x", "y", "width", "height")) for one in found]


def are_apart(one, other):
    return (
        one[0] + one[2] <= other[0] or other[0] + other[2] <= one[0]
        or one[1] + one[3] <= other[1] or other[1] + other[3] <= one[1]
    )  # fmt: skip


@pytest.mark.parametrize(
    "ends",
    [
        VOICE,
        [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d")],
        [("a", "a"), ("b", "b"), ("c", "a")],
        [(one, two) for one in "abcd" for two in "abcd"],
        [(f"w{one}", f"w{two}") for one in range(12) for two in range(one + 1, 12, 2)],
        [],
    ],
    ids=["voice", "diamond", "loops", "all", "long", "none"],
)
def test_svg_boxes_and_labels_do_not_overlap(ends):
    """Each has a place of its own within the picture, also labels of edges over several layers."""
    names = list(dict.fromkeys(name for one in ends for name in one)) or ["a"]
    edges = [
        GraphEdge(
            source=one,
            target=two,
            messages=1,
            types=[f"TypeWithALongName{number}", "音声"],
            rate=2.0,
        )
        for number, (one, two) in enumerate(ends)
    ]
    root = ET.fromstring(svg_text(graph([], *names, edges=edges)))
    found = rectangles(root)
    _, _, width, height = map(int, root.get("viewBox").split())

    assert len(names) + len(edges) == len(found)
    assert len(found) == len(set(found))
    for x, y, w, h in found:
        assert 0 <= x
        assert 0 <= y
        assert x + w <= width
        assert y + h <= height
    for one, other in itertools.combinations(found, 2):
        assert are_apart(one, other), (one, other)


def test_svg_edges_lead_around_boxes():
    """An edge over two layers passes no box between; it begins and ends at its own."""
    layout = GraphLayout(graph(VOICE, *dict.fromkeys(name for one in VOICE for name in one)))
    for edge in (one for one in layout.edges if not one.is_loop):
        source, target = layout.boxes[edge.edge.source], layout.boxes[edge.edge.target]
        (x1, y1), (x2, y2) = edge.points[0], edge.points[-1]
        assert x1 in {source.x, source.x + source.width}
        assert x2 in {target.x, target.x + target.width}
        assert source.top < y1 < source.top + BOX_HEIGHT
        assert target.top < y2 < target.top + BOX_HEIGHT
        for box in layout.boxes.values():
            for x, y in edge.points[1:-1]:
                is_within = box.x < x < box.x + box.width
                assert not (is_within and box.top < y < box.top + BOX_HEIGHT), (
                    edge.edge,
                    box.lines,
                )


def test_svg_of_a_large_graph_ends():
    """An edge over very many layers is drawn without a place in each of them."""
    names = [f"w{number}" for number in range(300)]
    ends = [*itertools.pairwise(names), *((name, "w299") for name in names[:-2])]
    assert 597 == len(ET.fromstring(svg_text(graph(ends, *names))).findall("./{*}path"))


def test_diagrams_quote_any_name():
    """One line a node and an edge; names stand within quotes only."""
    edge = GraphEdge(source=HARD, target="a", jobs=["load"], declared=["code"])
    made = graph([], HARD, "a", edges=[edge])
    mermaid, dot = mermaid_text(made).splitlines(), dot_text(made).splitlines()

    assert (4, 6) == (len(mermaid), len(dot))
    assert "flowchart LR" == mermaid[0]
    assert '  n0 -->|"load()"| n1' == mermaid[-1]
    (name,) = re.findall(r'n0\["(.*)"\]', mermaid[1])
    assert not re.search(r'["<>`\x1b]|#(?!\d+;|x?\w+;)', name)
    assert all(re.fullmatch(r'[^"]*("([^"\\]|\\.)*"[^"]*)*', line) for line in dot)
    assert '  n0 -> n1 [label="load()", style=solid];' in dot


def test_text_tells_edges_and_problems():
    """A worker, its edges below it; then what is wrong."""
    edge = GraphEdge(source="a", target="*", types=["T1", "T2", "T3", "T4"], messages=1_000,
                     rate=3.0, declared=["sends_to"])  # fmt: skip
    made = graph([], "a", "*", edges=[edge], undeclared=[("a", "b")], silent=[("b", "a")],
                 dangling=[("a", HARD)])  # fmt: skip

    assert [
        "a", "  -> everyone  T1, T2, T3, 1 more, 3/s  1,000 messages  (sends_to)",
    ] == graph_lines(made)  # fmt: skip
    lines = problem_lines(made)
    assert ["a -> b is undeclared", "b -> a is silent"] == [
        line.partition(":")[0] for line in lines[:2]
    ]
    assert "dangling" in lines[2]
    assert not any("\x1b" in line or "\n" in line for line in lines)
