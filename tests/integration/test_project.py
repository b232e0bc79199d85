"""Projects on the real file system and among real processes: lock, record, stopping, folders."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from pbus.errors import (
    NothingRunningError,
    OrphanedProjectError,
    ProcessError,
    ProjectRunningError,
)
from pbus.process.project import stopping
from pbus.process.project.discovery import choose_project, running_projects
from pbus.process.project.folders import runtime_roots
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock, is_held, is_over, lock_path, processes_of
from pbus.process.project.record import LAST, read_record, write_last
from pbus.process.project.stopping import end_orphans, stop_project
from pbus.process.system import groups
from pbus.process.system.groups import start_time
from support.guard_fixture_program import (
    Supervisor,
    make_project,
    project_in,
    record_of,
    supervisors,
)
from support.waiting import PATIENCE_S, eventually


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of its own."""
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor gets no time beyond what its jobs get."""
    monkeypatch.setattr(stopping, "STOPPED_S", 0.0)


@pytest.fixture
def start(project: Project) -> Iterator[Callable[..., Supervisor]]:
    """Starts the stand-in for a supervisor with children of the given kinds."""
    with supervisors(project) as start:
        yield start


TRY_LOCK = """
import sys, time
from pathlib import Path
from pbus.errors import ProjectRunningError
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock
folder = Path(sys.argv[1])
try:
    with ProjectLock(Project("guarded", folder, folder / "topology.yaml")):
        print("taken", flush=True)
        sys.stdin.read()
except ProjectRunningError as error:
    print("refused", error.pid, flush=True)
"""


def try_lock(project: Project) -> subprocess.Popen[str]:
    """Another process that tries to lock the project, and holds it until its stdin closes."""
    return subprocess.Popen(
        [sys.executable, "-c", TRY_LOCK, str(project.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_second_locker_is_refused(project: Project) -> None:
    """The second one is told at once who has the project, in this process or another."""
    second = project_in(project.folder)
    with ProjectLock(project):
        with pytest.raises(ProjectRunningError) as refusal, ProjectLock(second, timeout=1000):
            pass
        out, _ = try_lock(project).communicate(timeout=20)

    assert os.getpid() == refusal.value.pid
    assert f"refused {os.getpid()}\n" == out


def test_one_of_many_wins(project: Project) -> None:
    """Of several that start together exactly one gets the project, the others name it."""
    crowd = [try_lock(project) for _ in range(5)]
    answers = {process.pid: process.stdout.readline().split() for process in crowd}
    for process in crowd:
        process.communicate(timeout=20)

    winner = next(pid for pid, answer in answers.items() if answer == ["taken"])
    losers = [answer for pid, answer in answers.items() if pid != winner]
    assert [["refused", str(winner)]] * 4 == losers


def test_lock_is_free_again(project: Project) -> None:
    """After an orderly end, and after a kill, the next one gets it."""
    with ProjectLock(project):
        pass
    with ProjectLock(project):
        assert not is_over(project)
    other = try_lock(project)
    assert "taken\n" == other.stdout.readline()
    other.kill()
    other.communicate(timeout=20)

    with ProjectLock(project):
        pass
    assert is_over(project)


def test_async_lock_waits_politely(project: Project) -> None:
    """Waiting for the lock does not block the loop, and can be cancelled."""
    project.make_state_dir()

    async def main() -> int:
        ticks = 0
        with ProjectLock(project):
            os.truncate(project.state_dir / "lock", 0)  # as if a guard alone held it
            waiting = asyncio.create_task(ProjectLock(project_in(project.folder)).__aenter__())
            while ticks < 5:
                await asyncio.sleep(0.02)
                ticks += 1
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with ProjectLock(project):
            return ticks

    assert 5 == asyncio.run(main())


def test_removed_lock_is_not_taken(project: Project) -> None:
    """Who waits for a lock that a purge removes gets the next one, which others see."""
    project.make_state_dir()
    with lock_path(project).open("w") as removed:
        fcntl.flock(removed, fcntl.LOCK_EX)
        waiting = ProjectLock(project)
        attempts = waiting._attempts()
        next(attempts)
        shutil.rmtree(project.state_dir)
    assert [] == list(attempts)
    assert is_held(project)
    waiting.__exit__(None, None, None)


def test_record_is_private(project: Project) -> None:
    """The record holds a password: no other user may read it, and it is not shown."""
    with ProjectLock(project):
        project.write_record(record_of(project))
        project.write_record(record_of(project))
        record = project.read_record()
        mode = project.record_path.stat().st_mode & 0o777

    assert 0o600 == mode
    assert 0o700 == project.state_dir.stat().st_mode & 0o777
    assert "redis://user:secret@host:6379" == record.bus.url
    assert "secret" not in repr(record)
    assert project.read_record() is None


def test_last_run_keeps_no_secret(project: Project) -> None:
    """What leads to the data of a project that is down has neither password nor key."""
    project.make_state_dir()
    record = record_of(project)
    keyed = structs.replace(record, bus=structs.replace(record.bus, key="geheim"))
    write_last(project.state_dir, keyed, is_own_broker=False)
    text = (project.state_dir / LAST).read_text()
    assert [True, False, False] == ["host:6379" in text, ":secret" in text, "geheim" in text]
    assert project == Project.of_record(read_record(project.state_dir / LAST))


def test_running_projects_are_found(project: Project, tmp_path: Path) -> None:
    """Those whose supervisor holds the lock are listed, by name and folder."""
    (tmp_path / "b").mkdir()
    other = project_in(tmp_path / "b")
    with ProjectLock(project), ProjectLock(other):
        project.write_record(record_of(project))
        other.write_record(record_of(other))
        found = running_projects()
        chosen = choose_project("guarded", None, other.folder)

    assert [str(project.folder), str(other.folder)] == [record.folder for record in found]
    assert str(other.folder) == chosen.folder
    assert [] == running_projects()


@pytest.mark.parametrize("fields", [{}, {"pid_created": 1.0}, {"pid": 2**22 + 1}])
def test_stale_record_is_removed(project: Project, fields: dict[str, float]) -> None:
    """A record without a held lock is not believed, whatever pid it names."""
    project.make_state_dir()
    project.write_record(record_of(project, **fields))

    assert [] == running_projects()
    assert eventually(lambda: is_over(project))
    assert not project.record_path.exists()


def test_reused_pid_is_not_believed(project: Project) -> None:
    """While a guard still cleans up, another program with the supervisor's pid is not it."""
    with ProjectLock(project):
        project.write_record(record_of(project, pid_created=start_time(os.getpid()) - 100))

        assert [] == running_projects()
        assert project.record_path.exists()


def test_process_that_ends_while_it_is_looked_at_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pbus down` looks at a supervisor until it has ended: any moment may be that of its end."""
    with subprocess.Popen(["sleep", "300"]) as process:
        started = start_time(process.pid)
        assert groups.is_same_process(process.pid, started)

        def end_after_it(pid: int) -> float | None:
            seen = start_time(pid)
            process.kill()
            process.wait()
            return seen

        monkeypatch.setattr(groups, "start_time", end_after_it)
        assert not groups.is_same_process(process.pid, started)


def test_broken_record_is_no_project(project: Project) -> None:
    """Half a record is reported in the log and ignored; the next start replaces it."""
    project.make_state_dir()
    project.record_path.write_text('{"name": "guar')

    assert [] == running_projects()
    with ProjectLock(project):
        assert not project.record_path.exists()


def test_orderly_stop(project: Project, start: Callable[..., Supervisor]) -> None:
    """A project is stopped from outside, and when that returns all of it is gone."""
    supervisor = start("polite")
    record = choose_project(None, project.file, Path("/"))
    assert supervisor.process.pid == record.pid

    assert asyncio.run(stop_project(record, PATIENCE_S)) is True

    assert [] == processes_of(project)
    assert not project.runtime_dir.exists()
    with pytest.raises(NothingRunningError):
        choose_project(None, project.file, Path("/"))
    assert asyncio.run(stop_project(record, PATIENCE_S)) is True


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_other_users_supervisor_is_spared(project: Project) -> None:
    """Not even root stops what another user runs, whatever a record says."""
    project.make_state_dir()
    with subprocess.Popen(["sleep", "300"], user=65534) as other:
        fields = {"pid": other.pid, "pid_created": start_time(other.pid)}
        with pytest.raises(ProcessError, match="belongs to user id 65534"):
            asyncio.run(stop_project(record_of(project, **fields), 0.3))
        assert other.poll() is None
        assert not (project.state_dir / "stop_timeout").exists()
        other.kill()


@pytest.mark.usefixtures("impatient")
def test_deaf_supervisor_is_killed(project: Project, start: Callable[..., Supervisor]) -> None:
    """A supervisor that does not mind is killed, its guard ends the rest, and we say so."""
    start("deaf", "leaderless")
    record = choose_project("guarded", None, Path("/"))

    assert asyncio.run(stop_project(record, 0.3)) is False

    assert [] == processes_of(project)
    assert not project.runtime_dir.exists()


@pytest.mark.usefixtures("impatient")
def test_deaf_and_guardless_too(project: Project, start: Callable[..., Supervisor]) -> None:
    """With its guard gone as well, the stop itself ends what is left."""
    supervisor = start("deaf", "leaderless")
    os.kill(supervisor.guard, 9)

    assert asyncio.run(stop_project(project.read_record(), 0.3)) is False

    assert [] == processes_of(project)
    assert not project.runtime_dir.exists()
    with ProjectLock(project):
        pass


def test_orphans_are_found(project: Project, start: Callable[..., Supervisor]) -> None:
    """Killed together with its guard a project still leads to its processes; `down` ends them."""
    supervisor = start("leaderless")
    os.kill(supervisor.guard, 9)
    os.kill(supervisor.process.pid, 9)
    assert eventually(lambda: is_over(project))

    for _ in range(2):  # looking takes nothing away
        with pytest.raises(OrphanedProjectError, match="no supervisor any more") as caught:
            choose_project("guarded", None, Path("/"))
    asyncio.run(end_orphans(caught.value.record))

    assert [] == processes_of(project)
    assert not project.runtime_dir.exists()
    with pytest.raises(NothingRunningError):
        choose_project("guarded", None, Path("/"))


def test_runtime_folder_is_private(project: Project) -> None:
    """The folder for sockets is ours alone, also where it lay about with open doors."""
    project.make_runtime_dir()
    project.runtime_dir.chmod(0o777)
    project.make_runtime_dir()

    assert 0o700 == project.runtime_dir.stat().st_mode & 0o777
    assert 0o700 == project.runtime_dir.parent.stat().st_mode & 0o777
    project.runtime_dir.rmdir()


def test_planted_folder_is_refused(project: Project, tmp_path: Path) -> None:
    """A link or a file planted in `/tmp` in place of our folder is not used."""
    project.make_runtime_dir()
    project.runtime_dir.rmdir()
    for plant in (lambda path: path.symlink_to(tmp_path), Path.touch):
        plant(project.runtime_dir)
        with pytest.raises(ProcessError, match=r"cannot use the folder .*XDG_RUNTIME_DIR"):
            project.make_runtime_dir()
        project.runtime_dir.unlink()


def test_foreign_folder_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another user is not used."""
    project.make_runtime_dir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with pytest.raises(ProcessError, match="belongs to user id"):
        project.make_runtime_dir()

    project.runtime_dir.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into others' folders")
@pytest.mark.parametrize("is_open", [False, True])
def test_root_writes_to_no_folder_that_others_can_exchange(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    """With `sudo` the state folder may be another user's, who could put links in root's way."""
    theirs = tmp_path / "theirs"
    place = theirs / "place"
    place.mkdir(parents=True)
    if is_open:
        theirs.chmod(0o777)
    else:
        os.chown(theirs, 65534, 65534)
    for variable in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(place))

    with pytest.raises(ProcessError, match=f"{theirs}, and pbus runs as root.*XDG_STATE_HOME"):
        Project(project.name, project.folder, project.file).make_state_dir()
    assert [] == list(place.iterdir())
    assert place / "pbus" not in runtime_roots()

    os.chown(theirs, 0, 0)
    theirs.chmod(0o1777)  # as /tmp is: what is root's stays in its place
    Project(project.name, project.folder, project.file).make_state_dir()
    assert place / "pbus" in runtime_roots()


def test_readonly_state_is_reported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder that cannot be is an error that says what to set."""
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")

    with pytest.raises(ProcessError, match="XDG_STATE_HOME"), ProjectLock(project):
        pass
