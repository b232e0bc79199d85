"""Decisions about forks: which launches they may stand for, and what passes to them."""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pbus.process.forking.adoption import adopting_orphans
from pbus.process.forking.fork_messages import (
    ForkRequest,
    ZygoteSpec,
    receive,
    send,
    stamp,
    zygote_spec,
)
from pbus.process.forking.warm_starts import WarmStarts, can_fork
from pbus.process.system.container_init import is_subreaper
from pbus.process.system.launch_plan import (
    Launch,
    ProcessEnvironment,
    plan_launch,
    zygote_env,
)
from pbus.process.system.spawn import start_by_exec
from pbus.settings import BusSettings
from pbus.topology.model import Member, WorkerInstance, WorkerSpec

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")


def launch(env: dict[str, str], cwd: Path = Path("/")) -> Launch:
    return Launch(argv=("p",), env=env, cwd=cwd, spec=b"", is_forkable=True)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, True),
        ({"LOG_LEVEL": "debug", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "1"}, True),
        ({"PYTHONHASHSEED": "0"}, False),
        ({"PYTHONUNBUFFERED": "1"}, True),  # as the zygote has it
        ({"PYTHONUNBUFFERED": ""}, False),
        ({"PYTHONPATH": "/lib"}, False),
        ({"LD_PRELOAD": "x.so"}, False),
        ({"LC_ALL": "C"}, False),
        ({"HOME": "/other"}, False),
        ({"GLIBC_TUNABLES": "x=y"}, False),
        ({"": "nameless"}, False),
        ({"A=B": "c"}, False),
        ({"A": "nul\0"}, False),
        ({"A": "x" * 200_000}, False),  # exec tells that it is too long
        ({"A": "é" * 40_000}, False),  # in bytes
        ({f"A{n}": "x" * 60_000 for n in range(10)}, False),
    ],
)
def test_variables_that_need_an_exec(own, expected):
    """Those that an interpreter reads when it starts, where a worker's differ, and impossible ones."""
    env = {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "HOME": "/root"}
    assert expected == can_fork(launch({**env, **own}), env)


def test_a_variable_that_a_worker_lacks_needs_an_exec():
    """The zygote has started with it."""
    assert not can_fork(launch({}), {"LD_LIBRARY_PATH": "/lib"})


@pytest.mark.parametrize(
    ("path", "expected"), [("/a:/b", True), ("/a:b", False), ("/a:", False), ("", False)]
)
def test_relative_import_paths_need_an_exec(path, expected):
    """They begin at the worker's folder."""
    assert expected == can_fork(launch({"PYTHONPATH": path}), {"PYTHONPATH": path})


def test_a_missing_folder_needs_an_exec(tmp_path):
    """It has the error, with the text."""
    assert not can_fork(launch({}, tmp_path / "x"), {})
    assert can_fork(launch({}, tmp_path), {})


def around(**changes: Any) -> ProcessEnvironment:
    values: dict[str, Any] = {
        "bus": BusSettings(url="postgresql://db/x", channel="c"), "session": "s", "project": "app",
        "file": Path("/srv/topology.yaml"), "state": Path("/state"), "guard_token": "t1",
    }  # fmt: skip
    return ProcessEnvironment(**{**values, **changes})


def is_forkable(environment: ProcessEnvironment, **changes: Any) -> bool:
    values: dict[str, Any] = {
        "name": "a", "working_dir": Path("/srv"), "joins": True, "worker": "m:C", "start": "fork",
    }  # fmt: skip
    instance = WorkerInstance(name="a", spec=WorkerSpec(**{**values, **changes}))
    return plan_launch(instance, environment, "i", {}).is_forkable


def member(file: str) -> Member:
    return Member(name="b", group="b", worker="m:C", args={}, active=True, file=Path(file))


@on_linux
def test_workers_that_may_be_forked():
    """Hosted ones that say so; with preloaded modules those of the topology's own folder."""
    program: dict[str, Any] = {"worker": None, "command": ("p",)}
    assert is_forkable(around())
    assert not is_forkable(around(), start="exec")
    assert not is_forkable(around(), **program)
    assert is_forkable(around(), **program, stdio="jsonl")
    assert is_forkable(around(), file=Path("/lib/part.yaml"))

    preloading = around(preload=("m",))
    assert is_forkable(preloading)
    assert is_forkable(preloading, file=Path("/srv/part.yaml"))
    assert not is_forkable(preloading, file=Path("/lib/part.yaml"))
    assert not is_forkable(preloading, members=(member("/srv/a.yaml"), member("/lib/b.yaml")))


def test_no_fork_on_other_systems(monkeypatch):
    """There they are not safe."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not is_forkable(around())


def test_a_zygote_has_what_all_workers_have():
    """Inherited variables and those of the file, but of no worker, and none of an outer pbus."""
    inherited = {"PATH": "/bin", "A": "1", "PBUS_SPEC_FD": "7", "PBUS_REPLICA": "2"}
    environment = around(env={"A": "2", "B": "3"}, preload=("numpy",), loop="uvloop")
    expected = {
        "PYTHONUNBUFFERED": "1",
        "PATH": "/bin",
        "A": "2",
        "B": "3",
        "PBUS_GUARD_TOKEN": "t1",
    }
    assert expected == zygote_env(environment, inherited)

    spec = zygote_spec(environment)
    assert ("pbus.bus.pgmq", "uvloop") == spec.modules
    assert (("numpy",), "/srv/topology.yaml") == (spec.preload, spec.file)
    embedded = replace(environment, bus=BusSettings(url="unix:///v.sock", channel="c"))
    assert "pbus.bus.redis" in zygote_spec(embedded).modules


@on_linux
def test_messages_of_any_size():
    """Far more than a socket holds at once, with bytes that are no text, and open descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    env = {f"v{n}": "x" * 60_000 for n in range(100)} | {"odd": os.fsdecode(b"\xff")}
    request = ForkRequest(argv=("p",), env=env, cwd="/", parent=1)
    with ours, theirs:
        ours.settimeout(0)
        for _ in range(3):
            send(ours, request, [writing])
        os.close(writing)
        for number in range(3):
            got = receive(theirs, ForkRequest)
            assert got is not None
            assert request == got[0]
            (descriptor,) = got[1]
            assert not os.get_inheritable(descriptor)
            os.write(descriptor, b"%d" % number)
            os.close(descriptor)
        assert b"012" == os.read(reading, 9)
        ours.close()
        assert receive(theirs, ForkRequest) is None
    os.close(reading)


@on_linux
def test_orphans_are_adopted_within_a_block_only():
    """Blocks overlap, an error ends one as well, and the state before is back after the last."""

    def raise_within() -> None:
        with adopting_orphans():
            assert is_subreaper()
            raise KeyError

    assert not is_subreaper()
    with adopting_orphans():
        with pytest.raises(KeyError):
            raise_within()
        assert is_subreaper()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(is_subreaper()))
        thread.start()
        thread.join()
        assert [True] == seen
    assert not is_subreaper()


def test_changed_files_are_seen(tmp_path):
    """By their size, time or inode; a missing one has no stamp."""
    file = tmp_path / "m.py"
    assert stamp(str(file)) is None
    file.write_text("a = 1\n")
    first = stamp(str(file))
    os.utime(file, ns=(1, 1))
    assert first != stamp(str(file))
    second, other = stamp(str(file)), tmp_path / "n.py"
    other.write_text("a = 2\n")
    os.utime(other, ns=(1, 1))
    other.replace(file)
    assert second != stamp(str(file))
    assert stamp("nul\0") is None


def test_no_zygote_for_what_is_not_forked(tmp_path):
    """Nothing is started for a program, nor told."""

    async def main() -> None:
        notes: list[str] = []
        spec = ZygoteSpec(modules=(), preload=(), file=str(tmp_path / "t.yaml"))
        starts = WarmStarts(spec, {}, tmp_path / "no_folder" / "log")
        plain = Launch(argv=("p",), env={}, cwd=tmp_path)
        assert start_by_exec is await starts.starter(plain, notes.append)
        assert start_by_exec is await starts.starter(launch({"LD_X": "1"}), notes.append)
        assert [] == notes

        # One that is to be forked says why not, once: here there is no place for the log.
        for _ in range(2):
            assert start_by_exec is await starts.starter(launch({}), notes.append)
        (note,) = notes
        assert note.startswith("started by exec: ")
        await starts.close()

    asyncio.run(main())
