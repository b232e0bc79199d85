"""The guard on real processes: whatever happens to the supervisor, nothing is left."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pbus.errors import ProcessError, ProjectRunningError
from pbus.process.project.project import Project
from pbus.process.project.project_lock import (
    CLEANUP_S,
    ProjectLock,
    is_over,
    processes_of,
    token_of,
)
from pbus.process.services.guard_client import GuardClient
from pbus.process.system.groups import is_empty
from support.guard_fixture_program import (
    Supervisor,
    make_project,
    project_in,
    spawn_child,
    supervisors,
)
from support.waiting import PATIENCE_S, eventually

Start = Callable[..., Supervisor]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of its own."""
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def start(project: Project) -> Iterator[Start]:
    """Starts the stand-in for a supervisor with children of the given kinds."""
    with supervisors(project) as start:
        yield start


def is_gone(pid: int) -> bool:
    """Whether the process ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("kind", ["polite", "stubborn", "leaderless", "unannounced"])
def test_killed_supervisor_leaves_nothing(project: Project, start: Start, kind: str) -> None:
    """Whatever the children are like, no process, socket, folder, record or lock is left."""
    supervisor = start(kind)
    assert supervisor.valkey in supervisor.family
    assert (project.runtime_dir / "valkey.sock").is_socket()

    supervisor.kill()

    assert eventually(lambda: is_over(project))
    assert eventually(lambda: is_gone(supervisor.guard))
    assert [] == [pid for pid in supervisor.family if not is_gone(pid)]
    assert not project.runtime_dir.exists()
    assert not project.record_path.exists()


def test_guard_outlives_signals(project: Project, start: Start) -> None:
    """Signals that end other programs do not stop the guard from doing its work."""
    supervisor = start("polite")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        os.kill(supervisor.guard, number)

    supervisor.kill()

    assert eventually(lambda: is_over(project))
    assert [] == processes_of(project)


def test_lock_waits_for_guard(project: Project, start: Start) -> None:
    """Who gets the lock after a crash finds the place clean, at the first try."""
    supervisor = start("stubborn")
    with pytest.raises(ProjectRunningError) as refusal, ProjectLock(project):
        pass
    assert supervisor.process.pid == refusal.value.pid

    supervisor.kill()

    with ProjectLock(project):
        assert [] == processes_of(project)
        assert not project.runtime_dir.exists()


def test_lock_gives_up_in_time(project: Project, start: Start) -> None:
    """A guard that takes too long is reported, not waited for without end."""
    supervisor = start("polite")
    os.kill(supervisor.guard, signal.SIGSTOP)  # it takes as long as we like
    supervisor.kill()

    started = time.monotonic()
    try:
        with pytest.raises(ProcessError, match="cleaned up"), ProjectLock(project, timeout=0.2):
            pass
    finally:
        os.kill(supervisor.guard, signal.SIGCONT)

    assert time.monotonic() - started < CLEANUP_S  # as long as it waits when not told
    assert eventually(lambda: is_over(project))


def test_children_inherit_no_pipes(project: Project, start: Start) -> None:
    """No child holds the pipe to the guard (it would never see the end) or the lock."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    supervisor = start("polite", "leaderless")

    held = _descriptors(supervisor.process.pid)
    guard = _descriptors(supervisor.guard)
    children = set().union(*(_descriptors(process.pid) for process in processes_of(project)))

    supervisor.kill()
    lock = str(project.state_dir / "lock")
    assert {lock} <= held & guard
    assert set() == {link for link in held & children if link.startswith(("pipe:", "socket:"))}
    assert lock not in children
    assert eventually(lambda: is_over(project))


def test_next_start_ends_leftovers(project: Project, start: Start) -> None:
    """Where supervisor and guard were both killed, the next supervisor's guard finds the rest."""
    supervisor = start("polite", "leaderless")
    os.kill(supervisor.guard, signal.SIGKILL)
    supervisor.kill()
    assert eventually(lambda: is_over(project))
    assert len(processes_of(project)) == 3

    async def main() -> None:
        async with ProjectLock(project):
            guard = GuardClient()
            await guard.start(project)
            assert [] == processes_of(project)
            await guard.stop()

    asyncio.run(main())


def test_stop_ends_the_rest(project: Project) -> None:
    """An orderly stop of the guard ends what is left and removes what it was told of."""

    async def main() -> tuple[int, int]:
        async with ProjectLock(project):
            guard = GuardClient()
            await guard.start(project)
            child = spawn_child("polite", guard.token)
            guard.add_group(child.pid)
            guard.add_path(project.folder / "some file\n")
            (project.folder / "some file\n").touch()
            await guard.stop()
            await guard.stop()
            return child.wait(PATIENCE_S), await guard.wait_died()

    assert (-signal.SIGTERM, 0) == asyncio.run(main())
    assert not (project.folder / "some file\n").exists()


def test_restarted_guard_knows_all(project: Project) -> None:
    """A guard that was killed is started again and told again; our own children live on."""

    async def main() -> None:
        async with ProjectLock(project):
            guard = GuardClient()
            await guard.start(project)
            child, other = spawn_child("polite", ""), spawn_child("polite", guard.token)
            guard.add_group(child.pid)
            os.kill(guard.pid, signal.SIGKILL)
            assert -signal.SIGKILL == await asyncio.wait_for(guard.wait_died(), PATIENCE_S)
            guard.add_group(other.pid)
            await guard.start(project)
            assert child.poll() is None
            assert other.poll() is None
            await guard.stop()
            assert is_empty(child.pid)
            assert (-signal.SIGTERM, -signal.SIGTERM) == (
                child.wait(PATIENCE_S),
                other.wait(PATIENCE_S),
            )

    asyncio.run(main())


def test_foreign_groups_are_spared(project: Project) -> None:
    """A group that was forgotten, or whose number another program has now, is left alone."""

    async def main() -> list[int | None]:
        async with ProjectLock(project):
            guard = GuardClient()
            await guard.start(project)
            children = [spawn_child("polite", ""), spawn_child("polite", "")]
            guard.add_group(children[0].pid)
            guard.remove_group(children[0].pid)
            guard._send_group(children[1].pid, 12345.0)
            await guard.stop()
            codes = [child.poll() for child in children]
            for child in children:
                child.kill()
                child.wait(PATIENCE_S)
            return codes

    assert [None, None] == asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_other_users_are_spared(project: Project) -> None:
    """Not even root ends another user's process by the token, wherever that has it from."""

    async def main() -> int | None:
        async with ProjectLock(project):
            guard = GuardClient()
            await guard.start(project)
            mine = spawn_child("polite", guard.token)
            other = spawn_child("polite", guard.token, user=65534)
            await guard.stop()
            assert -signal.SIGTERM == mine.wait(PATIENCE_S)
            code = other.poll()
            other.kill()
            other.wait(PATIENCE_S)
            return code

    assert asyncio.run(main()) is None


def test_token_is_a_secret(project: Project) -> None:
    """No two projects have one token, it stays over runs, and only its user can read it."""
    namesake = project_in(project.folder / "..")
    with ProjectLock(project), ProjectLock(namesake):
        first = token_of(project)
        assert first != token_of(namesake)
    with ProjectLock(project):
        assert first == token_of(project)
    assert len(first) * 4 >= 128
    assert 0o600 == (project.state_dir / "lock").stat().st_mode & 0o777


def test_copied_state_ends_none(
    project: Project, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state folder that was copied while its project ran leads to none of its processes."""
    supervisor = start("polite")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "copy"))
    copied = project_in(project.folder)

    async def main() -> None:
        async with ProjectLock(copied):
            guard = GuardClient()
            await guard.start(copied)
            await guard.stop()

    asyncio.run(main())

    assert [] == [pid for pid in supervisor.family if is_gone(pid)]


def test_bad_line_is_survived(project: Project) -> None:
    """A line that the guard does not understand keeps it from ending no other group."""

    async def main() -> int:
        async with ProjectLock(project):
            guard = GuardClient()
            await guard.start(project)
            child = spawn_child("polite", "")
            for line in ("group x", "group", "path zz", "", "dance"):
                guard._send(line)
            guard.add_group(child.pid)
            await guard.stop()
            return child.wait(PATIENCE_S)

    assert -signal.SIGTERM == asyncio.run(main())


def test_leaked_pipe_keeps_nothing_alive(project: Project) -> None:
    """Another holder of the pipe does not make the guard believe that we run."""
    script = """
import os, subprocess, sys
read, write = os.pipe()
guard = subprocess.Popen([sys.executable, "-P", "-m", "pbus.process.system.guard", str(os.getpid())],
    stdin=read, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
guard.stdout.readline()
quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
holder = subprocess.Popen(["sleep", "300"], pass_fds=[write], **quiet)
print(guard.pid, holder.pid, flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20
    )
    guard, holder = map(int, done.stdout.split())

    try:
        assert eventually(lambda: is_gone(guard))
        assert not is_gone(holder)
    finally:
        os.kill(holder, signal.SIGKILL)


def test_guard_is_light(project: Project) -> None:
    """The guard costs little memory: it is there for every project, all the time."""

    async def main() -> int:
        guard = GuardClient()
        await guard.start(project)
        rss = psutil.Process(guard.pid).memory_info().rss
        await guard.stop()
        return rss

    assert asyncio.run(main()) < 20 * 1024 * 1024


def _descriptors(pid: int) -> set[str]:
    links = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.add(str(entry.readlink()))
    return links
