"""The content of one pane: a title, a heading and items, filtered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rich.text import Text

from pbus_cli.terminal.clean import clean_line
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines

NOTHING: Final = Text("")


@dataclass(frozen=True)
class Item:
    """One line of a pane.

    Attributes:
        key: Tells it from all others, so that the cursor stays on it.
        value: What it shows.
        draw: Makes the line.
        words: The text that a filter looks at; made only when there is one.
    """

    key: object
    value: Any
    draw: Callable[[], Text]
    words: Callable[[], str]


@dataclass(frozen=True)
class PaneView:
    """The content of a pane.

    Attributes:
        summary: Figures beside the title.
        heading: Above the items; None for none.
        pinned: How many of the first items stay where they are when a pane follows its end.
        total: Items that came since the start, where a pane follows its end.
        empty: What to say where there are no items.
    """

    title: str
    items: Sequence[Item] = ()
    summary: str = ""
    heading: Text | None = None
    pinned: int = 0
    total: int = 0
    empty: str = ""

    def filtered(self, text: str) -> "PaneView":
        """Only items with each of these words, and none of those that begin with "!"."""
        if not text.strip():
            return self
        kept = [item for item in self.items if passes(item.words(), text)]
        pinned = sum(item in kept for item in self.items[: self.pinned])
        return replace(self, items=kept, pinned=pinned, empty=f"nothing of this has {text!r}")


def passes(words: str, wanted: str) -> bool:
    """Whether a text has each word that is wanted, and none of those that begin with "!"."""
    text = words.casefold()
    for word in wanted.casefold().split():
        unwanted = word.removeprefix("!")
        if unwanted and (unwanted in text) == (unwanted != word):
            return False
    return True


@dataclass
class SteadyColumns:
    """The widths that the columns of a pane have had: they only grow, so that columns stay in place.

    Attributes:
        widths: By title; at first those of columns whose figures are soon to grow.
    """

    widths: dict[str, int] = field(default_factory=dict)

    def lines(self, columns: Sequence[Column], width: int) -> list[Text]:
        """The heading and one line a row."""
        steady = []
        for column in columns:
            least = max(self.widths.get(column.title, 0), column.width)
            self.widths[column.title] = least
            steady.append(replace(column, least=least))
        return lines(steady, width, colors.HEADING)


def table(
    title: str,
    rows: Sequence[tuple[object, Any, str]],
    drawn: Sequence[Text],
    *,
    summary: str = "",
    empty: str = "",
) -> PaneView:
    """A pane that is a table.

    Args:
        title: Of the pane.
        rows: Key, value and words of each row.
        drawn: The heading and a line a row.
        summary: Figures beside the title.
        empty: What to say where there are no rows.
    """
    items = [_row_item(*row, line) for row, line in zip(rows, drawn[1:], strict=True)]
    return PaneView(title, items, summary=summary, heading=drawn[0], empty=empty)


def _row_item(key: object, value: Any, words: str, line: Text) -> Item:
    return Item(key, value, lambda: line, lambda: words)


def rule(title: str, summary: str, width: int, *, is_focused: bool = False) -> Text:
    """The line above a pane."""
    line = Text.assemble("──", (f" {title} ", "bold reverse" if is_focused else colors.HEADING))
    if summary:
        line.append(f" {clean_line(summary)} ")
    line.append("─" * max(0, width - line.cell_len))
    line.truncate(width, overflow="ellipsis")
    return line
