"""Where a project's state and sockets go, from its name, its folder and the environment."""

import os
import pathlib
from pathlib import Path

import pytest

from pbus.errors import ProcessError
from pbus.process.project.folders import state_root
from pbus.process.project.project import Project


def project(name: str = "app", folder: str = "/home/u/app") -> Project:
    """A project that exists on paper only."""
    return Project(name, Path(folder), Path(folder) / "topology.yaml")


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the settings of the user who runs the tests."""
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/u")


def test_state_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """State goes where XDG says; a relative setting counts as none, as XDG demands."""
    assert Path("/home/u/.local/state/pbus") == state_root()
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert Path("/home/u/.local/state/pbus") == state_root()
    monkeypatch.setenv("XDG_STATE_HOME", "/var/s")
    assert Path("/var/s/pbus") == project().state_dir.parent


def test_homeless_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any home folder the error says what to set."""

    def home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(pathlib.Path, "home", home)

    with pytest.raises(ProcessError, match="XDG_STATE_HOME"):
        state_root()


def test_project_is_name_and_folder() -> None:
    """The same name and folder is the same project, another of either is another."""
    same = project().id
    assert same == project().id
    assert same.startswith("app-")
    assert same != project(folder="/home/u/other").id
    assert same != project(name="app2").id


def test_odd_names_stay_inside() -> None:
    """A name cannot lead out of the state folder, and long ones stay short enough."""
    odd = project(name="../../etc " + "x" * 500)
    assert odd.state_dir.parent == state_root()
    assert len(odd.state_dir.name) < 64


def test_socket_paths_stay_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A runtime folder too long for sockets is passed over for a short one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    short = tmp_path / "pbus"
    fitting = project().runtime_dir.is_relative_to(short)
    assert fitting == (len(os.fsencode(short)) <= 100 - len("/app-12345678/valkey.sock"))

    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    long = project(name="n" * 200, folder="/" + "f" * 200).runtime_dir
    assert long.is_relative_to("/tmp")
    assert len(os.fsencode(long / "valkey.sock")) <= 100


def test_foreign_runtime_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A runtime folder that is another user's (after `su`), or not there, is not used."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert project().runtime_dir.is_relative_to("/tmp")

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert Path("/tmp/pbus-12345") == project().runtime_dir.parent


def test_other_state_other_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two state folders have two locks, so they must not share a socket."""
    first = project().runtime_dir
    monkeypatch.setenv("XDG_STATE_HOME", "/var/s")

    assert first != project().runtime_dir


def test_logs_never_collide() -> None:
    """A worker may be called like a part of pbus."""
    assert project().log_path("valkey") != project().service_log_path("valkey")
