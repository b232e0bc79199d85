"""Which of the running projects a command means."""

from pathlib import Path

import pytest

from pbus.errors import AmbiguousProjectError, NothingRunningError
from pbus.process.project import discovery
from pbus.process.project.discovery import choose_project
from pbus.process.project.record import ProjectRecord
from pbus.settings import BusSettings


def record(name: str, folder: Path) -> ProjectRecord:
    """A running project."""
    return ProjectRecord(
        name=name,
        folder=str(folder),
        file=str(folder / f"{name}.yaml"),
        session="s",
        bus=BusSettings(url="unix:///x", channel="c"),
        pid=1,
        pid_created=0.0,
        version="0",
    )


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[ProjectRecord]:
    """What runs; to be filled by the test."""
    found: list[ProjectRecord] = []
    monkeypatch.setattr(discovery, "running_projects", lambda: list(found))
    return found


def test_only_one_is_meant(running: list[ProjectRecord], tmp_path: Path) -> None:
    """Where one project runs there is nothing to choose, wherever one stands."""
    running.append(record("a", tmp_path / "a"))
    assert running[0] is choose_project(None, None, tmp_path)


def test_folder_with_topology_means_itself(running: list[ProjectRecord], tmp_path: Path) -> None:
    """Where a folder has a topology no other project is meant, least of all to be stopped."""
    running.append(record("a", tmp_path / "a"))
    (tmp_path / "topology.yaml").touch()

    with pytest.raises(
        NothingRunningError, match=r"that of .*/topology.yaml.*running: a \(-p NAME"
    ):
        choose_project(None, None, tmp_path)
    assert running[0] is choose_project("a", None, tmp_path)


def test_own_folder_comes_first(running: list[ProjectRecord], tmp_path: Path) -> None:
    """The project of this folder is meant, though others run."""
    running += [record("a", tmp_path / "a"), record("b", tmp_path)]
    assert running[1] is choose_project(None, None, tmp_path)


def test_name_or_file_chooses(running: list[ProjectRecord], tmp_path: Path) -> None:
    """Name and file win over the folder; a file is taken relative to where one stands."""
    running += [record("a", tmp_path / "a"), record("b", tmp_path)]
    assert running[0] is choose_project("a", None, tmp_path)
    assert running[0] is choose_project(None, Path("a/a.yaml"), tmp_path)
    assert running[1] is choose_project("b", tmp_path / "b.yaml", tmp_path / "a")


def test_same_name_prefers_folder(running: list[ProjectRecord], tmp_path: Path) -> None:
    """Of two projects of one name that of this folder is meant; elsewhere the files tell."""
    running += [record("a", tmp_path / "x"), record("a", tmp_path / "y")]
    assert running[1] is choose_project("a", None, tmp_path / "y")

    with pytest.raises(AmbiguousProjectError) as error:
        choose_project("a", None, tmp_path)
    assert tuple(f"a ({tmp_path}/{d}/a.yaml)" for d in "xy") == error.value.names


def test_several_are_listed(running: list[ProjectRecord], tmp_path: Path) -> None:
    """Where several could be meant the error lists them."""
    running += [record("a", tmp_path / "a"), record("b", tmp_path / "b")]
    with pytest.raises(AmbiguousProjectError, match=r"a, b.*-p NAME"):
        choose_project(None, None, tmp_path)


def test_topology_comes_before_neighbour(running: list[ProjectRecord], tmp_path: Path) -> None:
    """In a folder with a topology.yaml that is meant, whatever else runs from there."""
    running += [record("a", tmp_path), record("topology", tmp_path)]
    assert running[1] is choose_project(None, None, tmp_path)

    (tmp_path / "topology.yaml").touch()
    assert running[1] is choose_project(None, None, tmp_path)
    del running[1]
    with pytest.raises(NothingRunningError, match=r"topology.yaml.*running: a"):
        choose_project(None, None, tmp_path)


def test_environment_names_project(running: list[ProjectRecord], tmp_path: Path) -> None:
    """PBUS_PROJECT counts where no option is given, and then nothing else does."""
    running += [record("a", tmp_path / "a"), record("b", tmp_path)]
    own = {"PBUS_PROJECT": "a"}
    assert running[0] is choose_project(None, None, tmp_path, own)
    assert running[1] is choose_project("b", None, tmp_path, own)
    assert running[1] is choose_project(None, Path("b.yaml"), tmp_path, own)
    assert running[1] is choose_project(None, None, tmp_path, {"PBUS_PROJECT": ""})
    with pytest.raises(NothingRunningError, match="is named 'over'"):
        choose_project(None, None, tmp_path, {"PBUS_PROJECT": "over"})


@pytest.mark.parametrize(
    ("name", "file", "what"),
    [
        (None, None, "no running project was found"),
        ("z", None, "is named 'z'"),
        (None, Path("z.yaml"), "was started from /.*/z.yaml"),
    ],
)
def test_nothing_matches(
    running: list[ProjectRecord], tmp_path: Path, name: str | None, file: Path | None, what: str
) -> None:
    """Where nothing matches the error says what was looked for."""
    if name or file:
        running.append(record("a", tmp_path))
    with pytest.raises(NothingRunningError, match=what):
        choose_project(name, file, tmp_path)
