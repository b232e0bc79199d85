"""The project as the display needs it."""

from typing import Protocol

from pbus_cli.views.board.arrangement import Pane
from pbus_cli.views.board.board_snapshot import Snapshot


class Source(Protocol):
    """The project that is shown, and the ways to act on it; safe to call from the display's thread."""

    def snapshot(self) -> Snapshot | None:
        """All that is shown as of now; None where nothing has changed since the last call."""

    def want(self, panes: frozenset[Pane]) -> None:
        """Only what these panes show has to be asked for."""

    def order(self, verb: str, name: str, count: int = 0) -> None:
        """Restart, stop, start or scale a worker or group, or requeue a dead letter; tells how it goes."""

    @property
    def parting(self) -> str | None:
        """A question, where leaving ends the project; None where that goes on."""

    def leave(self) -> None:
        """The person wants to leave, and has been asked."""
