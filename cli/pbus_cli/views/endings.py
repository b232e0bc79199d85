"""The end of each worker, for the lines that stay when the display is gone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from pbus.observe import State
from pbus.process.supervisor.worker.restart_policy import describe_exit
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_count

_MANY: Final = 40  # lines that still fit a screen


@dataclass(frozen=True)
class Ending:
    """The end of a worker.

    Attributes:
        exit_code: Minus a signal's number where a signal ended it; None where it never ran.
        error: What it said last, for a worker that failed.
    """

    name: str
    state: State
    exit_code: int | None
    restarts: int
    received: int
    sent: int
    lost: int
    error: str | None = None


def ending_lines(endings: Sequence[Ending], width: int | None = None) -> list[Text]:
    """A heading and one line a worker; of very many, only of those with something to tell."""
    hidden = 0
    if len(endings) > _MANY:
        telling = [one for one in endings if one.state == "failed" or one.lost or one.restarts]
        hidden, endings = len(endings) - len(telling), telling
    made = lines(_columns(endings), width, colors.HEADING)
    if hidden:
        made.append(Text(f"… {hidden} more ended without trouble", style=colors.HEADING))
    return made


def _columns(endings: Sequence[Ending]) -> list[Column]:
    def column(title: str, cell: Callable[[Ending], Text], *, right: bool = True) -> Column:
        is_name = title == "NAME"
        cells = tuple(map(cell, endings))
        return Column(title, cells, right=right, gives=is_name, is_name=is_name)

    columns = [
        column("NAME", lambda one: Text(one.name), right=False),
        column("END", _end, right=False),
        column("RESTARTS", lambda one: Text(str(one.restarts))),
        column("IN", lambda one: Text(short_count(one.received))),
        column("OUT", lambda one: Text(short_count(one.sent))),
        column("LOST", _lost),
    ]
    if any(one.error for one in endings):
        columns.append(column("ERROR", _error, right=False))
    return columns


def exit_text(code: int | None) -> str:
    """An exit code in words."""
    return "never ran" if code is None else describe_exit(code)


def _end(ending: Ending) -> Text:
    if ending.state == "failed":
        return Text.assemble(
            ("failed", colors.STATES["failed"]), f", {exit_text(ending.exit_code)}"
        )
    return Text(exit_text(ending.exit_code))


def _lost(ending: Ending) -> Text:
    return Text(short_count(ending.lost), style=colors.LOST if ending.lost else "")


def _error(ending: Ending) -> Text:
    return Text(ending.error or "", style=colors.ERROR)
