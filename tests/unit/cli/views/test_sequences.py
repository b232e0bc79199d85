"""Sequence diagrams as text, Mermaid and SVG."""

from xml.etree import ElementTree as ET

import pytest
from rich.cells import cell_len

from pbus.client.sequences.sequence_diagram import EVERYONE, Arrow, Mark, SequenceDiagram
from pbus_cli.views.sequences.sequence_mermaid import mermaid_lines
from pbus_cli.views.sequences.sequence_svg import sequence_svg
from pbus_cli.views.sequences.sequence_text import sequence_lines

STEPS = (
    Arrow(time=10.0, source="a", target="middle", label="Question"),
    Arrow(time=10.02, source="middle", target="tools", label="look()"),
    Mark(time=10.1, worker="middle", state="backoff", kind="end", detail="was killed by SIGKILL"),
    Mark(time=10.2, worker="middle", state="starting", kind="start"),
    Arrow(time=10.3, source="tools", target="middle", label="completed", is_reply=True),
    Mark(time=10.4, worker="middle", state="ready", kind="ready"),
    Arrow(time=10.5, source="middle", target="a", label="Answer", is_reached=False),
    Arrow(time=10.6, source="a", target="a", label="Self", count=3),
    Arrow(time=71.6, source="tools", target=EVERYONE, label="News"),
)
DIAGRAM = SequenceDiagram(participants=("a", "middle", "tools", EVERYONE), steps=STEPS)
HOSTILE = "x\n\x1b[2J</text>;#a: b\u202e`"


def test_text_draws_lifelines():
    """Time from the first step, arrows with heads, an end and a start on a dotted lifeline."""
    assert [
        "            a                      middle          tools   everyone",
        "   0.000    │──────── Question ──────▶│              │         │",
        "   0.020    │                         │─── look() ──▶│         │",
        "   0.100    │                         ✖ backoff: was killed by SIGKILL",
        "   0.200    │                         ○ starting     │         │",
        "   0.300    │                         ┊◀╌ completed ╌│         │",
        "   0.400    │                         ● ready        │         │",
        "   0.500    │✗─ Answer (undelivered) ─│              │         │",
        "   0.600    │─┐ Self x3               │              │         │",
        "  61.600    │                         │              │── News ▶│",
    ] == sequence_lines(DIAGRAM)


def test_text_without_unicode():
    """Where the terminal has no other characters."""
    lines = sequence_lines(DIAGRAM, has_unicode=False)
    assert all(line.isascii() for line in lines)
    assert any("Question" in line and line.rstrip().count(">") for line in lines)
    assert [] == sequence_lines(SequenceDiagram(participants=(), steps=()))


def test_wide_names_and_labels_keep_lifelines_straight():
    """A character of two cells counts two; long labels are cut."""
    diagram = SequenceDiagram(
        participants=("音声認識", "b"),
        steps=(
            Arrow(time=1.0, source="音声認識", target="b", label="質問" * 40),
            Arrow(time=2.0, source="b", target="音声認識", label="短い"),
        ),
    )
    _, *rows = sequence_lines(diagram)
    assert {cell_len(row) for row in rows} == {cell_len(rows[0])}
    assert "…" in rows[0]


@pytest.mark.parametrize("label", [HOSTILE, "", " ", "#", "end", "%%"])
def test_foreign_text_stays_text(label):
    """In names, labels and details: no line of its own, nothing of Mermaid's, no element."""
    diagram = SequenceDiagram(
        participants=(HOSTILE, "b"),
        steps=(
            Arrow(time=1.0, source=HOSTILE, target="b", label=label),
            Mark(time=2.0, worker="b", state="failed", kind="end", detail=label),
        ),
    )
    for lines in (sequence_lines(diagram), mermaid_lines(diagram)):
        assert all("\n" not in line and "\x1b" not in line for line in lines)
        assert (3, 5)[lines[0] == "sequenceDiagram"] == len(lines)
    for line in mermaid_lines(diagram)[1:]:
        text = line.partition(" as ")[2] or line.partition(": ")[2]
        assert text
        assert not set(text) & set('\n`<>%"')
    root = ET.fromstring(sequence_svg(diagram, HOSTILE))
    assert "svg" == root.tag.rpartition("}")[2]


def test_mermaid_says_the_same():
    """Replies are dashed, what is undelivered ends in a cross, changes are notes."""
    assert [
        "sequenceDiagram",
        "  participant p0 as a",
        "  participant p1 as middle",
        "  participant p2 as tools",
        "  participant p3 as everyone",
        "  p0->>p1: Question",
        "  p1->>p2: look()",
        "  Note over p1: backoff#58; was killed by SIGKILL",
        "  Note over p1: starting",
        "  p2-->>p1: completed",
        "  Note over p1: ready",
        "  p1-xp0: Answer (undelivered)",
        "  p0->>p0: Self x3",
        "  p2->>p3: News",
    ] == mermaid_lines(DIAGRAM)


def test_svg_has_a_ground_below_each_label():
    """A label that crosses lifelines is on white that is drawn before it and has its place.

    Not all programs can draw the edge of a text below it (`paint-order`): the text was white there.
    """
    root = ET.fromstring(sequence_svg(DIAGRAM, "talk"))
    nodes = [node for node in root.iter() if node.tag.endswith(("}rect", "}text"))]
    grounds = []
    for node in nodes:
        assert "stroke" not in node.attrib or node.tag.endswith("}rect")
        if node.tag.endswith("}rect") and node.get("fill") == "white" and node.get("x"):
            grounds.append([int(node.get(key)) for key in ("x", "y", "width", "height")])
        elif node.text in {"Question", "Self x3", "backoff: was killed by SIGKILL", "ready"}:
            x, y, width, height = grounds[-1]
            left = int(node.get("x")) - (4 * len(node.text) if node.get("text-anchor") else 0)
            assert x <= left
            assert left + 8 * len(node.text) <= x + width
            assert y < int(node.get("y")) <= y + height
    assert len(STEPS) == len(grounds)


def test_svg_is_whole_and_within_its_bounds():
    """All texts are there, nothing is drawn outside, no script, no link."""
    root = ET.fromstring(sequence_svg(DIAGRAM, "talk"))
    _, _, width, height = map(int, root.get("viewBox").split())
    texts = [node.text for node in root.iter() if node.tag.endswith("}text")]
    assert {"a", "middle", "tools", "everyone", "Question", "look()", "Self x3", "61.600"} <= set(
        texts
    )
    assert "backoff: was killed by SIGKILL" in texts
    for node in root.iter():
        assert not node.tag.endswith(("}script", "}a", "}image"))
        assert 0 <= float(node.get("x", "0").rstrip("%")) <= width
        assert 0 <= float(node.get("y", "0")) <= height
    dashed = [node for node in root.iter() if node.get("stroke-dasharray") == "2 5"]
    assert 2 == len(dashed)  # from the end to the start, and to ready
    ET.fromstring(sequence_svg(SequenceDiagram(participants=(), steps=()), "nothing"))
