"""Runs and state events as they are kept on disk, and what damage does to them."""

import os
import re
from pathlib import Path

import msgspec
import pytest

from pbus.messages import BusWorkerStateMessage
from pbus.process.project.history import run_history
from pbus.process.project.history.log_filter import LogFilter, newest
from pbus.process.project.history.run_history import (
    Begin,
    Marks,
    RunHistory,
    count_workers,
    read_events,
    read_runs,
)
from pbus.process.project.log_files import LogFile
from pbus.process.project.log_reader import iter_lines
from pbus.process.project.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a state folder of its own."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    return found


def change(worker: str, state: str, at: float) -> BusWorkerStateMessage:
    """A state change at a time."""
    return BusWorkerStateMessage(
        source="supervisor-x", time=at, project="shop", worker=worker, state=state, pid=7
    )


def set_clock(monkeypatch: pytest.MonkeyPatch, at: float) -> None:
    """Have the history take this for now."""
    monkeypatch.setattr(run_history.time, "time", lambda: at)


def test_runs_are_numbered_and_tell_their_ends(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orderly end, an end before the start was done, a killed supervisor, and the one that runs."""
    for at, end in ((100.0, "stopped"), (200.0, None)):
        set_clock(monkeypatch, at)
        history = RunHistory(project, f"session-{at:g}").begin()
        history.reason = "SIGTERM" if end else ""
        if end:
            history.end("stopped", 0)
        history.close()
    monkeypatch.undo()
    killed = Begin(number=3, time=300.0, session="killed", pid=os.getpid(), pid_created=1e12)
    with LogFile(project.service_log_path("runs")) as file:
        file.write(300.0, "begin", msgspec.json.encode(killed).decode())
    running = RunHistory(project, "now").begin()
    runs = read_runs(project)
    running.close()

    assert [1, 2, 3, 4] == [run.number for run in runs]
    assert ["stopped", "failed", "crashed", "running"] == [run.outcome for run in runs]
    assert [0, 1, None, None] == [run.code for run in runs]
    assert [100.0, 200.0, None, None] == [run.ended for run in runs]
    assert ["SIGTERM", "it did not start, or ended by an error"] == [r.reason for r in runs[:2]]
    assert "failed" == read_runs(project)[3].outcome


def test_a_run_ends_once_and_not_without_a_begin(project: Project) -> None:
    """Another supervisor's project gets no entry of the one that was refused."""
    RunHistory(project, "refused").close()
    assert [] == read_runs(project)

    history = RunHistory(project, "once").begin()
    history.end("finished", 0)
    history.close()
    assert ["finished"] == [run.outcome for run in read_runs(project)]


def test_workers_and_restarts_are_counted_by_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events belong to the run that had begun; where they are gone, nothing is claimed."""
    for at, events in (
        (100.0, ()),
        (200.0, (("a", "starting"), ("a", "ready"), ("b", "starting"), ("a", "starting"))),
        (300.0, (("a", "starting"),)),
    ):
        set_clock(monkeypatch, at)
        history = RunHistory(project, "s").begin()
        for worker, state in events:
            history.add_event(change(worker, state, at + 1))
        set_clock(monkeypatch, at + 10)
        history.end("stopped", 0)
        history.close()
    runs = count_workers(read_runs(project), read_events(project))

    assert [(None, None), (2, 1), (1, 0)] == [(run.workers, run.restarts) for run in runs]
    assert [(1, 0)] == [
        (run.workers, run.restarts)
        for run in count_workers(read_runs(project)[-1:], read_events(project))
    ]


def test_damage_costs_only_the_damaged_lines(project: Project) -> None:
    """A line that was cut by a kill or a full disk, foreign text, bytes that are no text."""
    first = RunHistory(project, "one").begin()
    first.add_event(change("a", "ready", 5.0))
    first.close()
    for name in ("runs", "events"):
        with project.service_log_path(name).open("ab") as file:
            file.write(b'foreign\n\xff\xfe\x00\n2026-11-28T05:00:00.000Z begin {"number": "x"}\n')
            file.write(b'2026-11-28T05:00:00.000Z event {"time": 1')  # without its end
    second = RunHistory(project, "two").begin()
    second.add_event(change("a", "failed", 6.0))
    second.close()

    assert [1, 2] == [run.number for run in read_runs(project)]
    damaged: list[int] = []
    events = read_events(project, on_damage=lambda: damaged.append(1))
    assert ["ready", "failed"] == [event.state for event in events]
    assert 4 == len(
        damaged
    )  # of three lines, one with bytes and one of another kind, and the cut one


def test_a_history_that_cannot_be_written_ends_nothing(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder in the place of the file is said once, and the run goes on."""
    project.service_log_path("runs").mkdir(parents=True)
    history = RunHistory(project, "s").begin()
    history.add_event(change("a", "ready", 5.0))
    history.close()

    assert "cannot write" in caplog.text
    assert [] == read_runs(project)
    assert ["ready"] == [event.state for event in read_events(project)]


def test_all_lines_come_in_order_over_rotation(tmp_path: Path) -> None:
    """Oldest first, of all files, merged by time; the rest of a line that was cut is left out."""
    paths = {name: tmp_path / f"{name}.log" for name in ("a", "b", "none")}
    with LogFile(paths["a"], max_bytes=200) as a, LogFile(paths["b"]) as b:
        for number in range(12):
            (a if number % 2 else b).write(1000.0 + number, "out", f"line {number}")
    with paths["b"].open("ab") as file:
        file.write(b"cut")

    assert paths["a"].with_name("a.log.1").exists()
    assert [f"line {number}" for number in range(12)] == [line.text for line in iter_lines(paths)]


def test_a_line_after_a_cut_one_stands_alone(tmp_path: Path) -> None:
    """The writer of the first was killed within it."""
    path = tmp_path / "a.log"
    path.write_bytes(b"2026-11-28T05:00:00.000Z out whole\n2026-11-28T05:00:01.000Z out cu")
    with LogFile(path) as log:
        log.write(1795842002.0, "out", "next")

    assert ["whole", "cu", "next"] == [line.text for line in iter_lines({"a": path})]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (LogFilter(), [0, 1, 2, 3]),
        (LogFilter(since=1.0), [1, 2, 3]),
        (LogFilter(until=2.0), [0, 1]),
        (LogFilter(since=1.0, until=1.0), []),
        (LogFilter(run=2), [2, 3]),
        (LogFilter(pattern=re.compile("[03]$")), [0, 3]),
        (LogFilter(pattern=re.compile("[03]$"), run=2, since=3.0), [3]),
    ],
)
def test_filters_hold_together(chosen: LogFilter, expected: list[int]) -> None:
    """The begin is taken, the end is not; no condition undoes another."""
    assert expected == [
        at for at in range(4) if chosen.takes(float(at), f"n {at}", 1 if at < 2 else 2)
    ]
    assert chosen.is_open == (len(expected) == 4)


def test_newest_are_the_last_in_order() -> None:
    """All without a count, none of none."""
    assert [[1, 2, 3], [2, 3], []] == [list(newest(iter([1, 2, 3]), n)) for n in (None, 2, 0)]


def test_marks_know_only_what_had_begun(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the very time of a begin is of that run."""
    for at in (100.0, 200.0):
        set_clock(monkeypatch, at)
        RunHistory(project, "s").begin().close()
    marks = Marks(read_runs(project))
    found = [marks.run_at(at) for at in (99.9, 100.0, 199.999, 200.0)]

    assert [None, 1, 1, 2] == [run and run.number for run in found]
