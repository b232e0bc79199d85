"""State changes and projects as lines."""

from typing import Any

import pytest

from pbus.messages import BusWorkerStateMessage
from pbus_cli.terminal.clean import clean
from pbus_cli.views.states import StateLines, state_fields
from pbus_cli.views.tables.project_table import ProjectRow, project_lines


def change(**changes: Any) -> BusWorkerStateMessage:
    """A worker that became ready."""
    values = {
        "source": "s", "project": "p", "worker": "a", "state": "ready", "previous": "starting",
        "pid": 77, "time": 0.0,
    }  # fmt: skip
    return BusWorkerStateMessage(**{**values, **changes})


def row(**changes: Any) -> ProjectRow:
    """A project."""
    values = {
        "name": "sample", "folder": "/srv/sample", "file": "/srv/sample/topology.yaml", "pid": 42,
        "ready": 3, "workers": 4, "uptime_s": 61.0, "bus": "unix:///run/v.sock",
    }  # fmt: skip
    return ProjectRow(**{**values, **changes})


def test_columns_stay_aligned():
    """Wider names and states make the columns of later lines wider."""
    lines = StateLines()
    shown = []
    for one in (change(), change(worker="a-longer-name", state="unresponsive"), change()):
        lines = lines.grown(one)
        shown.append(lines.line(one)[14:])

    assert "a         starting → ready     pid 77" == shown[0]
    assert "a-longer-name  starting     → unresponsive  pid 77" == shown[1]
    assert "a              starting     → ready         pid 77" == shown[2]


@pytest.mark.parametrize("width", [20, 40, 60])
def test_lines_fit(width: int):
    """On a narrow terminal the detail is cut, and a mark shows it."""
    line = StateLines(width=width).line(change(detail="a very long story " * 5))

    assert width == len(line)
    assert line.endswith("…")


def test_colours_are_optional():
    """Only where the stream shows them."""
    assert "\x1b[" in clean(StateLines(has_colors=True).line(change()))
    assert "\x1b[" not in StateLines().line(change())


def test_fields_are_documented():
    """The keys of `pbus events --json`."""
    assert {
        "time": 0.0, "project": "p", "worker": "a", "state": "ready", "previous": "starting",
        "pid": 77, "detail": "",
    } == state_fields(change())  # fmt: skip


def test_projects_have_a_line_each():
    """Where the bus does not answer, the workers are not known."""
    heading, first, second = (
        line.plain.split()
        for line in project_lines([row(), row(name="b", ready=None, workers=None)])
    )

    assert ["NAME", "READY", "UPTIME", "PID", "FOLDER", "BUS"] == heading
    assert ["sample", "3/4", "1m01s", "42", "/srv/sample", "unix:///run/v.sock"] == first
    assert ["b", "-"] == second[:2]


@pytest.mark.parametrize("width", [30, 50, 80])
def test_projects_fit(width: int):
    """The bus goes first, then the folder is cut."""
    lines = project_lines([row(folder="/a/very/long/path" * 8)], width)

    assert all(line.cell_len <= width for line in lines)
    assert "sample" in lines[1].plain
