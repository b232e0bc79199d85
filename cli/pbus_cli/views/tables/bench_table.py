"""The report of a benchmark: the measurements, then the figures with their goals."""

from collections.abc import Callable, Sequence

from rich.text import Text

from pbus.bench import Check, Environment, Report, Row
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_count

_FEW = 10  # below it two decimals say something
_MANY = 100  # from here on decimals are noise
_NONE = "-"


def report_lines(report: Report, width: int | None = None) -> list[Text]:
    """The whole report, no line wider than `width` (None: as wide as needed)."""
    parts = [[_environment(report.environment)]]
    if report.rows:
        parts.append(lines(_row_columns(report.rows), width, colors.HEADING))
    if report.checks:
        parts.append(lines(_check_columns(report.checks), width, colors.HEADING))
    if report.not_measured:
        parts.append([Text(f"not measured: {one}", end="") for one in report.not_measured])
    shown: list[Text] = []
    for part in parts:
        if shown:
            shown.append(Text(end=""))
        shown += part
    return shown


def _environment(found: Environment) -> Text:
    return Text(
        f"{found.system}, {found.cpus} cores, load {found.load:g}, Python {found.python}, "
        f"{found.loop}, {found.broker}",
        style=colors.QUIET,
        no_wrap=True,
        end="",
    )


def _row_columns(rows: Sequence[Row]) -> list[Column]:
    def column(title: str, cell: Callable[[Row], Text | str], weight: int | None) -> Column:
        return Column(title, tuple(_text(cell(row)) for row in rows), weight=weight)

    def left(title: str, cell: Callable[[Row], str]) -> Column:
        cells = tuple(Text(cell(row)) for row in rows)
        return Column(title, cells, right=False, gives=title == "MEASUREMENT")

    columns = [
        left("MEASUREMENT", lambda row: row.name),
        left("SYSTEM", lambda row: row.system),
        column("MESSAGES", lambda row: short_count(row.count), 10),
        column("MSG/S", lambda row: _count(row.messages_per_s), None),
        column("MB/S", lambda row: short_figure(row.megabytes_per_s), 40),
        column("P50 ms", lambda row: short_figure(row.p50_ms), 80),
        column("P90 ms", lambda row: short_figure(row.p90_ms), 30),
        column("P99 ms", lambda row: short_figure(row.p99_ms), 70),
        column("SEND µs", lambda row: short_figure(row.sender_cpu_us), 50),  # noqa: RUF001 - the unit
        column("RECEIVE µs", lambda row: short_figure(row.receiver_cpu_us), 50),  # noqa: RUF001
        column("LOST", _lost, None),
    ]
    if any(row.misordered for row in rows):
        columns.append(column("MISORDERED", lambda row: short_count(row.misordered), 60))
    if any(row.duplicates for row in rows):
        columns.append(column("TWICE", lambda row: short_count(row.duplicates), 65))
    return columns


def _check_columns(checks: Sequence[Check]) -> list[Column]:
    return [
        Column("CHECK", tuple(Text(one.name) for one in checks), right=False, gives=True),
        Column("MEASURED", tuple(_measured(one) for one in checks)),
        Column("WANTED", tuple(Text(_wanted(one)) for one in checks)),
        Column("MET", tuple(_met(one) for one in checks), right=False),
    ]


def _measured(check: Check) -> Text:
    style = "green" if check.is_met else colors.ERROR
    return Text(_with_unit(check.value, check.unit), style=style)


def _wanted(check: Check) -> str:
    if check.at_least is not None:
        return f"≥ {_with_unit(check.at_least, check.unit)}"
    if check.at_most is not None:
        return f"≤ {_with_unit(check.at_most, check.unit)}"
    return _NONE


def _met(check: Check) -> Text:
    if check.at_least is None and check.at_most is None:
        return Text(_NONE)
    return Text("yes", style="green") if check.is_met else Text("no", style=colors.ERROR)


def _with_unit(value: float, unit: str) -> str:
    return f"{short_figure(value)} {unit}".rstrip()


def _lost(row: Row) -> Text:
    return Text(short_count(row.lost), style=colors.LOST if row.lost else "")


def _count(value: float | None) -> str:
    return _NONE if value is None else short_count(round(value))


def short_figure(value: float | None) -> str:
    """A figure with about three digits: 0.36, 4.61, 35.4, 258."""
    if value is None:
        return _NONE
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) < _FEW:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < _MANY else f"{value:,.0f}"


def _text(cell: Text | str) -> Text:
    return Text(cell) if isinstance(cell, str) else cell
