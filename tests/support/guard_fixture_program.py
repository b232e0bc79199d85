"""A stand-in for the supervisor, to be killed: guard, server and some children of bad manners.

Run as a program: ``python guard_fixture_program.py FOLDER KIND...``; says its pids as one line of JSON.
The kind "deaf" is the stand-in itself, not minding SIGTERM.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock, processes_of, token_of
from pbus.process.project.record import ProjectRecord
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.valkey import EmbeddedValkey
from pbus.process.system.groups import TOKEN_VARIABLE, end_all
from pbus.settings import BusSettings
from support.waiting import eventually

CHILDREN = {
    "polite": "exec sleep 300",
    "stubborn": "trap '' TERM; sleep 300 & exec sleep 300",
    "leaderless": "sleep 300 & exit 0",
    "unannounced": "trap '' TERM; sleep 300 & exec sleep 300",
}
MEMBERS = {"polite": 1, "stubborn": 2, "leaderless": 1, "unannounced": 2, "deaf": 0}


def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose state is in the test's folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return project_in(tmp_path)


def project_in(folder: Path) -> Project:
    """The project of a folder."""
    return Project("guarded", folder, folder / "topology.yaml")


def record_of(project: Project, **fields: object) -> ProjectRecord:
    """A record as this process would write it."""
    return ProjectRecord(
        name=project.name,
        folder=str(project.folder),
        file=str(project.file),
        session="s",
        bus=BusSettings(url="redis://user:secret@host:6379", channel="pbus:guarded"),
        **fields,
    )


def spawn_child(kind: str, token: str, user: int | None = None) -> subprocess.Popen[bytes]:
    """A child in a group of its own."""
    return subprocess.Popen(
        ["sh", "-c", CHILDREN[kind]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, TOKEN_VARIABLE: token},
        user=user,
        start_new_session=True,
    )


class Supervisor:
    """The stand-in, running."""

    def __init__(self, project: Project, *kinds: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(project.folder), *kinds],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        pids = json.loads(self.process.stdout.readline())
        self.guard: int = pids["guard"]
        self.valkey: int = pids["valkey"]
        expected = 1 + sum(MEMBERS[kind] for kind in kinds)
        assert eventually(lambda: len(processes_of(project)) == expected)
        self.family = {process.pid for process in processes_of(project)}

    def kill(self) -> None:
        """As the kernel does it when memory is short."""
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@contextlib.contextmanager
def supervisors(project: Project) -> Iterator[Callable[..., Supervisor]]:
    """A function that starts the stand-in; what is left in the end is killed."""
    started = []

    def start(*kinds: str) -> Supervisor:
        started.append(Supervisor(project, *kinds))
        return started[-1]

    try:
        yield start
    finally:
        for supervisor in started:
            supervisor.kill()
        end_all({}, token_of(project), grace_s=0, kill_s=5)


async def main(folder: Path, kinds: list[str]) -> None:
    """Start everything, say so, and wait to be killed."""
    project = project_in(folder)
    async with ProjectLock(project):
        guard = GuardClient()
        await guard.start(project)
        valkey = EmbeddedValkey(project, guard)
        await valkey.start()
        project.write_record(record_of(project))
        if "deaf" in kinds:
            kinds.remove("deaf")
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, bool)
        for kind in kinds:
            child = spawn_child(kind, token_of(project))
            if kind != "unannounced":
                guard.add_group(child.pid)
            if kind == "leaderless":
                child.wait(10)
        sys.stdout.write(json.dumps({"guard": guard.pid, "valkey": valkey.process.pid}) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
