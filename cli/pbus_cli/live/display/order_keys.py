"""The keys that act on the project: they ask first where something ends."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from pbus.names import group_of
from pbus_cli.live.display.pane_board import PaneBoard
from pbus_cli.live.display.source import Source
from pbus_cli.views.board.board_snapshot import Snapshot
from pbus_cli.views.board.worker_pane import WorkerItem


class OrderKeys(Widget):
    """Holds the panes, and acts on what is chosen in them.

    Args:
        source: Carries out what is ordered.
        board: The panes.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", show=False, priority=True),
        Binding("r", "act('restart')", show=False, priority=True),
        Binding("s", "act('stop')", show=False, priority=True),
        Binding("plus,equals_sign", "scale(1)", show=False, priority=True),
        Binding("minus", "scale(-1)", show=False, priority=True),
        Binding("u", "requeue(False)", show=False, priority=True),
        Binding("U", "requeue(True)", show=False, priority=True),
    ]

    def __init__(self, source: Source, board: PaneBoard) -> None:
        super().__init__()
        self._source = source
        self._board = board

    def compose(self) -> ComposeResult:
        """The panes."""
        yield self._board

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys are no actions while words are typed."""
        return not self._board.is_typing and super().check_action(action, parameters)

    def action_leave(self) -> None:
        """Leave; ask first where that ends the project."""
        if self._source.parting is None:
            self._source.leave()
        else:
            self._board.ask(self._source.parting, self._source.leave)

    def action_act(self, verb: str) -> None:
        """Restart or stop what is chosen; start it where it does not run."""
        item = self._worker()
        if item is None:
            return
        if verb == "stop" and item.is_stopped:
            self._source.order("start", item.name)
            return
        count = f" (all {len(item.rows)} replicas)" if item.is_group else ""
        self._board.ask(f"{verb} {item.name}{count}?", lambda: self._source.order(verb, item.name))

    def action_scale(self, by: int) -> None:
        """Have one replica more or less."""
        if (item := self._worker()) is None:
            return
        name = group_of(item.name) or item.name
        count = _replicas(self._board.snapshot, name) + by
        if count >= 0:
            self._board.ask(
                f"scale {name} to {count}?", lambda: self._source.order("scale", name, count)
            )

    def action_requeue(self, every: bool) -> None:  # noqa: FBT001 - an argument of a binding
        """Put a dead letter, or all of them, back into its queue."""
        pane = self._board.panes["dead"]
        if self._board.focused != "dead" or pane.chosen is None:
            return
        if every:
            self._board.ask("requeue all dead letters?", lambda: self._source.order("requeue", ""))
        else:
            self._source.order("requeue", pane.chosen.value.row.key)

    def _worker(self) -> WorkerItem | None:
        board = self._board
        chosen = board.panes["workers"].chosen if board.focused == "workers" else None
        return chosen.value if chosen is not None else None


def _replicas(snapshot: Snapshot, name: str) -> int:
    return sum(name in {group_of(row.name), row.name} for row in snapshot.rows)
