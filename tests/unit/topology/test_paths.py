"""Paths as users name them."""

from pathlib import Path

import pytest

from pbus.topology.paths import as_named, is_same_place, working_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `real/sub`, a link `link` to it, and no name for the current folder yet."""
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    monkeypatch.delenv("PWD", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "place"),
    [
        ("link/x.yaml", "link/x.yaml"),
        ("./link//x.yaml", "link/x.yaml"),
        ("real/../link/x.yaml", "link/x.yaml"),
        ("link/../x.yaml", "real/x.yaml"),  # as the kernel has it
        ("missing/../x.yaml", "x.yaml"),
        ("real/sub/", "real/sub"),
    ],
)
def test_links_stay(folder: Path, monkeypatch: pytest.MonkeyPatch, named: str, place: str) -> None:
    """Only `..` is followed through a link, from wherever one stands."""
    monkeypatch.chdir(folder)

    assert folder / place == as_named(Path(named)) == as_named(folder / named)


def test_shell_names_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell calls the current folder counts, while that is the same folder."""
    monkeypatch.chdir(folder / "link")
    for named, expected in (
        (folder / "link", folder / "link"),
        (folder, folder / "real" / "sub"),
        (Path("link"), folder / "real" / "sub"),
        (folder / "real" / ".." / "link", folder / "real" / "sub"),
        (folder / "missing", folder / "real" / "sub"),
    ):
        monkeypatch.setenv("PWD", str(named))
        assert expected == working_folder()


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
def test_deleted_folder_has_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder that is gone is known by where it was."""
    monkeypatch.chdir(folder / "real" / "sub")
    (folder / "real" / "sub").rmdir()

    assert folder / "real" / "sub" == working_folder()
    assert folder / "real" / "sub" / "x" == as_named(Path("x"))


def test_missing_places_go_by_name(folder: Path) -> None:
    """Two paths to one place are the same; of a missing one only the name is known."""
    assert is_same_place(folder / "link", folder / "real" / "sub")
    assert not is_same_place(folder / "link", folder / "real")
    assert is_same_place(folder / "missing", folder / "missing")
    assert not is_same_place(folder / "missing", folder / "real")
