"""The projects of this machine: one line each."""

from collections.abc import Callable, Sequence

import msgspec
from rich.text import Text

from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_duration


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `pbus ls`; its fields are the keys of the JSON output.

    Attributes:
        pid: The supervisor.
        ready: How many of its workers are; None where its bus does not answer.
        workers: How many it has; None likewise.
        bus: Where the broker is, password masked.
    """

    name: str
    folder: str
    file: str
    pid: int
    ready: int | None
    workers: int | None
    uptime_s: float
    bus: str


def project_lines(rows: Sequence[ProjectRow], width: int | None = None) -> list[Text]:
    """A heading and the projects, none wider than `width` (None: as wide as needed)."""

    def column(
        title: str, cell: Callable[[ProjectRow], Text], weight: int | None, *, right: bool = False
    ) -> Column:
        cells = tuple(cell(row) for row in rows)
        return Column(title, cells, right=right, gives=title == "FOLDER", weight=weight)

    columns = [
        column("NAME", lambda row: Text(row.name), None),
        column("READY", _ready, None, right=True),
        column("UPTIME", lambda row: Text(short_duration(row.uptime_s)), 30, right=True),
        column("PID", lambda row: Text(str(row.pid)), 20, right=True),
        column("FOLDER", lambda row: Text(row.folder), None),
        column("BUS", lambda row: Text(row.bus), 10),
    ]
    return lines(columns, width, colors.HEADING)


def _ready(row: ProjectRow) -> Text:
    if row.workers is None:
        return Text("-")
    return Text(f"{row.ready}/{row.workers}", style="green" if row.ready == row.workers else "")
