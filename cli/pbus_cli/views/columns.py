"""Columns of text that always fit: one column gives way, unimportant ones are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from pbus_cli.terminal.clean import clean_line
from pbus_cli.views.cells import cut_name

GAP: Final = 2
_NARROWEST: Final = 10  # the giving column never gets less, other columns go first


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        cells: As many as every other column has.
        right: Align to the right, as figures are.
        gives: This column is shortened first.
        is_name: What is shortened is the middle: replicas differ at the end.
        weight: The column of the least weight is left out first; None never is.
        least: Cells that it takes at least.
    """

    title: str
    cells: tuple[Text, ...]
    right: bool = True
    gives: bool = False
    is_name: bool = False
    weight: int | None = None
    least: int = 0

    def __post_init__(self) -> None:
        """Have each cell take what it shows, control characters included."""
        for cell in self.cells:
            if (shown := clean_line(cell.plain)) != cell.plain:
                cell.plain = shown

    @property
    def width(self) -> int:
        """The width of the widest cell."""
        return max(len(self.title), self.least, *(cell.cell_len for cell in self.cells))


def lines(columns: Sequence[Column], width: int | None, heading_style: str) -> list[Text]:
    """The heading and one line a row, none wider than `width` (None: as wide as needed)."""
    kept = list(columns) if width is None else _kept(columns, width)
    widths = [_width(column, kept, width) for column in kept]
    count = len(kept[0].cells)
    headings = [Text(column.title, style=heading_style) for column in kept]
    rows = [headings, *([column.cells[row] for column in kept] for row in range(count))]
    made = [_line(cells, kept, widths) for cells in rows]
    if width is not None:
        for line in made:
            line.truncate(width, overflow="ellipsis")
    return made


def _kept(columns: Sequence[Column], width: int) -> list[Column]:
    kept = list(columns)
    while _least(kept) > width:
        light = [column for column in kept if column.weight is not None]
        if not light:
            break
        kept.remove(min(light, key=lambda column: column.weight or 0))
    return kept


def _least(columns: Sequence[Column]) -> int:
    widths = (min(c.width, _NARROWEST) if c.gives else c.width for c in columns)
    return sum(widths) + GAP * (len(columns) - 1)


def _width(column: Column, columns: Sequence[Column], width: int | None) -> int:
    if not column.gives or width is None:
        return column.width
    others = sum(other.width for other in columns if other is not column)
    room = width - others - GAP * (len(columns) - 1)
    return min(column.width, max(_NARROWEST, room))


def _line(cells: Sequence[Text], columns: Sequence[Column], widths: Sequence[int]) -> Text:
    line = Text(no_wrap=True, end="")
    for index, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        if index:
            line.append(" " * GAP)
        piece = cell.copy()
        if column.is_name and piece.cell_len > width:
            piece.plain = cut_name(piece.plain, width)
        piece.truncate(width, overflow="ellipsis")
        space = " " * (width - piece.cell_len)
        line.append_text(Text(space) + piece if column.right else piece)
        if not column.right and index < len(columns) - 1:
            line.append(space)
    return line
