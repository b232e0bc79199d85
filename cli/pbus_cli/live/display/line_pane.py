"""A pane of lines: a title, a heading, items with a cursor; the only way of texts to the display."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from pbus_cli.terminal.clean import clean_line
from pbus_cli.views import colors
from pbus_cli.views.board.pane_view import Item, PaneView, rule
from pbus_cli.views.figures import short_count

_WHEEL: Final = 3  # lines a click of the mouse's wheel
_CHOSEN: Final = Style(reverse=True)
_CONSOLE: Final = Console(
    color_system=None
)  # knows styles by their names; nothing is written to it


def strip_of(text: Text, width: int, style: Style | None = None) -> Strip:
    """A text as a line of the terminal, without what a terminal would act on.

    Args:
        text: From anywhere; no markup in it is interpreted.
        width: Cells.
        style: Of the whole line.
    """
    shown = text.copy()
    shown.end = ""
    base = _CONSOLE.get_style(shown.style)  # render() leaves it out of a text without spans
    segments = [
        Segment(clean_line(one.text), one.style or base)
        for one in shown.render(_CONSOLE)
        if one.text
    ]
    strip = Strip(segments).adjust_cell_length(width)
    return strip.apply_style(style) if style is not None else strip


class Lines(Widget):
    """Some lines, cut at the bottom."""

    ALLOW_SELECT = False
    can_focus = False

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._lines: Sequence[Text] = ()

    def show(self, lines: Sequence[Text]) -> None:
        """Show these from now on."""
        if list(lines) != list(self._lines):
            self._lines = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One of them."""
        text = self._lines[y] if y < len(self._lines) else Text()
        return strip_of(text, self.size.width)


class LinePane(Widget, can_focus=True):
    """Shows a view; the cursor stays on its item while others come and go.

    Args:
        name: Its id.
        number: The key that leads to it; 0 for none.
        follows: It shows the end of its items, until the cursor is moved.
    """

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False, priority=True),
        Binding("down,j", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("home,g", "first", show=False, priority=True),
        Binding("end,G", "last", show=False, priority=True),
        Binding("enter", "inspect", show=False, priority=True),
    ]

    class Inspected(Message):
        """All that is known of an item is wanted."""

        def __init__(self, item: Item) -> None:
            super().__init__()
            self.item = item

    def __init__(self, name: str, number: int, *, follows: bool = False) -> None:
        super().__init__(id=name)
        self.wanted = ""  # the filter
        self._number = number
        self._follows = follows
        self._view = PaneView(name)
        self._held: PaneView | None = None  # what was shown when it was paused
        self._shown = self._view
        self._cursor = 0
        self._top = 0

    @property
    def _is_paused(self) -> bool:
        """Whether it does not follow its end now, though it could."""
        return self._held is not None

    @property
    def chosen(self) -> Item | None:
        """The item under the cursor."""
        items = self._shown.items
        return items[self._cursor] if self._cursor < len(items) else None

    def show(self, view: PaneView) -> None:
        """Show this from now on; a pane that is paused goes on with what it shows."""
        self._view = view
        self._take(self._held or view)

    def filter(self, wanted: str) -> None:
        """Show only items with these words."""
        self.wanted = wanted
        self._take(self._held or self._view)

    def toggle_pause(self) -> None:
        """Pause, or go on at the end."""
        if self._follows and self._held is None:
            self._hold()
        elif self._held is not None:
            self.action_last()

    def render_line(self, y: int) -> Strip:
        """The title, the heading or an item."""
        width = self.size.width
        if y == 0:
            return strip_of(self._title(width), width)
        if y == 1 and self._shown.heading is not None:
            return strip_of(self._shown.heading, width)
        return self._item_strip(y - self._head, width)

    def _item_strip(self, row: int, width: int) -> Strip:
        items, pinned = self._shown.items, self._shown.pinned
        if not items:
            text = Text(f"  {self._shown.empty}" if row == 0 else "", style=colors.QUIET)
            return strip_of(text, width)
        index = row if row < pinned else row + self._top
        if index >= len(items):
            return Strip.blank(width)
        is_chosen = self.has_focus and index == self._cursor and self._has_cursor
        return strip_of(items[index].draw(), width, _CHOSEN if is_chosen else None)

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._go(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by what is shown at once."""
        self._go(self._cursor + by * max(1, self._room - 1))

    def action_first(self) -> None:
        """Move the cursor to the first item."""
        self._go(0)

    def action_last(self) -> None:
        """Move the cursor to the last item; what follows its end does so again."""
        self._held = None
        self._take(self._view)
        if not self._follows:
            self._go(len(self._shown.items) - 1)

    def action_inspect(self) -> None:
        """Ask for all that is known of the item."""
        if self.chosen is not None and self.chosen.value is not None:
            self.post_message(self.Inspected(self.chosen))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll."""
        event.stop()
        self._go(self._cursor + _WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll."""
        event.stop()
        self._go(self._cursor - _WHEEL)

    def on_click(self, event: events.Click) -> None:
        """Choose an item; one that was chosen is inspected."""
        row = event.y - self._head
        index = row if row < self._shown.pinned else row + self._top
        if row < 0 or index >= len(self._shown.items):
            return
        was_chosen = self._has_cursor and index == self._cursor
        self._go(index)
        if was_chosen:
            self.action_inspect()

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        self._take(self._shown_unfiltered)

    @property
    def _shown_unfiltered(self) -> PaneView:
        return self._held or self._view

    @property
    def _has_cursor(self) -> bool:
        return not self._follows or self._is_paused

    @property
    def _head(self) -> int:
        return 1 + (self._shown.heading is not None)

    @property
    def _room(self) -> int:
        return max(0, self.size.height - self._head)

    def _hold(self) -> None:
        self._held = self._view

    def _title(self, width: int) -> Text:
        view = self._shown
        summary = [f"({view.summary})"] if view.summary else []
        if self.wanted:
            summary.append(f"/{self.wanted}")
        if self._held is not None:
            summary.append(f"‖ {short_count(self._view.total - self._held.total)} new")
        elif len(view.items) > self._room and not self._follows:
            summary.append(f"{self._cursor + 1} of {len(view.items)}")
        title = f"{self._number} {view.title}" if self._number else view.title
        return rule(title, "  ".join(summary), width, is_focused=self.has_focus)

    def _go(self, index: int) -> None:
        """Put the cursor on an item; what follows its end stops to do so."""
        count = len(self._shown.items)
        if self._follows and self._held is None:
            if index >= self._cursor:
                return  # the end is where it is
            self._hold()
        self._cursor = max(0, min(index, count - 1))
        self._keep_in_sight()
        self.refresh()

    def _take(self, view: PaneView) -> None:
        chosen = self.chosen
        self._shown = view.filtered(self.wanted)
        items = self._shown.items
        if not self._has_cursor:
            self._cursor = max(0, len(items) - 1)
        elif chosen is not None:
            place = next((at for at, one in enumerate(items) if one.key == chosen.key), None)
            self._cursor = min(self._cursor, max(0, len(items) - 1)) if place is None else place
        self._keep_in_sight()
        self.refresh()

    def _keep_in_sight(self) -> None:
        """Scroll as little as shows the cursor; what is pinned does not scroll."""
        count, pinned = len(self._shown.items), self._shown.pinned
        room = self._room
        if room <= pinned:
            self._shown = replace(self._shown, pinned=0)
            pinned = 0
        highest = max(0, count - room)
        if not self._has_cursor:
            self._top = highest
            return
        if self._cursor >= pinned:
            self._top = min(self._top, self._cursor - pinned)
            self._top = max(self._top, self._cursor - room + 1)
        self._top = max(0, min(self._top, highest))
