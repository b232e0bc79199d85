"""A sequence diagram as SVG, whole in itself: no script, no link, no font of its own."""

import html
from typing import Final

from rich.cells import cell_len

from pbus.client.sequences.sequence_diagram import Arrow, Mark, SequenceDiagram
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views.sequences.sequence_layout import (
    arrow_label,
    mark_label,
    places,
    shown_name,
)

_CHAR: Final = 8  # of the font, in pixels
_ROW: Final = 26
_TOP: Final = 56  # where the first step is
_LEFT: Final = 100  # room for the times
_MARGIN: Final = 24
_BOX: Final = 28
_INK: Final = "#374151"
_COLORS: Final = {"end": "#b91c1c", "start": "#b45309", "ready": "#15803d", "trouble": "#b45309"}
_HEAD: Final = (
    '<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#374151"/></marker></defs>'
)


def sequence_svg(diagram: SequenceDiagram, title: str) -> str:
    """A picture of the diagram.

    Args:
        diagram: What happened.
        title: Of the picture.
    """
    found = places(diagram, _pixels, gap=24, arrow_room=36)
    at = {name: _LEFT + place for name, place in found.items()}
    bottom = _TOP + len(diagram.steps) * _ROW + _MARGIN // 2
    rows = [(_TOP + number * _ROW, step) for number, step in enumerate(diagram.steps)]
    parts = [part for name, x in at.items() for part in _lifeline(name, x, rows, bottom)]
    parts += [part for y, step in rows for part in _step(step, at, y, rows[0][1].time)]
    ends = [x + _pixels(shown_name(name)) // 2 + 10 for name, x in at.items()]
    width = max(_LEFT, *ends, *(_right(step, at) for _, step in rows), 0)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + _MARGIN} {bottom + _MARGIN}" '
        f'width="{width + _MARGIN}" height="{bottom + _MARGIN}" font-family="monospace" '
        'font-size="13">'
    )
    return "\n".join([
        head,
        f"<title>{html.escape(clean_line(title))}</title>",
        _HEAD,
        '<rect width="100%" height="100%" fill="white"/>',
        *parts,
        "</svg>",
    ])


def _step(step: Arrow | Mark, at: dict[str, int], y: int, began: float) -> tuple[str, str]:
    """The time of a step, and the step."""
    if isinstance(step, Arrow):
        drawn = _arrow(step, at[step.source], at[step.target], y)
    else:
        drawn = _mark(step, at[step.worker], y)
    return _time(y, step.time - began), drawn


def _pixels(text: str) -> int:
    return cell_len(text) * _CHAR


def _right(step: Arrow | Mark, at: dict[str, int]) -> int:
    """The right end of what is drawn for a step."""
    if isinstance(step, Mark):
        return at[step.worker] + 12 + _pixels(mark_label(step))
    if step.source == step.target:
        return at[step.source] + 36 + _pixels(arrow_label(step))
    return max(at[step.source], at[step.target])


def _lifeline(name: str, x: int, rows: list[tuple[int, Arrow | Mark]], bottom: int) -> list[str]:
    """The head, and the line below it: dashed from an end of the worker until it is ready again."""
    label = shown_name(name)
    width = _pixels(label) + 16
    head = (
        f'<rect x="{x - width // 2}" y="8" width="{width}" height="{_BOX}" rx="5" fill="#dbeafe" '
        f'stroke="{_INK}"/>'
        f'<text x="{x}" y="27" text-anchor="middle">{html.escape(label)}</text>'
    )
    parts = [head]
    y, is_down = 8 + _BOX, False
    own = [(at, step) for at, step in rows if isinstance(step, Mark) and step.worker == name]
    for at, step in own:
        parts.append(_line(x, y, at, is_down=is_down))
        y, is_down = at, step.kind in {"end", "start"}
    return [*parts, _line(x, y, bottom, is_down=is_down)]


def _line(x: int, top: int, bottom: int, *, is_down: bool) -> str:
    dash = ' stroke-dasharray="2 5"' if is_down else ""
    return f'<path d="M{x} {top}V{bottom}" stroke="#9ca3af" fill="none"{dash}/>'


def _time(y: int, seconds: float) -> str:
    text = f"{max(0.0, seconds):.3f}"
    return f'<text x="72" y="{y + 4}" text-anchor="end" fill="#6b7280">{text}</text>'


def _arrow(arrow: Arrow, source: int, target: int, y: int) -> str:
    label = html.escape(arrow_label(arrow))
    dash = ' stroke-dasharray="6 4"' if arrow.is_reply else ""
    color = _INK if arrow.is_reached else _COLORS["end"]
    if source == target:
        way = f"M{source} {y - 6}h24v12h-24"
        text = _white(source + 28, y - 8, _pixels(arrow_label(arrow)) + 4) + (
            f'<text x="{source + 30}" y="{y + 4}" fill="{color}">{label}</text>'
        )
    else:
        way = f"M{source} {y}H{target}"
        middle = (source + target) // 2
        width = _pixels(arrow_label(arrow))
        text = _white(middle - width // 2, y - 15, width) + (
            f'<text x="{middle}" y="{y - 4}" text-anchor="middle" fill="{color}">{label}</text>'
        )
    line = f'<path d="{way}" fill="none" stroke="{color}"{dash} marker-end="url(#end)"/>'
    return line + text


def _mark(mark: Mark, x: int, y: int) -> str:
    color, label = _COLORS[mark.kind], html.escape(mark_label(mark))
    sign = (
        f'<path d="M{x - 6} {y - 6}l12 12M{x + 6} {y - 6}l-12 12" stroke="{color}" stroke-width="2"/>'
        if mark.kind == "end"
        else f'<circle cx="{x}" cy="{y}" r="5" fill="{color}"/>'
    )
    text = f'<text x="{x + 12}" y="{y + 4}" fill="{color}">{label}</text>'
    return sign + _white(x + 10, y - 8, _pixels(mark_label(mark)) + 2) + text


def _white(x: int, y: int, width: int) -> str:
    """The ground of a text that crosses lifelines; not all programs can draw the text's own edge."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="14" fill="white"/>'
