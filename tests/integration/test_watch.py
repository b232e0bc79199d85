"""Watching of files with real processes: restarted for each change of what is watched."""

import asyncio
import errno
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pbus.process.supervisor_events import Line, StateChanged
from pbus.process.watching import file_watch
from pbus.topology.model import WorkerSpec
from pbus.topology.policy.policies import Dependency, LogProbe, ReadySpec, RestartSpec
from support.supervisor_helpers import Watched, program, supervised, topology

pytestmark = pytest.mark.redis

FOREVER = "import time; time.sleep(600)"
ONCE = RestartSpec(max_exits=1)  # an exit that counted would be the last
GOOD = "from pbus import BaseWorker\nclass Api(BaseWorker): pass\n"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state and sockets of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(main())


def reasons(watched: Watched, worker: str) -> list[str]:
    """Why the worker's processes were stopped."""
    changes = [one for one in watched.all(StateChanged) if one.worker == worker]
    return [one.detail for one in changes if one.state == "stopping"]


def write_in_place(folder: Path) -> None:
    (folder / "src" / "a.txt").write_text("changed in place")


def save_by_rename(folder: Path) -> None:
    """As Vim: the old file is a backup, the new one takes its name."""
    (folder / "src" / "a.txt").rename(folder / "src" / "a.txt~")
    (folder / "src" / "4913").touch()
    (folder / "src" / ".a.txt.swp").write_text("new")
    (folder / "src" / ".a.txt.swp").rename(folder / "src" / "a.txt")
    (folder / "src" / "a.txt~").unlink()


def replace_at_once(folder: Path) -> None:
    (folder / "new").write_text("replaced")
    (folder / "new").replace(folder / "src" / "a.txt")


def change_target_of_link(folder: Path) -> None:
    (folder / "elsewhere" / "target.txt").write_text("changed behind the link")


def point_link_elsewhere(folder: Path) -> None:
    (folder / "elsewhere" / "other.txt").write_text("other")
    (folder / "elsewhere" / "link").symlink_to("other.txt")
    (folder / "elsewhere" / "link").rename(folder / "src" / "link.txt")


def make_folder_again(folder: Path) -> None:
    shutil.rmtree(folder / "src")
    make_files(folder)


def change_in_new_folder(folder: Path) -> None:
    (folder / "src" / "a.txt").write_text("in the folder that was made again")


def add_below(folder: Path) -> None:
    (folder / "src" / "deep" / "er").mkdir(parents=True)
    (folder / "src" / "deep" / "er" / "b.txt").write_text("added")


def change_below(folder: Path) -> None:
    (folder / "src" / "deep" / "er" / "b.txt").write_text("changed")


def remove(folder: Path) -> None:
    shutil.rmtree(folder / "src" / "deep")


def change_many(folder: Path) -> None:
    for number in range(200):
        (folder / "src" / f"many{number}.txt").write_text("x")


def make_single(folder: Path) -> None:
    """A named file that was not there, with a name that is left alone elsewhere."""
    (folder / "later").mkdir()
    (folder / "later" / "single.tmp").write_text("there now")


def make_files(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "a.txt").write_text("first")
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / "target.txt").write_text("first")
    (folder / "src" / "link.txt").symlink_to("../elsewhere/target.txt")


def touch_ignored(folder: Path) -> None:
    """Change what does not count."""
    for name in (".git/HEAD", "__pycache__/a.pyc", ".venv/x.py", "env/pyvenv.cfg", "env/x.txt"):
        path = folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(os.urandom(4).hex())
    for name in ("a.txt~", ".a.txt.swp", ".#a.txt", "#a.txt#", "4913", ".goutputstream-X", "a.tmp"):
        (folder / "src" / name).write_text(os.urandom(4).hex())


CHANGES = (
    (write_in_place, "changed: src/a.txt"),
    (save_by_rename, "changed: src/a.txt"),
    (replace_at_once, "changed: src/a.txt"),
    (change_target_of_link, "changed: src/link.txt"),
    (point_link_elsewhere, "changed: src/link.txt"),
    (make_folder_again, "changed: src/a.txt, src/link.txt"),
    (change_in_new_folder, "changed: src/a.txt"),
    (add_below, "changed: src/deep/er/b.txt"),
    (change_below, "changed: src/deep/er/b.txt"),
    (remove, "changed: src/deep/er/b.txt"),
    (change_many, "changed: src/many0.txt, src/many1.txt, src/many10.txt and 197 more"),
    (make_single, "changed: later/single.tmp"),
)


def test_each_kind_of_change_restarts_once(tmp_path: Path):
    """However a file is changed; what editors, git and Python leave beside it does not count."""
    make_files(tmp_path)
    paths = (tmp_path / "src", tmp_path / "later" / "single.tmp")
    what = topology(
        tmp_path,
        program("watched", FOREVER, tmp_path, watch=paths, restart=ONCE),
        program("other", FOREVER, tmp_path),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("watched", "ready")
            await watched.state("other", "ready")
            for count, (change, expected) in enumerate(CHANGES, 1):
                touch_ignored(tmp_path)
                change(tmp_path)
                await watched.until(
                    lambda count=count: watched.process("watched").restarts >= count
                )
                await watched.state("watched", "ready")
                assert (change, [expected]) == (change, reasons(watched, "watched")[count - 1 :])
            assert 0 == watched.process("other").restarts
            assert 0 == await watched.stop()

    play(main)


def test_without_notifications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Where the system has no more watches, pbus looks each second, and says so once."""

    async def no_room(*_paths: str, **_options: Any) -> AsyncIterator[set[Any]]:
        raise OSError(errno.ENOSPC, "OS file watch limit reached")
        yield set()

    monkeypatch.setattr(file_watch, "awatch", no_room)
    file = tmp_path / "a.txt"
    file.write_text("first")
    spec = program("watched", FOREVER, tmp_path, watch=(file,), restart=ONCE)

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            for count in (1, 2):
                await watched.until(
                    lambda count=count: watched.states("watched").count("ready") == count
                )
                file.write_text(f"changed {count}")
            await watched.until(lambda: watched.states("watched").count("ready") == 3)
            assert 0 == await watched.stop()
        assert 1 == caplog.text.count("are looked for each second: [Errno 28] OS file watch limit")

    play(main)


READER = """
import pathlib, signal, sys, time
def stop(*_):
    while not pathlib.Path("end").exists(): time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print(pathlib.Path("a.txt").read_text(), flush=True)
while not pathlib.Path("go").exists(): time.sleep(0.01)
print("up", flush=True)
time.sleep(600)
"""


def test_change_while_restarting_is_not_lost(tmp_path: Path):
    """Neither one while the old process stops nor one while the new process starts."""
    file = tmp_path / "a.txt"
    file.write_text("first")
    (tmp_path / "go").touch()
    ready = ReadySpec(probe=LogProbe("^up$"))
    spec = program("reader", READER, tmp_path, watch=(file,), ready=ready, restart=ONCE)

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            await watched.state("reader", "ready")
            file.write_text("second")
            await watched.state("reader", "stopping")
            file.write_text("third")
            await noted(watched, 2)
            (tmp_path / "go").unlink()
            (tmp_path / "end").touch()
            await watched.line("third")
            assert "starting" == watched.process("reader").state
            file.write_text("fourth")
            await watched.line("fourth")
            (tmp_path / "go").touch()
            await watched.state("reader", "ready")
            assert 0 == await watched.stop()

    play(main)


async def noted(watched: Watched, times: int) -> None:
    """Wait until the log has told of so many changes."""
    await watched.line("changed: a.txt", times)


def api(folder: Path, **changes: Any) -> WorkerSpec:
    return WorkerSpec(name="api", worker="workers:Api", working_dir=folder, joins=True, **changes)


@pytest.mark.parametrize(
    "broken",
    ["class Api(\n", "import nothing_of_that_name\n", "raise RuntimeError('at import')\n"],
)
def test_failing_import_waits_for_the_next_change(tmp_path: Path, broken: str):
    """At the start and later; dependents that ask for it are restarted with it, others are not."""
    code = tmp_path / "workers.py"
    code.write_text(broken)
    what = topology(
        tmp_path,
        api(tmp_path, restart=ONCE),
        program(
            "with_it",
            FOREVER,
            tmp_path,
            depends_on=(Dependency(worker="api", restart=True),),
        ),
        program("alone", FOREVER, tmp_path, depends_on=(Dependency(worker="api"),)),
    )

    async def main() -> None:
        async with supervised(what, is_watching=True) as watched:
            record = await watched.state("api", "backoff")
            assert str(record.reason).endswith("; waits for a change of its files")
            code.write_text(GOOD)
            await watched.state("alone", "ready")
            await watched.state("with_it", "ready")
            code.write_text(broken)
            await watched.state("api", "backoff")
            starts = watched.process("api").restarts
            code.write_text(GOOD)
            await watched.state("api", "ready")
            await watched.until(lambda: watched.states("with_it").count("stopping") >= 1)
            await watched.state("with_it", "ready")
            assert starts + 1 == watched.process("api").restarts
            assert 0 == watched.process("alone").restarts
            assert 0 == await watched.stop()
            assert "failed" not in watched.states("api")[:-1]

    play(main)


def test_ended_worker_is_started_by_a_change_but_not_a_stopped_one(tmp_path: Path):
    """A task that has ended well runs again; the project goes on meanwhile."""
    file = tmp_path / "a.txt"
    file.write_text("first")
    what = topology(
        tmp_path,
        program("task", "print(open('a.txt').read())", tmp_path, watch=(file,)),
        program("stopped", FOREVER, tmp_path, watch=(file,)),
        program("unwatched", "", tmp_path, command=(sys.executable, "-c", ""), watch=()),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("task", "exited")
            watched.supervisor.workers["stopped"].stop()
            await watched.state("stopped", "exited")
            file.write_text("second")
            await watched.line("second")
            await watched.state("task", "exited")
            assert "exited" == watched.process("stopped").state
            assert 0 == watched.process("stopped").restarts
            assert not [one for one in watched.all(Line) if one.text.startswith("waits for")]
            assert 0 == await watched.stop()

    play(main)
