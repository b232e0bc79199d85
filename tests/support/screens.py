"""Rendering views to text, as a terminal of some size would show them."""

import io
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

SIZES = ((80, 24), (120, 40), (200, 60))


def picture(view: RenderableType, width: int, height: int = 24) -> list[str]:
    """The lines of a view, without colours."""
    return _render(view, width, height, colors=False).split("\n")


def colored(view: RenderableType, width: int = 120, height: int = 40) -> str:
    """A view with its colours, as a terminal gets it."""
    return _render(view, width, height, colors=True)


def widest(lines: Iterable[str | Text]) -> int:
    """Cells that the widest line takes."""
    return max(cell_len(str(line)) for line in lines)


def _render(view: RenderableType, width: int, height: int, *, colors: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=height,
        force_terminal=True,
        color_system="standard" if colors else None,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    console.print(view, end="", soft_wrap=False)
    return out.getvalue()
