"""The panes that follow what passes: messages, those that pass often folded to a line, and logs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.text import Text

from pbus.client.traffic.type_names import short_type
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views import colors
from pbus_cli.views.board.board_snapshot import Folded, Snapshot
from pbus_cli.views.board.pane_view import Item, PaneView
from pbus_cli.views.cells import cut_name, fill
from pbus_cli.views.figures import short_bytes, short_count
from pbus_cli.views.log_lines import LogEntry, log_line, name_width
from pbus_cli.views.tables.edge_lines import rate_text
from pbus_cli.views.traffic import (
    UNREACHED,
    Passed,
    Widths,
    arrow_cell,
    body_text,
    traffic_line,
)

_FOLD: Final = "▸"
_RATE_WIDTH: Final = 7
_MOST_FOLDED: Final = 6  # lines; of more only the number


@dataclass
class TrafficPane:
    """Makes the pane of messages; its columns only grow."""

    widths: Widths = field(default_factory=Widths)

    def view(self, snapshot: Snapshot, width: int, *, is_folding: bool) -> PaneView:
        """The pane.

        Args:
            snapshot: As of now.
            width: Cells a line may take.
            is_folding: Show a line for messages that pass often; else the newest ones of them.
        """
        messages = snapshot.messages
        if not is_folding and snapshot.folded:
            latest = [one for folded in snapshot.folded for one in folded.latest]
            messages = tuple(sorted([*messages, *latest], key=lambda one: one.time))
        folded = snapshot.folded[:_MOST_FOLDED] if is_folding else ()
        for passed in messages:
            self.widths = self.widths.grown(passed)
        fitted = self.widths.fitted(width)
        items = [
            *(_folded_item(one, fitted, width) for one in folded),
            *(_message_item(one, fitted, width) for one in messages),
        ]
        return PaneView(
            "traffic",
            items,
            summary=traffic_summary(snapshot, is_folding=is_folding),
            pinned=len(folded),
            total=snapshot.passed,
            empty="no messages yet",
        )


def traffic_summary(snapshot: Snapshot, *, is_folding: bool) -> str:
    """The number of messages, their rate, and what of them is not shown."""
    parts = [f"{short_count(snapshot.passed)} seen", rate_text(snapshot.per_second)]
    hidden = len(snapshot.folded) - _MOST_FOLDED
    if is_folding and hidden > 0:
        parts.append(f"{hidden} more edges folded")
    if snapshot.missed:
        parts.append(f"{short_count(snapshot.missed)} not shown")
    return ", ".join(part for part in parts if part != "-")


def _folded_item(folded: Folded, widths: Widths, width: int) -> Item:
    def draw() -> Text:
        target = folded.target or "*"
        line = Text(no_wrap=True, end="")
        line.append(f"{_FOLD} {rate_text(folded.rate):>{_RATE_WIDTH}}     ", style=colors.HEADING)
        line.append(_name(folded.source, widths.source), style=colors.of_name(folded.source))
        line.append(*arrow_cell(is_reached=folded.is_reached))
        line.append(_name(target, widths.target), style=colors.of_name(target))
        line.append(f"  {fill(clean_line(short_type(folded.type)), widths.type)}")
        line.append(f"  {short_bytes(folded.bytes_rate)}/s".rjust(11))
        if not folded.is_reached:
            line.append(f"  {UNREACHED}", style=colors.ERROR)
        line.append(f"  {short_count(folded.count)} in all", style=colors.QUIET)
        line.truncate(width, overflow="ellipsis")
        return line

    key = ("folded", folded.source, folded.target, folded.type)
    return Item(key, folded, draw, lambda: f"{key[1:]} {_latest_words(folded)}")


def _latest_words(folded: Folded) -> str:
    return " ".join(body_text(one.body) for one in folded.latest[-1:])


def _name(name: str, width: int) -> str:
    return fill(cut_name(clean_line(name), width), width)


def _message_item(passed: Passed, widths: Widths, width: int) -> Item:
    return Item(
        id(passed),
        passed,
        lambda: traffic_line(passed, widths, width),
        lambda: _message_words(passed),
    )


def _message_words(passed: Passed) -> str:
    header = f"{passed.source} {passed.target or '*'} {passed.type} {passed.key or ''}"
    return f"{header} {passed.body.decode('utf-8', 'replace')}"


def log_pane(snapshot: Snapshot, names: int, width: int) -> PaneView:
    """The pane of log lines.

    Args:
        snapshot: As of now.
        names: Cells that names take.
        width: Cells a line may take.
    """
    items = [_log_item(entry, names, width) for entry in snapshot.logs]
    return PaneView("logs", items, total=snapshot.logged, empty="no lines yet")


def widest_name(logs: Sequence[LogEntry], before: int) -> int:
    """Cells for the names before log lines: never fewer than before."""
    return max(before, name_width(entry.worker for entry in logs))


def _log_item(entry: LogEntry, names: int, width: int) -> Item:
    draw: Callable[[], Text] = lambda: log_line(entry, names, width)  # noqa: E731 - a type for it
    return Item(id(entry), entry, draw, lambda: f"{entry.worker} {entry.text}")
