"""The bound of what is watched, and how it is told."""

import asyncio
import logging
from pathlib import Path

import pytest

from pbus.process.watching import file_watch, snapshot
from pbus.process.watching.file_watch import FileWatch
from pbus.process.watching.snapshot import Root, take_snapshot


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three folders of two files, where five entries are looked at."""
    monkeypatch.setattr(snapshot, "MAX_ENTRIES", 5)
    monkeypatch.setattr(file_watch, "MAX_ENTRIES", 5)
    for name in "abc":
        (tmp_path / "large" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "large" / name / f"{number}.py").touch()
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "x.py").touch()
    return tmp_path


def test_what_is_not_looked_at_is_known(folder: Path):
    """Only roots with more than that are cut; a file never is."""
    large, small, file = Root(folder / "large"), Root(folder / "small"), Root(folder / "none")
    taken = take_snapshot([large, small, file])

    assert (large,) == taken.cut
    assert 0 < len(taken.files[large]) < 6
    assert [str(folder / "small" / "x.py")] == list(taken.files[small])


def test_one_large_folder_is_whole(folder: Path):
    """A folder that was opened is looked at to its end, so nothing is left out silently."""
    for number in range(20):
        (folder / "small" / f"{number}.py").touch()
    taken = take_snapshot([Root(folder / "small")])

    assert () == taken.cut
    assert 21 == len(taken.files[Root(folder / "small")])


def test_it_is_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """A warning names the folder and the bound, not again at each look; also when it grows later."""
    monkeypatch.setattr(file_watch, "_LOOK_MS", 50)
    roots = [Root(folder / "large"), Root(folder / "small")]

    async def main() -> None:
        changed = asyncio.Event()
        watch = FileWatch(roots, lambda _: changed.set())
        task = asyncio.ensure_future(watch.run())
        while not caplog.records:
            await asyncio.sleep(0.01)
        for name in "defghi":
            (folder / "small" / name / "deep").mkdir(parents=True)
            (folder / "small" / name / "deep" / "new.py").touch()
        await changed.wait()
        while len(caplog.records) < 2:
            await asyncio.sleep(0.01)
        changed.clear()
        (folder / "small" / "x.py").write_text("changed")
        await changed.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with caplog.at_level(logging.WARNING, "pbus"):
        asyncio.run(asyncio.wait_for(main(), 30))

    text = "has more than 5 files and folders: changes of the others are not seen; watch less of it"
    assert [f"{folder / name} {text}" for name in ("large", "small")] == [
        record.getMessage() for record in caplog.records
    ]
