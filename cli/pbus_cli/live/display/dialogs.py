"""Texts to read, questions, and the words of a filter: over or below the panes."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from pbus_cli.live.display.line_pane import LinePane, Lines
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views import colors
from pbus_cli.views.board.pane_view import Item, PaneView

_VISIBLE: Final = r"[^\x00-\x1f\x7f-\x9f]*"


class TextScreen(Screen[None]):
    """Some lines to read and scroll, over the whole display.

    Args:
        title: Above them.
        lines: Of any width.
        wraps: Whether lines that are too wide are wrapped; else they are cut.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "leave", show=False, priority=True)
    ]

    def __init__(self, title: str, lines: Sequence[Text], *, wraps: bool = True) -> None:
        super().__init__()
        self._wraps = wraps
        self._title = clean_line(title)
        self._lines = lines
        self._pane = LinePane("text", 0)
        self._foot = Lines("text-foot")

    def compose(self) -> ComposeResult:
        """The lines, and how to leave."""
        yield self._pane
        yield self._foot

    def on_mount(self) -> None:
        """Show them."""
        self._foot.show([Text("Esc or q: back   ↑ ↓ PgUp PgDn: scroll", style=colors.QUIET)])
        self._pane.focus()

    def on_resize(self, event: events.Resize) -> None:
        """Fit them into this width."""
        wrapped = wrap(self._lines, event.size.width) if self._wraps else self._lines
        items = [_line_item(at, line) for at, line in enumerate(wrapped)]
        self._pane.show(PaneView(self._title, items))

    def on_line_pane_inspected(self, message: LinePane.Inspected) -> None:
        """Enter leads back."""
        message.stop()
        self.action_leave()

    def action_leave(self) -> None:
        """Back to the panes."""
        self.dismiss()


def _line_item(at: int, line: Text) -> Item:
    return Item(at, line, lambda: line, lambda: line.plain)


def wrap(lines: Sequence[Text], width: int) -> list[Text]:
    """Lines none of which is wider than `width`, cut between characters."""
    if width < 1:
        return []
    made: list[Text] = []
    for line in lines:
        rest = line.copy()
        rest.plain = clean_line(rest.plain)
        while rest.cell_len > width:
            at = _fitting(rest.plain, width)
            first, rest = rest.divide([at])
            made.append(first)
        made.append(rest)
    return made


def _fitting(text: str, width: int) -> int:
    """The number of characters that fit, at least one."""
    at = min(len(text), width)
    while at > 1 and Text(text[:at]).cell_len > width:
        at -= 1
    return at


class Question(Lines):
    """A line that asks; y does it, any other key does not.

    Args:
        name: Its id.
        on_answered: Called with each answer, before anything is done.
    """

    def __init__(self, name: str, on_answered: Callable[[], None]) -> None:
        super().__init__(name)
        self._on_answered = on_answered
        self._do: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a key is an answer."""
        return self._do is not None

    def ask(self, text: str, do: Callable[[], None]) -> None:
        """Ask."""
        self._do = do
        self.show([Text.assemble((f" {text} ", "bold reverse"), "  y: yes   n: no")])
        self.display = True

    def answer(self, key: str) -> None:
        """Take a key; do it where that says yes."""
        do, self._do = self._do, None
        self.display = False
        self._on_answered()
        if do is not None and key in {"y", "Y"}:
            do()


class FilterInput(Input):
    """The words of a filter, heeded while they are typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear_filter", show=False, priority=True)
    ]

    def __init__(self, name: str) -> None:
        super().__init__(id=name, restrict=_VISIBLE, compact=True, select_on_focus=False)

    def action_clear_filter(self) -> None:
        """No filter."""
        self.value = ""
        self.post_message(self.Submitted(self, ""))
