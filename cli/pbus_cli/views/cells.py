"""Text within so many cells of a terminal."""

import functools
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.style import Style

from pbus_cli.terminal.clean import own, without_controls, without_sequences

_MORE: Final = "…"


def cut(text: str, room: int) -> str:
    """A text that fits, its end left out."""
    if len(text) * 2 <= room or cell_len(text) <= room:  # no character takes more than two cells
        return text
    return set_cell_size(text, room - 1) + _MORE if room > 0 else ""


def cut_name(name: str, room: int) -> str:
    """A worker's name that fits, its middle left out: replicas differ at the end."""
    if cell_len(name) <= room:
        return name
    end = room // 3
    while end and cell_len(name[-end:]) > room // 3:
        end -= 1
    tail = name[-end:] if end else ""
    return cut(name, room - cell_len(tail)) + tail


def fill(text: str, room: int) -> str:
    """A text that fits, with spaces up to the next column."""
    return text + " " * (room - cell_len(text))


def plain_text(text: str) -> str:
    """A line without what would move the cursor or change colours."""
    return without_controls(without_sequences(text).replace("\t", "    "))


def rendered(text: str, style: str) -> str:
    """A text with its colours, as a stream takes it; much cheaper than drawing."""
    before, after = _sequences_of(style)
    return f"{before}{text}{after}"


@functools.cache
def _sequences_of(style: str) -> tuple[str, str]:
    """The sequences that begin and end a style."""
    before, _, after = (
        Style.parse(style).render(".", color_system=ColorSystem.STANDARD).partition(".")
    )
    return own(before), own(after)
