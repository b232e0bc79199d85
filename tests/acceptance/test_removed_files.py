"""Folders and files that are removed, or become read-only, while a project runs."""

import os
import shutil
from collections.abc import Iterator
from unittest import mock

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
workers:
  echo: {worker: "workers:Echo"}
  ticker: {command: [sh, -c, 'while :; do echo tick; sleep 0.2; done']}
"""
WORKERS = """
from pbus import BaseWorker, job

class Echo(BaseWorker):
    @job(name="echo")
    async def echo(self, request):
        return request.payload
"""

# Within a mount namespace of its own, for not even root's writes pass that.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project that answers jobs."""
    place = cli.place("vanishing", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    place.up()
    return place


def pids(place: Place) -> list[int]:
    """The processes of the workers."""
    return [row["pid"] for row in place.rows().values()]


@pytest.mark.parametrize(
    "backend",
    [
        "redis",
        pytest.param(
            "pgmq",
            marks=[
                pytest.mark.pgmq,
                pytest.mark.skipif(os.geteuid() == 0, reason="root's socket is elsewhere"),
            ],
        ),
    ],
)
def test_runtime_folder_is_made_again(cli: CliEnv, place: Place, backend: str):
    """Without its sockets a project is out of reach for a moment, and loses no worker by that."""
    if backend == "pgmq":
        files = {"topology.yaml": "bus: {backend: pgmq}" + TOPOLOGY, "workers.py": WORKERS}
        place = cli.place("vanishing-pgmq", files)
        place.up()
    before = pids(place)

    shutil.rmtree(cli.runtime)
    cli.runtime.touch()  # as long as nothing can be made there
    own = place.record_path().parent / "logs/supervisor.log"
    wait_for(lambda: "nothing new can reach the embedded broker" in own.read_text())
    cli.runtime.unlink()
    place.until(lambda rows: rows["echo"]["ready"])
    answer = place.ask("echo", "echo", {"text": "here"})

    assert {"text": "here"} == answer
    assert before == pids(place)
    assert 0o700 == (cli.runtime / "pbus").stat().st_mode & 0o777
    assert 0 == place.tell("restart", "echo").code
    if backend == "pgmq":
        assert 0 == place.tell("down").code


def test_files_are_made_again(place: Place):
    """A log that was removed, or moved away, is there again with the next line; so is the record."""
    state = place.record_path().parent
    ticks, own = state / "logs/workers/ticker.log", state / "logs/supervisor.log"
    wait_for(ticks.exists)

    ticks.unlink()
    wait_for(ticks.exists)
    ticks.rename(state / "moved")
    wait_for(ticks.exists)
    shutil.rmtree(state / "logs")
    wait_for(ticks.exists)
    place.record_path().unlink()
    wait_for(place.cli.records)
    key = (state / "key").read_text() if (state / "key").exists() else ""
    if key:
        (state / "key").unlink()
        wait_for((state / "key").exists)
        wait_for(lambda: key == (state / "key").read_text())
    assert 0 == place.tell("restart", "ticker").code

    assert "ticker" in own.read_text()
    assert "tick" in place.tell("logs", "ticker").out


@pytest.fixture
def read_only(place: Place) -> Iterator[None]:
    """What is told the project cannot write into its state folder."""
    state = place.cli.state
    if os.geteuid() == 0:
        through = ("unshare", "-m", "sh", "-c", READ_ONLY, str(state))
        with mock.patch.object(place.cli, "_through", through):
            yield
        return
    paths = [state, *state.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & 0o577)
    yield
    for path in paths:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.usefixtures("read_only")
def test_read_only_state_is_enough(place: Place):
    """Verbs that only look, or ask the supervisor, need not write into the state folder."""
    shown = place.tell("ps", "--json")

    assert ["echo", "ticker"] == [row["name"] for row in shown.json["workers"]]
    assert "tick" in place.tell("logs", "ticker").out
    assert ["vanishing"] == [row["name"] for row in place.tell("ls", "--json").json["projects"]]
    assert {"a": 1} == place.ask("echo", "echo", {"a": 1})
    assert 0 == place.tell("down").code
    assert 3 == place.tell("ps").code


def test_nothing_to_show_and_no_receiver(cli: CliEnv):
    """A project that never ran has no logs, one without workers no ears; a log may be a folder."""
    silent = "workers:\n  echo: {command: [echo, hi]}\n  idle: {command: [sleep, '600']}\n"
    place = cli.place("silent", {"topology.yaml": silent})
    never = place.run("logs")
    assert (3, True) == (never.code, "silent has never run here" in never.err), never.err

    place.up()
    sent = place.run("send", "--all", "--text", "hi")
    assert (1, True) == (sent.code, "reached no process: no worker is there" in sent.err), sent.err
    wait_for(lambda: "hi" in place.logs("echo"))
    assert 0 == place.tell("down").code
    (path,) = cli.state.glob("pbus/silent-*/logs/workers/idle.log")
    path.unlink(missing_ok=True)
    path.mkdir()
    place.up()
    shown = place.run("logs")
    assert (0, True) == (shown.code, "idle.log is a folder" in shown.err), shown.err
    assert "| hi" in shown.out
