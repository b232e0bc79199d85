"""State changes of workers: one line each."""

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from rich.cells import cell_len, set_cell_size

from pbus.messages import BusWorkerStateMessage
from pbus.observe import State
from pbus.process.project.history.run_history import StateEvent
from pbus_cli.views import colors
from pbus_cli.views.cells import cut, cut_name, fill, rendered
from pbus_cli.views.figures import clock_time

_NAME_WIDTH: Final = (8, 32)
_STATE_WIDTH: Final = len("stopping")
Change: TypeAlias = BusWorkerStateMessage | StateEvent

_STYLES: Final[dict[str, str]] = {str(state): style for state, style in colors.STATES.items()}


@dataclass(frozen=True)
class StateLines:
    """Lines that stay aligned as wider names come by.

    Attributes:
        name: Cells that names take.
        state: Cells that states take.
        has_colors: Whether the stream shows them.
        width: Cells a line may take; None for no limit.
    """

    name: int = _NAME_WIDTH[0]
    state: int = _STATE_WIDTH
    has_colors: bool = False
    width: int | None = None

    def grown(self, change: Change) -> "StateLines":
        """Wide enough for this change too, within reason."""
        name = min(_NAME_WIDTH[1], max(self.name, cell_len(change.worker)))
        state = max(self.state, len(change.state), len(change.previous or ""))
        return replace(self, name=name, state=state)

    def line(self, change: Change) -> str:
        """One change on one line."""
        pid = "" if change.pid is None else f"pid {change.pid}"
        cells = [
            (f"{clock_time(change.time)}  ", colors.QUIET),
            (fill(cut_name(change.worker, self.name), self.name), colors.of_name(change.worker)),
            ("  ", ""),
            (set_cell_size(change.previous or "", self.state), colors.QUIET),
            (" → ", ""),
            (set_cell_size(change.state, self.state), _STYLES.get(change.state, "")),
            ("  ", ""),
            (f"{pid:<9}", colors.QUIET),
            (f"  {change.detail}", ""),
        ]
        return self._joined(cells).rstrip()

    def _joined(self, cells: list[tuple[str, str]]) -> str:
        parts = []
        room = self.width
        for text, style in cells:
            piece = text if room is None else cut(text, room)
            if room is not None:
                room -= cell_len(piece)
            is_styled = self.has_colors and style and piece.strip()
            parts.append(rendered(piece, style) if is_styled else piece)
        return "".join(parts)


def state_fields(change: Change) -> dict[str, str | int | float | State | None]:
    """The documented JSON of a change."""
    return {
        "time": change.time,
        "project": change.project,
        "worker": change.worker,
        "state": change.state,
        "previous": change.previous,
        "pid": change.pid,
        "detail": change.detail,
    }
