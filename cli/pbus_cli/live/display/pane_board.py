"""The panes, and the keys that go between them, arrange them and act on what is chosen."""

from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from pbus_cli.live.display.dialogs import FilterInput, Question
from pbus_cli.live.display.line_pane import LinePane, Lines
from pbus_cli.live.display.pane_makers import PaneMakers
from pbus_cli.live.display.source import Source
from pbus_cli.views import colors
from pbus_cli.views.board.arrangement import PANES, Focus, Pane, Place, arrange
from pbus_cli.views.board.board_snapshot import Snapshot
from pbus_cli.views.board.top_lines import top_lines
from pbus_cli.views.board.worker_pane import WorkerItem

_FOLLOWING: Final = frozenset[Pane]({"traffic", "logs"})
_HINTS: Final = "q leave  ? help  / filter  Tab 1-6 panes  Enter inspect"
_WORKER_HINTS: Final = "q leave  ? help  r restart  s stop  +- scale  Space unfold  Tab 1-6 panes"
_DEAD_HINTS: Final = "q leave  ? help  u requeue  U all  Enter inspect  Tab 1-6 panes"
_FOLLOWING_HINTS: Final = (
    "q leave  ? help  / filter  Space pause  f fold  t trace  Enter inspect  Tab 1-6"
)
_FEW: Final = 8


class PaneBoard(Widget):
    """All panes.

    Args:
        source: Is told which panes are shown, and what the person wants done.
        focus: What is shown first.

    Attributes:
        snapshot: What is shown.
        panes: By name.
        focused: The pane that has the focus, or gets it back when words were typed.
        question: What is asked, if anything.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(at), f"choose('{pane}')", show=False, priority=True)
            for at, pane in enumerate(PANES, 1)
        ),
        Binding("tab", "next_pane(1)", show=False, priority=True),
        Binding("shift+tab", "next_pane(-1)", show=False, priority=True),
        Binding("slash", "filter", show=False, priority=True),
        Binding("f", "fold", show=False, priority=True),
        Binding("z", "zoom", show=False, priority=True),
        Binding("space", "pause", show=False, priority=True),
    ]

    def __init__(self, source: Source, focus: Focus) -> None:
        super().__init__()
        self.snapshot = Snapshot(project="", bus=None, uptime_s=0.0)
        self.panes: dict[Pane, LinePane] = {
            pane: LinePane(pane, at, follows=pane in _FOLLOWING) for at, pane in enumerate(PANES, 1)
        }
        self._source = source
        self.focused = focus.pane
        self.panes[focus.pane].wanted = focus.wanted
        self._makers = PaneMakers()
        self._is_zoomed = focus.is_zoomed
        self._places: dict[Pane, Place] = {}
        self._top = Lines("top")
        self._body = _Body(id="body")
        self._foot = Lines("foot")
        self.question = Question("question", self._draw)
        self._filter = FilterInput("filter")

    def compose(self) -> ComposeResult:
        """The title, the panes and the foot."""
        yield self._top
        with self._body:
            yield from self.panes.values()
        yield self.question
        yield self._filter
        yield self._foot

    def on_mount(self) -> None:
        """Begin."""
        self._draw()
        self.screen.set_focus(self.panes[self.focused])

    def show(self, snapshot: Snapshot) -> None:
        """Show this from now on."""
        self.snapshot = snapshot
        self._draw()

    @property
    def is_typing(self) -> bool:
        """Whether keys are the words of a filter."""
        return bool(self._filter.display)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys are no actions while words are typed."""
        return not self.is_typing and super().check_action(action, parameters)

    def on_descendant_focus(self) -> None:
        """Have the pane in sight that was clicked."""
        pane = next((name for name, one in self.panes.items() if one.has_focus), self.focused)
        if pane != self.focused:
            self.focused = pane
            self._draw()

    @on(Input.Changed)
    def _filter_while_typing(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self.panes[self.focused].filter(event.value)

    @on(Input.Submitted)
    def _end_typing(self) -> None:
        """Back to the pane."""
        self._filter.display = False
        self.screen.set_focus(self.panes[self.focused])
        self._draw()

    def action_choose(self, pane: Pane) -> None:
        """Go to a pane."""
        self.focused = pane
        self._draw()
        self.screen.set_focus(self.panes[pane])

    def action_next_pane(self, by: int) -> None:
        """Go to the next pane."""
        self.action_choose(PANES[(PANES.index(self.focused) + by) % len(PANES)])

    def action_zoom(self) -> None:
        """Show only this pane, or all again."""
        self._is_zoomed = not self._is_zoomed
        self._draw()

    def action_fold(self) -> None:
        """Fold what passes often, or show it."""
        self._makers.is_folding = not self._makers.is_folding
        self._draw()

    def action_pause(self) -> None:
        """Pause what follows its end; unfold a group of workers."""
        pane = self.panes[self.focused]
        chosen = pane.chosen.value if pane.chosen else None
        if isinstance(chosen, WorkerItem):
            self._makers.toggle(chosen.name)
        else:
            pane.toggle_pause()
        self._draw()

    def action_filter(self) -> None:
        """Type the words of the pane's filter."""
        self._filter.value = self.panes[self.focused].wanted
        self._filter.display = True
        self.screen.set_focus(self._filter)
        self._draw()

    def ask(self, text: str, do: Callable[[], None]) -> None:
        """Ask the person, and do it where the answer is yes."""
        self.question.ask(text, do)
        self._draw()

    def _draw(self) -> None:
        """Arrange the panes and give them what they show."""
        width, height = self.app.size
        top = top_lines(self.snapshot, width)[: max(1, height - _FEW)]
        self._top.styles.height = len(top)
        self._top.show(top)
        self._show_foot(width)
        self._foot.display = not (self.question.is_open or self.is_typing)
        self._place(width, max(0, height - len(top) - 1))
        for pane, place in self._places.items():
            self.panes[pane].show(self._makers.make(pane, self.snapshot, place.width))

    def _place(self, width: int, height: int) -> None:
        rows = self._makers.count_rows(self.snapshot)
        messages = len(self.snapshot.messages) + len(self.snapshot.folded)
        focused = self.focused
        places = arrange(
            width, height, focused, rows=rows, messages=messages, is_zoomed=self._is_zoomed
        )
        if places == self._places:
            return
        self._places = places
        self._source.want(frozenset(places))
        for pane, widget in self.panes.items():
            place = places.get(pane)
            widget.display = place is not None
            if place is not None:
                widget.styles.offset = (place.x, place.y)
                widget.styles.width, widget.styles.height = place.width, place.height

    def _show_foot(self, width: int) -> None:
        hints = {"workers": _WORKER_HINTS, "dead": _DEAD_HINTS}.get(self.focused, _HINTS)
        if self.focused in _FOLLOWING:
            hints = _FOLLOWING_HINTS
        foot = Text(self.snapshot.foot or hints, style=colors.HEADING, no_wrap=True)
        foot.truncate(width, overflow="ellipsis")
        self._foot.show([foot])


class _Body(Widget):
    """The room for the panes."""
