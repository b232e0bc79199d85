"""The interactive display: panes over a project, drawn from snapshots, with keys that act on it."""

import sys
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType

from pbus_cli.live.display.dialogs import TextScreen
from pbus_cli.live.display.line_pane import LinePane
from pbus_cli.live.display.order_keys import OrderKeys
from pbus_cli.live.display.pane_board import PaneBoard
from pbus_cli.live.display.source import Source
from pbus_cli.live.display.terminal_driver import TerminalDriver
from pbus_cli.views.board.arrangement import Focus
from pbus_cli.views.board.conversation import conversation_lines
from pbus_cli.views.board.details import details
from pbus_cli.views.board.signs import sign_lines
from pbus_cli.views.traffic import Passed

FRAMES_PER_S: Final = 4


class DisplayApp(App[None]):
    """The display.

    Args:
        source: What is shown.
        focus: What is shown first.
        driver_class: Of the terminal; Textual's own by default.
        keep_terminal: Called before each frame; False while the terminal is others'.

    Attributes:
        board: The panes.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; layout: vertical; overflow: hidden; }
    OrderKeys, PaneBoard { height: 100%; width: 100%; }
    #top { height: 1; }
    #body { height: 1fr; }
    LinePane { display: none; position: absolute; background: ansi_default; color: ansi_default; }
    #text { display: block; position: relative; height: 1fr; }
    #text-foot, #foot, #question, #filter { height: 1; }
    #question, #filter { display: none; }
    #filter, #filter:focus { background: ansi_default; color: ansi_default; border: none; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "conversation", show=False, priority=True),
        Binding("question_mark", "help", show=False, priority=True),
    ]

    def __init__(
        self,
        source: Source,
        *,
        focus: Focus | None = None,
        driver_class: type[TerminalDriver] | None = None,
        keep_terminal: "Callable[[DisplayApp], bool]" = lambda _: True,
    ) -> None:
        super().__init__(driver_class=driver_class, ansi_color=True)
        # Nothing that the process prints is taken: it goes where it did.
        self._capture_stdout, self._capture_stderr = sys.stdout, sys.stderr  # type: ignore[assignment]
        self._source = source
        self._keep_terminal = keep_terminal
        self.board = PaneBoard(source, focus or Focus())

    @property
    def terminal(self) -> TerminalDriver | None:
        """The terminal; None before it was opened, or where there is none."""
        return self._driver if isinstance(self._driver, TerminalDriver) else None

    def compose(self) -> ComposeResult:
        """The panes."""
        yield OrderKeys(self._source, self.board)

    def on_mount(self) -> None:
        """Begin."""
        self.set_interval(1 / FRAMES_PER_S, self._tick)
        self._tick()

    def on_resize(self) -> None:
        """Arrange the panes for this size."""
        self.call_after_refresh(lambda: self.board.show(self.board.snapshot))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys are others' while a text is read, or words are typed."""
        is_ours = self.screen is self.screen_stack[0] and not self.board.is_typing
        return is_ours and super().check_action(action, parameters)

    async def on_event(self, event: events.Event) -> None:
        """Take a key that answers a question before any pane does."""
        if isinstance(event, events.Key) and self.board.question.is_open:
            self.board.question.answer(event.key)
        else:
            await super().on_event(event)

    def on_line_pane_inspected(self, message: LinePane.Inspected) -> None:
        """Show all that is known of an item."""
        title, lines = details(message.item.value, self.board.snapshot.last_words)
        self.push_screen(TextScreen(title, [Text(line) for line in lines]))

    def action_conversation(self) -> None:
        """Show the trace of the chosen message as a sequence diagram."""
        chosen = self.board.panes["traffic"].chosen
        if self.board.focused != "traffic" or chosen is None:
            return
        value = chosen.value
        passed = value if isinstance(value, Passed) else next(reversed(value.latest), None)
        lines = conversation_lines(passed, self.board.snapshot) if passed is not None else []
        if lines:
            text = [Text(line, no_wrap=True) for line in lines]
            self.push_screen(TextScreen("conversation", text, wraps=False))

    def action_help(self) -> None:
        """Explain every key and sign."""
        self.push_screen(TextScreen("help", sign_lines()))

    def look_at_terminal(self) -> None:
        """Give the terminal back, or take it, at once."""
        self._keep_terminal(self)

    def draw_everything(self) -> None:
        """Draw all again: others may have written to the terminal."""
        self.screen.refresh(layout=True)
        for widget in self.screen.walk_children():
            widget.refresh()

    def _tick(self) -> None:
        if not self._keep_terminal(self):
            return
        snapshot = self._source.snapshot()
        if snapshot is not None:
            self.board.show(snapshot)
