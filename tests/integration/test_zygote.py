"""Workers that are forked from a warm parent: as if by exec, and without it where it is not there."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pbus.process.forking import zygote_client
from pbus.process.forking.fork_messages import ZygoteSpec
from pbus.process.forking.warm_starts import WarmStarts
from pbus.process.supervisor_events import Exited, Line, Started
from pbus.process.system import groups
from pbus.process.system.launch_plan import Launch
from pbus.process.system.spawn import Child, spawn
from pbus.topology.model import WorkerSpec
from support.supervisor_helpers import PATIENCE_S, Watched, is_alive, supervised, topology
from support.waiting import eventually, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")

# What a program finds out about its own process.
FACTS = """
import gc, json, os, random, resource, signal, subprocess, sys, threading, warnings

def facts(name):
    proc = lambda file: open(f"/proc/self/{file}", "rb").read()
    status = dict(line.split(b":", 1) for line in proc("status").splitlines())
    shown = dict(one.split(b"=", 1) for one in proc("environ").split(b"\\0") if one)
    main = sys.modules["__main__"]
    text = lambda value: str(value).replace(name, "NAME")
    return {
        "argv": text(sys.argv), "orig_argv": text(sys.orig_argv), "cmdline": text(proc("cmdline")),
        "path": sys.path, "cwd": os.getcwd(), "flags": str(sys.flags),
        "main": [main.__name__, main.__spec__.name, main.__file__, main.__package__],
        "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "parent": os.getppid(),
        "comm": text(proc("comm")), "umask": text(status[b"Umask"]), "nice": os.nice(0),
        "signals": [text(status[key]) for key in (b"SigBlk", b"SigIgn")],
        "files": [str(resource.getrlimit(resource.RLIMIT_NOFILE)), text(os.read(0, 1))],
        "streams": [[one.encoding, one.errors, one.line_buffering, one.write_through, one.name]
                    for one in (sys.stdin, sys.stdout, sys.stderr)],
        "gc": gc.isenabled(), "threads": threading.active_count(), "warnings": len(warnings.filters),
        "shown": sorted(key.decode() for key in shown), "named": text(shown[b"PBUS_WORKER"]),
        "environ": sorted(os.environ),
        "inherited": sorted(line.partition("=")[0] for line in
            subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()),
    }
"""
WORKERS = f"""{FACTS}
from pbus import BaseWorker, job
class Facts(BaseWorker):
    async def start(self):
        print("facts", json.dumps(facts(self.name)))
        print("random", random.random())
        print("frozen", gc.get_freeze_count() > 0)
    @job(name="crash")
    async def crash(self, request):
        os._exit(9)
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "fork_workers.py").write_text(WORKERS)


def hosted(name: str, folder: Path, **changes: Any) -> WorkerSpec:
    """A worker that tells of its process, and is to be forked."""
    values: dict[str, Any] = {
        "name": name, "working_dir": folder, "joins": True, "worker": "fork_workers:Facts",
        "start": "fork",
    }  # fmt: skip
    return WorkerSpec(**{**values, **changes})


def told(watched: Watched, worker: str, word: str) -> list[Any]:
    """What a worker printed behind a word."""
    lines = [one.text for one in watched.all(Line) if one.worker == worker and one.stream == "out"]
    return [json.loads(line.lower() if word == "frozen" else line)
            for whole in lines if whole.startswith(f"{word} ")
            for line in [whole.removeprefix(f"{word} ")]]  # fmt: skip


def zygotes(parent: int) -> list[psutil.Process]:
    """The zygotes of a supervisor, by what process lists show."""
    return [one for one in psutil.Process(parent).children()
            if one.status() != psutil.STATUS_ZOMBIE and "pbus-zygote" in one.cmdline()]  # fmt: skip


def test_a_fork_is_as_an_exec(tmp_path: Path):
    """A worker finds the same process around it both ways: only its memory tells."""
    what = topology(
        tmp_path,
        hosted("forked", tmp_path, replicas=2),
        hosted("started", tmp_path, start="exec"),
        hosted("early", tmp_path, env={"PYTHONWARNINGS": "ignore", "TZ": "Asia/Tokyo"}),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            for name in ("forked.1", "forked.2", "started", "early"):
                await watched.state(name, "ready")
            frozen = {one: told(watched, one, "frozen") for one in ("forked.1", "started", "early")}
            assert {"forked.1": [True], "started": [False], "early": [False]} == frozen
            (forked,), (started,) = (told(watched, one, "facts") for one in ("forked.1", "started"))
            replica = {"PBUS_REPLICA"}
            for key in ("shown", "environ", "inherited"):
                forked[key] = sorted({*forked[key]} - replica)
            assert started == forked
            assert os.getpid() == forked["parent"]
            assert told(watched, "forked.1", "random") != told(watched, "forked.2", "random")

            assert 0 == await watched.stop()
            assert [0] * 4 == [one.code for one in watched.all(Exited)]
        assert [] == zygotes(os.getpid())

    asyncio.run(main())


def test_a_killed_zygote_harms_no_worker(tmp_path: Path):
    """Workers go on, their ends are seen, and the next one is forked from another zygote."""
    what = topology(tmp_path, hosted("a", tmp_path), hosted("b", tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            pids = [(await watched.state(name, "ready")).pid for name in ("a", "b")]
            (zygote,) = zygotes(os.getpid())
            assert zygote.pid not in [one.pid for one in watched.supervisor.record().processes]
            zygote.kill()
            os.kill(pids[0] or 0, signal.SIGKILL)
            await watched.nth(Started, 3)
            await watched.state("a", "ready")
            assert [-signal.SIGKILL] == [one.code for one in watched.all(Exited)]
            assert [True, True] == told(watched, "a", "frozen")
            assert is_alive(pids[1])
            assert 0 == await watched.stop()

    asyncio.run(main())


# Below: zygotes alone, without a bus. Their workers end at once: there is no spec.


class Notes(list[str]):
    """What is told of starts that are not forks."""


@contextlib.asynccontextmanager
async def warm(folder: Path, *preload: str) -> AsyncIterator[WarmStarts]:
    """Starts of workers with a zygote that has imported modules of this folder."""
    spec = ZygoteSpec(modules=(), preload=preload, file=str(folder / "topology.yaml"))
    starts = WarmStarts(spec, dict(os.environ), folder / "zygote.log")
    try:
        yield starts
    finally:
        await starts.close()
    assert [] == zygotes(os.getpid())


def launch_of(folder: Path) -> Launch:
    """A worker's launch whose process ends at once."""
    argv = (sys.executable, "-P", "-m", "pbus.process.child", "x")
    return Launch(argv=argv, env=dict(os.environ), cwd=folder, spec=b"no spec", is_forkable=True)


async def started(starts: WarmStarts, folder: Path, notes: Notes) -> tuple[Child, list[str]]:
    """Start a worker and wait for its end; returns its lines, too."""
    lines: list[str] = []
    launch = launch_of(folder)
    start = await starts.starter(launch, notes.append)
    child = await spawn(launch, "x", lambda _, line: lines.append(line), lambda: None, start)
    await asyncio.wait_for(child.wait(), PATIENCE_S)
    await child.wait_drained(PATIENCE_S)
    child.close()
    return child, lines


def test_preloaded_modules_are_renewed(tmp_path: Path):
    """A worker has the module as its file is now; what cannot be preloaded is told once."""
    module = tmp_path / "warm_part.py"
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "random.py").write_text("def seed(): print('SEEDED', flush=True)")
    code = "import atexit, sys\natexit.register(lambda: print('VERSION', sys.modules['warm_part'].V))\nV = {}\n"
    module.write_text(code.format(1))

    async def main() -> None:
        notes = Notes()
        async with warm(tmp_path, "warm_part", "not_there", "numpy.random") as starts:
            for version in (1, 1, 22):
                module.write_text(code.format(version))
                _, lines = await started(starts, tmp_path, notes)
                assert f"VERSION {version}" in lines
        assert [
            "preload: importing not_there raised ModuleNotFoundError: No module named 'not_there'"
        ] == notes

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True, name='t1').start()", "start threads (t1)"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "it has ended"),
    ],
)  # fmt: skip
def test_what_cannot_fork_starts_by_exec(tmp_path: Path, code: str, problem: str):
    """Workers start all the same, and a line says so once."""
    (tmp_path / "odd_part.py").write_text(code)

    async def main() -> None:
        notes = Notes()
        async with warm(tmp_path, "odd_part") as starts:
            for _ in range(2):
                child, _ = await started(starts, tmp_path, notes)
                assert 1 == child.code
        (note,) = notes
        assert "started by exec: the zygote does not fork: " in note
        assert problem in note

    asyncio.run(main())


def test_a_hung_zygote_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that does not answer is killed, the worker is started by exec, and no process is lost."""

    async def main() -> None:
        notes = Notes()
        async with warm(tmp_path) as starts:
            await started(starts, tmp_path, notes)
            (zygote,) = zygotes(os.getpid())
            zygote.suspend()
            monkeypatch.setattr(zygote_client, "FORK_S", 0.05)
            child, _ = await started(starts, tmp_path, notes)
            assert 1 == child.code
            assert not is_alive(zygote.pid)
            await started(starts, tmp_path, notes)
            assert ["started by exec: the zygote does not fork: no answer within 0.05 s"] == notes
        assert [] == [one.pid for one in groups.descendants(os.getpid()) if "x" in one.cmdline()]

    asyncio.run(main())


def test_a_zygote_is_renewed_under_a_start(tmp_path: Path):
    """A start that waited for its turn meanwhile is made by exec, and nothing is told of it."""
    module = tmp_path / "waiting_part.py"
    module.write_text("V = 1")

    async def main() -> None:
        notes = Notes()
        async with warm(tmp_path, "waiting_part") as starts:
            launch = launch_of(tmp_path)
            first = await starts.starter(launch, notes.append)
            module.write_text("V = 22")
            second = await starts.starter(launch, notes.append)
            for start in (first, second):
                child = await spawn(launch, "x", lambda *_: None, lambda: None, start)
                assert 1 == await asyncio.wait_for(child.wait(), PATIENCE_S)
                child.close()
            assert [] == notes

    asyncio.run(main())


def test_exit_codes_of_forks(tmp_path: Path):
    """A signal and an exit code are told as those of other children; no descriptor is left."""
    code = "import os, atexit\natexit.register(lambda: os.kill(os.getpid(), 9))\n"
    (tmp_path / "ending_part.py").write_text(code)

    async def main() -> None:
        notes = Notes()
        before = psutil.Process().num_fds()
        async with warm(tmp_path) as starts:
            child, lines = await started(starts, tmp_path, notes)
            assert (1, []) == (child.code, notes)
            assert "Traceback (most recent call last):" in lines
        await until(lambda: before == psutil.Process().num_fds())
        async with warm(tmp_path, "ending_part") as starts:
            child, _ = await started(starts, tmp_path, notes)
            assert -signal.SIGKILL == child.code

    asyncio.run(main())


def test_a_zygote_ends_with_its_supervisor(tmp_path: Path):
    """Also where that is killed: no process of it is left."""
    code = f"""
import asyncio, os, signal
from pathlib import Path
from pbus.process.forking.fork_messages import ZygoteSpec
from pbus.process.forking.zygote_client import Zygote

async def main():
    spec = ZygoteSpec(modules=(), preload=(), file={str(tmp_path / "topology.yaml")!r})
    zygote = Zygote(spec, dict(os.environ), Path({str(tmp_path / "zygote.log")!r}))
    await zygote.wait_ready()
    print(zygote.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert -signal.SIGKILL == process.returncode
        eventually(lambda: not is_alive(int(out)))

    asyncio.run(main())


def test_own_error_of_a_launch_is_as_by_exec(tmp_path: Path):
    """A folder that is gone is the same error with a zygote as without."""

    async def main() -> None:
        notes = Notes()
        async with warm(tmp_path) as starts:
            await started(starts, tmp_path, notes)
            with pytest.raises(FileNotFoundError) as caught:
                await started(starts, tmp_path / "gone", notes)
            assert str(tmp_path / "gone") == str(caught.value.filename)
            assert [] == notes

    asyncio.run(main())
