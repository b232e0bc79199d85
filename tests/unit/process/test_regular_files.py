"""Pipes, sockets, devices, folders and links in the place of files: nothing waits, and errors say which."""

import codecs
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pbus.errors import ProcessError
from pbus.process.project import lock_file
from pbus.process.project.broker_key import own_key
from pbus.process.project.folders import STATE_FILES
from pbus.process.project.log_files import LogFile
from pbus.process.project.log_reader import read_lines
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock
from pbus.process.project.record import read_record
from pbus.process.project.recovery_log import RecoveryLog, StopTime
from pbus.process.project.supervisor_log import SupervisorLogHandler
from pbus.process.system import regular_files
from support.odd_files import ODD, clear, put_odd

NAMES = [*sorted(STATE_FILES), "project.json", "last.json"]
LOGS = [f"{name}.log{age}" for name in ("supervisor", "guard", "valkey") for age in ("", ".1")]
LOGS.append("postgres.log")
FOLDERS = ["valkey", "postgres"]
OTHER_UID = 65534


@pytest.fixture(params=list(ODD))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of thing that is no file."""
    return request.param


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    project = Project("p", tmp_path, tmp_path / "topology.yaml")
    project.make_state_dir()
    return project


def reads(path: Path) -> bytes:
    return regular_files.read(path)


def writes(path: Path) -> None:
    regular_files.write(path, "text")


def appends(path: Path) -> None:
    regular_files.write(path, "text", mode="a")


def locks(path: Path) -> None:
    os.close(lock_file.open_lock(path))


@pytest.mark.parametrize("use", [reads, writes, appends, locks])
@pytest.mark.parametrize("has_partner", [False, True])
def test_nothing_waits_and_the_error_names_the_file(
    tmp_path: Path, kind: str, use: Callable[[Path], Any], has_partner: bool
):
    """Also a pipe that another process has open, which opens at once."""
    path = tmp_path / "file"
    put_odd(path, kind)
    is_pipe = kind == "a named pipe"
    partner = os.open(path, os.O_RDWR | os.O_NONBLOCK) if has_partner and is_pipe else None
    with pytest.raises(OSError, match="file") as caught:
        use(path)
    if partner is not None:
        with pytest.raises(BlockingIOError):
            os.read(partner, 1)  # nothing was written into it
        os.close(partner)

    assert str(path) == str(caught.value.filename)
    assert kind == regular_files.kind_of(path)


def test_files_are_used_as_ever(tmp_path: Path):
    """Read, replaced, continued, made for this user alone; also through a link."""
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    regular_files.write(path, "one")
    regular_files.write(link, "two")
    regular_files.write(path, "three", mode="a")

    assert b"twothree" == regular_files.read(link)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ("a file", "a file") == tuple(map(regular_files.kind_of, (path, link)))
    assert "" == regular_files.kind_of(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        regular_files.read(tmp_path / "none")
    with open(path, "rb", opener=regular_files.opener) as file:
        assert os.get_blocking(file.fileno())


@pytest.mark.parametrize("name", [*NAMES, *(f"logs/{name}" for name in LOGS), *FOLDERS])
def test_a_start_says_what_is_in_the_way(project: Project, kind: str, name: str):
    """Before anything is started, for each file of a state folder; and goes on without it."""
    path = project.state_dir / name
    put_odd(path, kind)
    if kind == "a folder" and name in FOLDERS:
        project.make_state_dir()
        return
    with pytest.raises(ProcessError) as caught:
        project.make_state_dir()

    assert f"cannot use {path}: it is {kind}" == caught.value.message
    clear(path)
    project.make_state_dir()


@pytest.mark.parametrize("name", ["logs", "logs/workers"])
def test_a_start_says_which_folder_is_none(project: Project, kind: str, name: str):
    """What is no folder in the place of one is named, too."""
    path = project.state_dir / name
    put_odd(path, kind)
    if kind == "a folder":
        project.make_state_dir()
        return
    with pytest.raises(ProcessError, match="cannot") as caught:
        project.make_state_dir()

    assert str(path) in caught.value.message


@pytest.mark.parametrize("age", ["", ".1"])
def test_workers_run_without_their_logs(
    project: Project, kind: str, age: str, caplog: pytest.LogCaptureFixture
):
    """Their lines are lost, which is said at the start and where they would be written; once."""
    path = project.log_path("w")
    put_odd(path.with_name(path.name + age), kind)
    project.make_state_dir()
    assert f"{path}{age} is {kind}: what the worker writes is not kept" in caplog.messages
    caplog.clear()
    with LogFile(path) as log:
        for _ in range(3):
            log.write(0.0, "out", "line")
    lines = [line.text for line in read_lines({"w": path})]

    assert (["line"] * 3 if age else []) == lines
    said = [message for message in caplog.messages if f"cannot write {path}" in message]
    assert (0 if age else 1) == len(said)


def test_a_log_that_becomes_a_pipe_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """While the worker runs; it is written again once the pipe is gone."""
    path = tmp_path / "w.log"
    with LogFile(path) as log:
        log.write(0.0, "out", "before")
        put_odd(path, "a named pipe")
        log._checked_at = 0.0
        log.write(0.0, "out", "lost")
        path.unlink()
        log.write(0.0, "out", "after")

    assert ["after"] == [line.text for line in read_lines({"w": path})]
    assert [f"cannot write {path}: not a regular file"] == caplog.messages


def test_looking_waits_for_nothing(project: Project, kind: str, caplog: pytest.LogCaptureFixture):
    """The record and the lock, which every verb reads; the state for the next supervisor."""
    for name in NAMES:
        put_odd(project.state_dir / name, kind)
    recovery = RecoveryLog(project.state_dir)
    recovery.note_started("one")
    recovery.set_stop_time(1, StopTime(2.0))

    assert None is read_record(project.record_path)
    assert "" == lock_file.read_token(project.state_dir / "lock")
    assert ([], [], 0, "") == (
        recovery.unreleased(),
        recovery.queues(),
        recovery.stored_count(),
        recovery.replace_supervisor("x"),
    )
    assert None is recovery.take_stop_time()
    with pytest.raises(ProcessError, match="cannot use"), ProjectLock(project):
        pytest.fail("it was locked")
    assert any("state cannot be written down" in message for message in caplog.messages)


def test_the_supervisor_runs_without_its_log(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    """Where something else takes its place meanwhile, records are lost, not the supervisor."""
    path = tmp_path / "supervisor.log"
    handler = SupervisorLogHandler(path)
    record = logging.LogRecord("n", logging.INFO, "f", 1, "text", (), None)
    handler.emit(record)
    assert "INFO n: text" in path.read_text()
    handler.close()
    put_odd(path, kind)
    handler.emit(record)
    handler.close()

    assert kind == "a link to nothing" or "not a regular file" in capsys.readouterr().err


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder of this process' user, who is not root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, OTHER_UID, OTHER_UID)
        codecs.lookup("ascii")  # OTHER_UID may not load it
        os.seteuid(OTHER_UID)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o200])
def test_an_unreadable_key_is_named(foreign: Path, mode: int):
    """It is no reason to make another one, with which nothing that is stored could be opened."""
    path = foreign / "key"
    key = own_key(foreign)
    path.chmod(mode)
    with pytest.raises(ProcessError) as caught:
        own_key(foreign)

    assert f"{path}, cannot be used: [Errno 13] Permission denied" in caught.value.message
    assert "make it a readable file" in str(caught.value.hint)
    path.chmod(0o600)
    assert key == own_key(foreign)


def test_a_key_in_a_closed_folder_is_named(foreign: Path):
    """A folder in which nothing can be made."""
    foreign.chmod(0o500)
    with pytest.raises(ProcessError, match="cannot be used"):
        own_key(foreign)
