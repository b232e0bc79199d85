"""The end of each worker, for the lines that stay when the display is gone."""

from collections.abc import Sequence
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
    columns = [
        _column("NAME", [Text(one.name) for one in endings], right=False, gives=True),
        _column("END", [_end(one) for one in endings], right=False),
        _column("RESTARTS", [Text(str(one.restarts)) for one in endings]),
        _column("IN", [Text(short_count(one.received)) for one in endings]),
        _column("OUT", [Text(short_count(one.sent)) for one in endings]),
        _column("LOST", [_lost(one) for one in endings]),
    ]
    if any(one.error for one in endings):
        texts = [Text(one.error or "", style=colors.ERROR) for one in endings]
        columns.append(_column("ERROR", texts, right=False))
    return columns


def exit_text(code: int | None) -> str:
    """An exit code in words."""
    return "never ran" if code is None else describe_exit(code)


def _column(
    title: str, cells: Sequence[Text], *, right: bool = True, gives: bool = False
) -> Column:
    return Column(title, tuple(cells), right=right, gives=gives, is_name=gives)


def _end(ending: Ending) -> Text:
    if ending.state == "failed":
        return Text.assemble(
            ("failed", colors.STATES["failed"]), f", {exit_text(ending.exit_code)}"
        )
    return Text(exit_text(ending.exit_code))


def _lost(ending: Ending) -> Text:
    return Text(short_count(ending.lost), style=colors.LOST if ending.lost else "")
