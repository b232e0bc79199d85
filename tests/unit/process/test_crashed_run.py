"""Capsules of a run whose supervisor was killed: written once, at the next start, from what is kept."""

import time
from pathlib import Path

import pytest

from pbus.messages import BusWorkerStateMessage
from pbus.process.project.history import crashed_run
from pbus.process.project.history.capsule_files import FOLDER, read_capsules
from pbus.process.project.history.crashed_run import MOST, REASON, write_crash_capsules
from pbus.process.project.history.run_history import RunHistory
from pbus.process.project.log_files import LogFile
from pbus.process.project.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a state folder of its own."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    return found


def run_that_is_killed(
    project: Project, monkeypatch: pytest.MonkeyPatch, *events: tuple[str, str, float]
) -> float:
    """A run with these events (worker, state, seconds after its begin); returns its begin."""
    history = RunHistory(project, "s1").begin()
    began = time.time()
    for worker, state, after in events:
        history.add_event(
            BusWorkerStateMessage(
                source="supervisor", project="shop", worker=worker, state=state, pid=7,
                time=began + after,
            )
        )  # fmt: skip
    history.number = None  # so that it has no end
    history.close()
    monkeypatch.setattr("pbus.process.project.history.run_history.is_same_process", _is_gone)
    return began


def _is_gone(_pid: int, _created: float) -> bool:
    return False


def test_each_worker_that_ran_has_a_capsule(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its log of that process, its times, and the newest moment that is known; others have none."""
    began = run_that_is_killed(
        project, monkeypatch,
        ("a", "starting", 1), ("a", "ready", 2), ("a", "backoff", 3), ("a", "starting", 4), ("a", "ready", 5),
        ("b", "starting", 1), ("b", "failed", 2), ("c", "starting", 6),
    )  # fmt: skip
    log = LogFile(project.log_path("a"))
    for after in (2.5, 4.5, 8.0):
        log.write(began + after, "out", f"line at {after:g}")
    log.close()

    assert 2 == write_crash_capsules(project)
    a, c = read_capsules(project)
    assert ("a", REASON, 2, 7, None, None, 1) == (
        a.worker, a.reason, a.start, a.pid, a.code, a.signal, a.run,
    )  # fmt: skip
    assert [4, 5, 8] == [round(at - began) for at in (a.started, a.ready, a.ended) if at]
    assert ["line at 4.5", "line at 8"] == [line.text for line in a.log]
    assert "ready" in a.sequel.detail
    assert ("c", None, ()) == (c.worker, c.ready, c.log)
    assert "starting" in c.sequel.detail


def test_runs_that_ended_have_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run at all, one that was stopped, and one that goes on."""
    assert 0 == write_crash_capsules(project)
    running = RunHistory(project, "s0").begin()
    assert 0 == write_crash_capsules(project)
    running.end("stopped", 0)
    running.close()
    assert 0 == write_crash_capsules(project)
    run_that_is_killed(project, monkeypatch, ("a", "ready", 1))
    assert 1 == write_crash_capsules(project)
    RunHistory(project, "s2").begin().close()  # the next one: once only
    assert 0 == write_crash_capsules(project)


def test_hundreds_of_workers_leave_room(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that changed last, so that capsules of other ends are kept."""
    names = [f"w{number}" for number in range(MOST + 30)]
    run_that_is_killed(
        project, monkeypatch, *((name, "ready", number) for number, name in enumerate(names))
    )
    assert MOST == write_crash_capsules(project)
    assert set(names[-MOST:]) == {one.worker for one in read_capsules(project)}


def test_disk_that_refuses_does_not_hold_the_start_up(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged."""
    run_that_is_killed(project, monkeypatch, ("a", "ready", 1))
    (project.state_dir / FOLDER).write_text("odd")
    assert 0 == write_crash_capsules(project)
    assert "cannot be kept" in caplog.text
    assert crashed_run.logger.name in {record.name for record in caplog.records}
