"""A sequence diagram as lines of text."""

from typing import Final

from rich.cells import cell_len

from pbus.client.sequences.sequence_diagram import Arrow, Mark, SequenceDiagram
from pbus_cli.views.sequences.sequence_layout import (
    arrow_label,
    mark_label,
    places,
    shown_name,
)

_TIME: Final = 11  # cells of the time, with the space after it
_GAP: Final = 3
_ARROW_ROOM: Final = 6
_ASCII: Final = str.maketrans("│┊─╌▶◀✖●○◐┐✗…", "|:-.><Xo*!+x~")


def sequence_lines(diagram: SequenceDiagram, *, has_unicode: bool = True) -> list[str]:
    """The diagram, a line for each message or change, with its time after the first one.

    Args:
        diagram: What happened.
        has_unicode: Whether lines may have other characters than ASCII.
    """
    if not diagram.steps:
        return []
    at = {
        name: _TIME + place
        for name, place in places(diagram, cell_len, gap=_GAP, arrow_room=_ARROW_ROOM).items()
    }
    head = _Row({})
    for name, place in at.items():
        head.write(place - cell_len(shown_name(name)) // 2, shown_name(name))
    lines = [head.text()]
    lifelines = dict.fromkeys(at.values(), "│")
    began = diagram.steps[0].time
    for step in diagram.steps:
        row = _Row(lifelines)
        row.write(0, f"{max(0.0, step.time - began):{_TIME - 3}.3f}")
        if isinstance(step, Arrow):
            _draw_arrow(row, step, at)
        else:
            _draw_mark(row, step, at[step.worker], lifelines)
        lines.append(row.text())
    return lines if has_unicode else [line.translate(_ASCII) for line in lines]


class _Row:
    """One line, as cells."""

    def __init__(self, lifelines: dict[int, str]) -> None:
        self._cells = [" "] * (max(lifelines, default=0) + 1)
        for place, sign in lifelines.items():
            self._cells[place] = sign

    def write(self, place: int, text: str) -> None:
        """Put a text over what is there; a wide character takes two cells."""
        for character in text:
            width = cell_len(character)
            if width == 0:
                continue
            self._cells += [" "] * (place + width - len(self._cells))
            self._cells[place : place + width] = [character, *[""] * (width - 1)]
            place += width

    def text(self) -> str:
        """The line."""
        return "".join(self._cells).rstrip()


def _draw_arrow(row: _Row, arrow: Arrow, at: dict[str, int]) -> None:
    source, target = at[arrow.source], at[arrow.target]
    label, line = arrow_label(arrow), "╌" if arrow.is_reply else "─"
    if source == target:
        row.write(source + 1, f"{line}┐ {label}")
        return
    left, right = sorted((source, target))
    row.write(left + 1, line * (right - left - 1))
    middle = (left + right) // 2
    row.write(max(left + 2, middle - (cell_len(label) + 2) // 2 + 1), f" {label} ")
    head = "✗" if not arrow.is_reached else "▶" if source < target else "◀"
    row.write(target - 1 if source < target else target + 1, head)


_SIGNS: Final = {"end": "✖", "start": "○", "ready": "●", "trouble": "◐"}
_LINES: Final = {"end": "┊", "start": "┊", "ready": "│", "trouble": "│"}


def _draw_mark(row: _Row, mark: Mark, place: int, lifelines: dict[int, str]) -> None:
    """A change at its lifeline, which is dotted until the worker is ready again."""
    row.write(place, f"{_SIGNS[mark.kind]} {mark_label(mark)} ")
    lifelines[place] = _LINES[mark.kind]
