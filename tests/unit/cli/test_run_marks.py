"""Marks between the lines of two runs, and the table of runs."""

import time
from pathlib import Path

import pytest
import typer

from pbus.process.project.history.run_history import Run, RunHistory, read_runs
from pbus.process.project.project import Project
from pbus_cli.call.kept_project import RunMarks, kept_runs, log_filter
from pbus_cli.views.run_lines import run_lines
from support.waiting import eventually


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a state folder of its own."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    return found


def run_once(project: Project) -> float:
    """Have a run begin and be stopped; returns the time of its begin, of whole milliseconds."""
    before = time.time()
    assert eventually(lambda: time.time() > before + 0.001, every_s=0.001)  # no two begin at once
    history = RunHistory(project, "s").begin()
    history.end("stopped", 0)
    history.close()
    return read_runs(project)[-1].began


def run(**changes: object) -> Run:
    """A run with usual values."""
    usual = {
        "number": 1, "session": "s", "began": 1000.0, "ended": 1075.0, "outcome": "stopped",
        "code": 0, "reason": "SIGTERM", "workers": 2, "restarts": 0,
    }  # fmt: skip
    return Run(**{**usual, **changes})  # type: ignore[arg-type]


def test_a_mark_stands_where_a_run_begins(project: Project) -> None:
    """Once, not before the first line, and with the end of the run before."""
    first = run_once(project)
    marks = RunMarks(project, kept_runs(project))
    assert [None, 1] == [marks.run_at(first - 1), marks.run_at(first)]
    assert ["", ""] == [marks.before(first), marks.before(first)]

    second = run_once(project)
    marks.refresh()
    shown = [marks.before(at) for at in (second, second, first, second)]
    assert shown[0].startswith("--- run 2 began ")
    assert shown[0].endswith(" (run 1 stopped) ---\n")
    assert "" == shown[1]


def test_lines_from_before_the_first_run_are_apart(project: Project) -> None:
    """Of an older version of pbus, which kept no runs."""
    began = run_once(project)
    marks = RunMarks(project, kept_runs(project))

    assert "" == marks.before(began - 10)
    assert "--- run 1 began " in marks.before(began)
    assert "(" not in marks.before(began)


def test_runs_that_cannot_be_read_are_said(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs are shown all the same."""

    def refuse(_project: Project) -> list[Run]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pbus_cli.call.kept_project.read_runs", refuse)

    assert [] == kept_runs(project)
    assert "runs of shop cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, "(", None), "is no pattern"),
        ((None, None, None, 7), "there is no run 7: kept are 1 to 2"),
    ],
)
def test_wrong_conditions_are_usage_errors(
    arguments: tuple[None, None, str | None, int | None], message: str
) -> None:
    """With the runs there are."""
    with pytest.raises(typer.BadParameter, match=message):
        log_filter([run(), run(number=2)], *arguments)
    with pytest.raises(typer.BadParameter, match="no run is kept"):
        log_filter([], None, None, None, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["1m15s", "stopped", "0", "2", "0", "SIGTERM"]),
        ({"outcome": "running", "ended": None, "code": None}, ["2m00s", "running", "-", "2", "0"]),
        ({"outcome": "crashed", "ended": None, "workers": None}, ["-", "crashed", "0", "-", "0"]),
        ({"ended": 900.0}, ["0s", "stopped"]),
        ({"reason": "by \x1b[2J\u202e"}, ["stopped"]),
        ({"ended": 1e300}, ["?", "stopped"]),
    ],
)
def test_table_tells_what_is_known(changes: dict[str, object], expected: list[str]) -> None:
    """A dash for what is not; no duration below zero; control characters are shown as text."""
    line = run_lines([run(**changes)], now=1120.0)[1].plain

    assert set(expected) <= set(line.split())
    assert not {"\x1b", "\u202e"} & set(line)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_table_keeps_to_the_width(width: int) -> None:
    """Columns are left out, the number and the end of a run never."""
    heading, line = run_lines([run(reason="x" * 200)], now=1120.0, width=width)

    assert max(heading.cell_len, line.cell_len) <= width
    assert {"1", "stopped"} <= set(line.plain.split())
