"""Starts that do not work: each says what is wrong, costs one worker, and leaves nothing behind."""

import asyncio
import contextlib
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pbus.process.supervisor.worker.usage import UsageMeter
from pbus.process.supervisor_events import GaveUp, Line, Ready, Started, StateChanged
from pbus.process.system import groups
from pbus.process.system.launch_plan import Launch
from pbus.process.system.spawn import spawn
from pbus.topology.model import WorkerSpec
from pbus.topology.policy.policies import RestartSpec
from support.supervisor_helpers import is_alive, program, restarting, supervised, topology
from support.waiting import until

FOREVER = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state and sockets of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def _file(folder: Path, name: str, content: bytes, mode: int = 0o755) -> str:
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return f"./{name}"


def _foreign_machine(folder: Path) -> str:
    head = bytearray(Path(sys.executable).resolve().read_bytes()[:4096])
    head[18:20] = b"\x16\x00"  # S390, if little-endian
    return _file(folder, "foreign", bytes(head))


def test_problems_are_named(tmp_path: Path):
    """Whatever keeps a program from starting is named: file, interpreter, machine, folder, size."""
    (tmp_path / "folder").mkdir()
    _file(tmp_path, "file", b"")
    programs = {
        "crlf": (_file(tmp_path, "crlf.sh", b"#!/bin/sh\r\necho hi\r\n"), "ends with CR LF"),
        "env-crlf": (_file(tmp_path, "env.sh", b"#!/usr/bin/env sh\r\n:\r\n"), "ends with CR LF"),
        "interpreter": (
            _file(tmp_path, "odd", b"#!/opt/nowhere/python -u\n"),
            "wants the interpreter /opt/nowhere/python, which does not exist",
        ),
        "mode": (_file(tmp_path, "plain.sh", b"#!/bin/sh\n", 0o644), "is not executable (chmod +x"),
        "directory": ("./folder", "folder is a folder, not a program"),
        "text": (_file(tmp_path, "text", b"echo hi\n"), "names no interpreter"),
        "bom": (
            _file(tmp_path, "bom.sh", b"\xef\xbb\xbf#!/bin/sh\n"),
            "begins with a byte order mark",
        ),
        "wide": (
            _file(tmp_path, "wide.sh", "#!/bin/sh\n".encode("utf-16")),
            "begins with a byte order mark",
        ),
        "empty": (_file(tmp_path, "empty", b""), "is empty"),
        "machine": (_foreign_machine(tmp_path), "is built for another kind of machine"),
        "missing": ("./missing", f"No such file or directory: {tmp_path / 'missing'}"),
        "path": ("not-a-program-anywhere", "not-a-program-anywhere (not in PATH)"),
    }
    specs = [
        WorkerSpec(
            name=name,
            working_dir=tmp_path,
            joins=False,
            command=(word,),
            restart=RestartSpec(policy="never"),
        )
        for name, (word, _) in programs.items()
    ]
    folders = {
        "gone": (tmp_path / "gone", "does not exist"),
        "no-folder": (tmp_path / "file", "is no folder"),
    }
    specs += [program(name, "", tmp_path, working_dir=path) for name, (path, _) in folders.items()]
    specs += [
        program("word", "", tmp_path, command=("true", "x" * 140_000)),
        program("variable", "", tmp_path, env={"BIG": "x" * 140_000}),
        program("steady", FOREVER, tmp_path),
    ]
    expected = {
        **{name: text for name, (_, text) in programs.items()},
        **{name: f"its working folder {path} {text}" for name, (path, text) in folders.items()},
        "word": "an argument has 140,000 bytes",
        "variable": "the variable BIG has 140,004 bytes",
    }

    async def main() -> None:
        async with supervised(topology(tmp_path, *specs)) as watched:
            for name, text in expected.items():
                record = await watched.state(name, "failed")
                assert text in (record.error or ""), (name, record.error)
            await watched.state("steady", "ready")
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_deployment_is_waited_for(tmp_path: Path):
    """A program, its folder or a class that worked and is missing for a while: tried until back."""
    script = tmp_path / "app" / "run"
    script.parent.mkdir()
    _file(script.parent, "run", b"#!/bin/sh\nexec sleep 600\n")
    module = tmp_path / "own_workers.py"
    module.write_text("import pbus\nclass Plain(pbus.BaseWorker): pass\n")
    what = topology(
        tmp_path,
        program(
            "script", "", script.parent, command=("./run",), restart=RestartSpec(policy="always")
        ),
        WorkerSpec(name="kind", working_dir=tmp_path, joins=True, worker="own_workers:Plain"),
        program(
            "never", "", tmp_path, command=("./not-there",), restart=RestartSpec(policy="always")
        ),
    )
    what = restarting(what, initial_s=0.05, max_s=0.1)

    async def main() -> None:
        async with supervised(what) as watched:
            for name in ("script", "kind"):
                await watched.state(name, "ready")
            assert [GaveUp] == [type(one) for one in watched.all(GaveUp)]  # what never worked
            script.parent.rename(tmp_path / "away")
            module.rename(tmp_path / "away.py")
            shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
            for one in watched.all(Started):
                psutil.Process(one.pid).kill()

            def problems(name: str, text: str) -> int:
                changes = [one for one in watched.all(StateChanged) if one.worker == name]
                return len([one for one in changes if text in one.detail])

            await watched.until(lambda: problems("script", "does not exist, restarts in") > 5)
            await watched.until(lambda: problems("kind", "cannot be loaded: error: worker ") > 0)
            (tmp_path / "away").rename(script.parent)
            (tmp_path / "away.py").rename(module)
            for name in ("script", "kind"):
                await watched.state(name, "ready")
            assert ["never"] == [one.worker for one in watched.all(GaveUp)]
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_large_arguments_arrive(tmp_path: Path):
    """Arguments may be larger than what one environment variable holds, and are in none."""
    (tmp_path / "own_workers.py").write_text(
        "import os, pbus\n"
        "class Large(pbus.BaseWorker):\n"
        "    def __init__(self, name, text):\n"
        "        super().__init__(name)\n"
        "        own = open('/proc/self/environ').read() if os.path.exists('/proc') else ''\n"
        "        print(len(text), 'xxx' in own, [k for k in os.environ if 'SPEC' in k], flush=True)\n"
    )
    spec = WorkerSpec(
        name="a",
        working_dir=tmp_path,
        joins=True,
        worker="own_workers:Large",
        args={"text": "x" * 3_000_000},
    )

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            await watched.nth(Ready)
            assert "3000000 False []" in [one.text for one in watched.all(Line)]
            assert 0 == await watched.stop()

    asyncio.run(main())


@contextlib.contextmanager
def few_files(count: int) -> Iterator[None]:
    """Let this process open only so many files more."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_file_left_measures_nothing():
    """Without room for another open file nothing is measured, and nothing raised."""
    with few_files(0):
        assert {} == UsageMeter().measure([os.getpid()])
        assert groups.start_time(os.getpid()) is None
        assert not groups.is_empty(os.getpgid(0))


def test_unwatchable_child_is_ended(monkeypatch: pytest.MonkeyPatch):
    """A child that was started and cannot be looked after is ended, and the start has failed."""
    pids: list[int] = []

    def full(pid: int) -> int:
        pids.append(pid)
        raise OSError(24, "Too many open files")

    def no_thread(pid: int) -> int:
        pids.append(pid)
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        launch = Launch(argv=(sys.executable, "-c", FOREVER), env=dict(os.environ), cwd=Path("/"))
        for problem in (full, no_thread):
            monkeypatch.setattr(groups, "open_process", problem)
            with pytest.raises(OSError, match=r"Too many open files|can't start new thread"):
                await spawn(launch, "incarnation", lambda *_: None, lambda: None)
        assert 2 == len(pids)
        assert not any(map(is_alive, pids))

    asyncio.run(main())


def test_reserve_is_kept():
    """The last open files are the supervisor's own: a start fails before they are used."""

    async def main() -> None:
        launch = Launch(argv=("true",), env=dict(os.environ), cwd=Path("/"))
        with few_files(40), pytest.raises(OSError, match="Too many open files"):
            await spawn(launch, "incarnation", lambda *_: None, lambda: None)

    asyncio.run(main())


def test_limit_is_given_back():
    """The supervisor may open more files than before; what it starts may open as many as before."""
    code = """
import asyncio, os, resource, sys
from pathlib import Path
from pbus.process.system import open_files
from pbus.process.system.launch_plan import Launch
from pbus.process.system.spawn import spawn
open_files.raise_open_files()
async def main():
    child = await spawn(Launch(argv=("sleep", "600"), env=dict(os.environ), cwd=Path("/")),
                        "incarnation", lambda *_: None, lambda: None)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0],
          resource.prlimit(child.pid, resource.RLIMIT_NOFILE)[0])
    child.send_signal(9)
    await child.wait()
    child.close()
asyncio.run(main())
"""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = min(hard, 200)
    raised = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536

    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f'ulimit -Sn {before} && exec "$0" -c "$1"', sys.executable, code,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return (await process.communicate())[0]

    assert f"{raised} {before}".encode() == asyncio.run(main()).strip()


def test_background_tasks_survive_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An unexpected error of measuring, writing or telling is logged, and all goes on."""
    looks: list[int] = []

    def fail(self: UsageMeter, pids: list[int]) -> dict[int, object]:
        looks.append(len(pids))
        raise ZeroDivisionError("no figures")

    monkeypatch.setattr(UsageMeter, "measure", fail)
    monkeypatch.setattr("pbus.concurrency.background._RESTART_DELAY_S", 0.05)
    monkeypatch.setattr("pbus.process.project.log_writer.LogWriter.write", fail)
    monkeypatch.setattr("pbus.process.supervisor.reports.state_events.StateEventQueue.check", fail)
    what = topology(
        tmp_path, program("a", "import time; print('up', flush=True); time.sleep(600)", tmp_path)
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("up")
            await watched.nth(Ready)
            seen = len(looks)
            await until(lambda: len(looks) >= seen + 3)
            assert "ready" == watched.process("a").state
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_odd_words_cost_one_worker(tmp_path: Path):
    """What cannot be passed to any program is a failure of that worker alone."""
    what = topology(
        tmp_path,
        program("zero", "", tmp_path, command=("true", "a\0b")),
        program("name", "", tmp_path, env={"A=B": "c"}),
        program("steady", FOREVER, tmp_path),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            for name in ("zero", "name"):
                assert "cannot be started" in ((await watched.state(name, "failed")).error or "")
            await watched.state("steady", "ready")
            assert 0 == await watched.stop()

    asyncio.run(main())
