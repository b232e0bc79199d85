"""The detached supervisor, as the command starts it."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pbus.process.daemon import main
from pbus.process.project.discovery import running_projects
from pbus.process.project.project import Project
from pbus.process.project.stopping import stop_project
from pbus.topology.load import load_topology
from support.supervisor_helpers import is_alive
from support.waiting import eventually

PATIENCE_S = 25.0

TOPOLOGY = f"""
name: app
workers:
  a:
    command: [{sys.executable}, -c, "import time; time.sleep(600)"]
  b:
    command: [{sys.executable}, -c, "import time; time.sleep(600)"]
"""


class Daemon:
    """One daemon process, and what it said of its start."""

    def __init__(self, file: Path, *options: str) -> None:
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "pbus.process.daemon", str(file)),
                *("--status-fd", str(writing), *options),
            ],
            pass_fds=(writing,),
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            ready, _, _ = select.select([pipe], [], [], PATIENCE_S)
            assert ready
            self.status: dict[str, Any] = json.loads(pipe.readline())
            self.rest = pipe.read() if not self.status["ok"] else b""

    def family(self, size: int) -> list[psutil.Process]:
        """Its children: guard, broker and workers, once there are so many."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := psutil.Process(self.process.pid).children()) < size:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return found

    def end(self, number: signal.Signals) -> int:
        """Signal it and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons; none outlives the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    daemons: list[Daemon] = []

    def start_one(*options: str, text: str = TOPOLOGY) -> Daemon:
        file = tmp_path / "topology.yaml"
        file.write_text(text)
        daemons.append(Daemon(file, *options))
        return daemons[-1]

    yield start_one
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.end(signal.SIGTERM)


def wait_until_free(project: Project) -> None:
    """Wait until neither the supervisor nor its guard holds the project."""
    deadline = time.monotonic() + PATIENCE_S
    while not project.clear_if_over():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def project_in(folder: Path) -> Project:
    return Project.of(load_topology(folder / "topology.yaml", os.environ))


def test_daemon_starts_and_stops(start: Callable[..., Daemon], tmp_path: Path):
    """The status names the pid when the bus is up; SIGTERM ends it orderly, its log remains."""
    daemon = start()
    (record,) = running_projects()
    family = daemon.family(4)

    assert daemon.status == {
        "ok": True, "pid": daemon.process.pid, "session": record.session,
    }  # fmt: skip
    assert daemon.process.pid == record.pid
    assert os.getsid(daemon.process.pid) == daemon.process.pid
    assert 0 == daemon.end(signal.SIGTERM)
    assert [] == [one for one in family if is_alive(one.pid)]
    log = project_in(tmp_path).service_log_path("supervisor").read_text()
    assert "stopping: SIGTERM" in log
    assert "Stopped(code=0)" in log


def test_killed_daemon_leaves_nothing(start: Callable[..., Daemon], tmp_path: Path):
    """After SIGKILL the guard ends all within seconds, and the project starts again at once."""
    daemon = start()
    family = daemon.family(4)
    daemon.end(signal.SIGKILL)

    second = start()

    assert second.status["ok"]  # it waits for the guard of the first, but not for long
    assert [] == [one for one in family if is_alive(one.pid)]


def test_project_is_stopped_from_outside(start: Callable[..., Daemon]):
    """The record is enough to stop it from another process."""
    daemon = start("--selection", '{"only": ["b"]}')
    daemon.family(3)

    def workers() -> list[str]:  # a child has its environment a moment after it is there
        environs = [one.environ() for one in psutil.Process(daemon.process.pid).children()]
        return [environ["PBUS_WORKER"] for environ in environs if "PBUS_WORKER" in environ]

    assert eventually(lambda: ["b"] == workers())

    assert asyncio.run(stop_project(running_projects()[0], PATIENCE_S))
    assert 0 == daemon.process.wait(PATIENCE_S)
    assert [] == running_projects()


def test_second_daemon_is_refused(start: Callable[..., Daemon]):
    """A second supervisor of the project says who has it."""
    first = start()
    second = start()

    assert not second.status["ok"]
    assert "ProjectRunningError" == second.status["kind"]
    assert f"pid {first.process.pid}" in second.status["message"]
    assert "pbus down" in second.status["hint"]
    assert 1 == second.process.wait(PATIENCE_S)
    assert first.process.poll() is None


def test_failed_start_is_told(start: Callable[..., Daemon]):
    """Whatever keeps it from starting reaches the starter, without passwords."""
    started = start(text=f"bus: {{url: 'redis://u:geheim@127.0.0.1:1/0'}}\n{TOPOLOGY}")

    assert not started.status["ok"]
    assert "BusUnavailableError" == started.status["kind"]
    assert "redis://u:***@127.0.0.1:1/0" in started.status["message"]
    assert "geheim" not in json.dumps(started.status)
    assert b"" == started.rest
    assert 1 == started.process.wait(PATIENCE_S)


def test_wrong_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is told before the terminal is left, in the same way."""
    file = tmp_path / "topology.yaml"
    file.write_text("workers: {a: {comand: [x]}}")
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.argv", ["daemon", str(file), "--status-fd", str(writing)])

    assert 1 == main()
    with os.fdopen(reading, "rb") as pipe:
        status = json.loads(pipe.read())
    assert (False, "TopologyError") == (status["ok"], status["kind"])
    assert "did you mean `command`" in status["message"]
