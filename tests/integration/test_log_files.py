"""Log files on a real disk: rotation, merging, following during writes."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from pbus.process.project import log_reader
from pbus.process.project.log_files import LogFile, LogLine
from pbus.process.project.log_reader import follow_lines, read_lines
from pbus.process.system.output import CUT_MARK

NOW = 1795467030.123


@pytest.fixture(autouse=True)
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers look often, so that tests are quick."""
    monkeypatch.setattr(log_reader, "_POLL_S", 0.01)


def texts(lines: list[LogLine]) -> list[str]:
    """Only what was written."""
    return [line.text for line in lines]


def follow(paths: dict[str, Path], count: int, act: Callable[[], object]) -> list[LogLine]:
    """Follow until so many lines came; `act` happens once the follower is at work."""

    async def main() -> list[LogLine]:
        async with aclosing(follow_lines(paths)) as lines, asyncio.timeout(10):
            first = asyncio.ensure_future(anext(lines))
            await asyncio.sleep(0)  # it runs to its first wait, so it looked at what is there
            act()
            return [await first, *[await anext(lines) for _ in range(count - 1)]]

    return asyncio.run(main())


def test_lines_read_as_written(tmp_path: Path) -> None:
    """Time, stream and text come back; a line break within makes two lines."""
    path = tmp_path / "folder" / "a.log"
    with LogFile(path) as log:
        log.write(NOW, "out", "héllo  wörld ")
        log.write(NOW + 1, "err", "one\r\ntwo\x0b\u2028still two")
        log.write(NOW + 2, "pbus", "")

    expected = [
        LogLine("a", NOW, "out", "héllo  wörld "),
        LogLine("a", NOW + 1, "err", "one"),
        LogLine("a", NOW + 1, "err", "two\x0b\u2028still two"),
        LogLine("a", NOW + 2, "pbus", ""),
    ]
    assert expected == read_lines({"a": path})
    assert path.read_text().startswith("2026-11-23T20:50:30.123Z out héllo")


def test_long_line_is_cut(tmp_path: Path) -> None:
    """A line over 64 KiB is cut at a whole character, and says so; once only."""
    path = tmp_path / "a.log"
    with LogFile(path) as log:
        log.write(NOW, "out", "€" * 64 * 1024)
        log.write(NOW, "out", "x" * 64 * 1024)
        log.write(NOW, "out", "x" * 64 * 1024 + CUT_MARK)

    cut, whole, marked = texts(read_lines({"a": path}))
    assert "€" * (64 * 1024 // 3) + CUT_MARK == cut
    assert "x" * 64 * 1024 == whole
    assert "x" * 64 * 1024 + CUT_MARK == marked


def test_odd_text_is_kept(tmp_path: Path) -> None:
    """What is no Unicode does not stop the log."""
    path = tmp_path / "a.log"
    with LogFile(path) as log:
        log.write(NOW, "out", "a\udcffb %s {}")

    assert ["a\\udcffb %s {}"] == texts(read_lines({"a": path}))


def test_files_rotate_by_size(tmp_path: Path) -> None:
    """Three files at most, the oldest lines go first, all that is there is read in order."""
    path = tmp_path / "a.log"
    with LogFile(path, max_bytes=1000) as log:
        for number in range(200):
            log.write(NOW + number, "out", f"line {number}")

    found = texts(read_lines({"a": path}))
    assert ["a.log", "a.log.1", "a.log.2"] == sorted(file.name for file in tmp_path.iterdir())
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    assert [f"line {number}" for number in range(200 - len(found), 200)] == found
    assert 60 < len(found) < 90
    assert found[-40:] == texts(read_lines({"a": path}, 40))


def test_workers_merge_by_time(tmp_path: Path) -> None:
    """Lines of several workers come in the order of their times; the newest of all are taken."""
    paths = {name: tmp_path / f"{name}.log" for name in "abc"}
    for offset, name in enumerate("ab"):
        with LogFile(paths[name]) as log:
            for number in range(5):
                log.write(NOW + 2 * number + offset, "out", f"{name}{number}")

    assert [f"{name}{number}" for number in range(5) for name in "ab"] == texts(read_lines(paths))
    assert ["b3", "a4", "b4"] == texts(read_lines(paths, 3))
    assert [] == read_lines(paths, 0)
    assert 10 == len(read_lines(paths, 1000))


def test_last_lines_span_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading from the end finds whole lines wherever its blocks begin."""
    path = tmp_path / "a.log"
    with LogFile(path) as log:
        for number in range(50):
            log.write(NOW, "out", f"line {number}")

    for block in (1, 7, 64, 100_000):
        monkeypatch.setattr(log_reader, "_BLOCK", block)
        for count in (1, 2, 49, 50, 51):
            expected = [f"line {number}" for number in range(max(0, 50 - count), 50)]
            assert expected == texts(read_lines({"a": path}, count))


def test_damaged_lines_are_shown(tmp_path: Path) -> None:
    """What is no line of ours is shown as it is, at its place; an unfinished line is left out."""
    path = tmp_path / "a.log"
    path.write_bytes(
        b"2026-11-23T20:50:30.123Z out good\n"
        b"half a l\xff\n"
        b"2026-13-45T99:50:30.123Z out bad time\n"
        b"2026-11-23T20:50:31.123Z out unfini"
    )

    found = read_lines({"a": path})
    assert ["good", "half a l\ufffd", "2026-13-45T99:50:30.123Z out bad time"] == texts(found)
    assert [NOW] * 3 == [line.time for line in found]


def test_full_disk_costs_lines_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be written the supervisor goes on, and says so once."""
    path = tmp_path / "file" / "a.log"
    path.parent.touch()
    with LogFile(path) as log, caplog.at_level(logging.ERROR):
        for _ in range(5):
            log.write(NOW, "out", "text")

    assert 1 == len(caplog.records)
    assert "cannot write" in caplog.text
    path.parent.unlink()
    log.write(NOW, "out", "back again")
    log.close()
    assert ["back again"] == texts(read_lines({"a": path}))


def test_follow_sees_new_lines(tmp_path: Path) -> None:
    """A follower starts at the end and waits for files that do not exist yet."""
    paths = {"old": tmp_path / "old.log", "new": tmp_path / "new.log"}
    with LogFile(paths["old"]) as log:
        log.write(NOW, "out", "before")

    def act() -> None:
        for name in ("old", "new"):
            with LogFile(paths[name]) as log:
                log.write(NOW + 1, "out", f"after in {name}")

    found = follow(paths, 2, act)
    assert {"after in old", "after in new"} == set(texts(found))
    assert {"old", "new"} == {line.worker for line in found}


def test_follow_begins_with_last(tmp_path: Path) -> None:
    """Asked for, the last lines come first, and nothing is missed or repeated after them."""
    path = tmp_path / "a.log"
    with LogFile(path) as log:
        for number in range(10):
            log.write(NOW + number, "out", str(number))

    async def main() -> list[str]:
        found = []
        async with aclosing(follow_lines({"a": path}, last_n=3)) as lines, asyncio.timeout(10):
            async for line in lines:
                found.append(line.text)
                if line.text == "9":
                    with LogFile(path) as log:
                        log.write(NOW, "out", "10")
                if line.text == "10":
                    return found
        return found

    assert ["7", "8", "9", "10"] == asyncio.run(main())


def test_follow_survives_rotation(tmp_path: Path) -> None:
    """While a writer fills and rotates files a follower gets every line once, in order."""
    path = tmp_path / "a.log"
    count = 20_000
    seen = threading.Semaphore(0)

    def write() -> None:
        with LogFile(path, max_bytes=100_000) as log:
            for number in range(count):
                log.write(NOW + number / 1000, "out", str(number))
                if number >= 2000:  # as far ahead as two files hold, no farther
                    assert seen.acquire(timeout=10)

    writer = threading.Thread(target=write)

    async def main() -> list[str]:
        async with aclosing(follow_lines({"a": path})) as lines, asyncio.timeout(50):
            first = asyncio.ensure_future(anext(lines))
            await asyncio.sleep(0)  # it runs to its first wait, so it looked at what is there
            writer.start()
            found = [(await first).text]
            while len(found) < count:
                seen.release()
                found.append((await anext(lines)).text)
        return found

    found = asyncio.run(main())
    writer.join(10)
    assert (tmp_path / "a.log.2").exists()
    assert [str(number) for number in range(count)] == found


def test_follow_joins_partial_lines(tmp_path: Path) -> None:
    """A line whose end comes later is given when it is complete, or when its file is left."""
    path = tmp_path / "a.log"
    path.touch()

    def act() -> None:
        with path.open("ab", buffering=0) as file:
            file.write(b"2026-11-23T20:50:30.123Z out be")
            file.write(b"gun\n2026-11-23T20:50:30.123Z err cut o")
        path.rename(f"{path}.1")
        path.write_bytes(b"2026-11-23T20:50:31.123Z out next\n")

    found = follow({"a": path}, 3, act)
    assert ["begun", "cut o", "next"] == texts(found)


def test_follow_survives_truncation(tmp_path: Path) -> None:
    """A truncated file is read from its new beginning."""
    path = tmp_path / "a.log"
    with LogFile(path) as log:
        log.write(NOW, "out", "a rather long line that makes the old file longer than the new")

    found = follow({"a": path}, 1, lambda: path.write_text("2026-11-23T20:50:30.123Z out new\n"))
    assert ["new"] == texts(found)


def test_gap_in_rotation_is_bridged(tmp_path: Path) -> None:
    """A follower that starts between the two steps of a rotation does not repeat old files."""
    path = tmp_path / "a.log"
    with LogFile(path) as log:
        log.write(NOW, "out", "old")
    path.rename(f"{path}.1")

    def act() -> None:
        with LogFile(path) as log:
            log.write(NOW, "out", "new")

    assert ["new"] == texts(follow({"a": path}, 1, act))
