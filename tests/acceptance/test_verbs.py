"""Controlling single workers, following their states, listing projects, initial projects."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.completion import completion_init

from support.cli_env import PBUS, CliEnv, Place, Rows, wait_for
from support.command_result import Done
from support.in_process_cli import run_inside
from support.valkey import Valkey

pytestmark = pytest.mark.cli

CHANGE = ["time", "project", "worker", "state", "previous", "pid", "detail"]
PROJECT = ["name", "folder", "file", "pid", "ready", "workers", "uptime_s", "bus"]
PROGRAM = """
import time
time.sleep(600)
"""
WORKERS_TOPOLOGY = f"""
name: kitchen
workers:
  cook: {{worker: "workers:Cook"}}
  bell: {{command: [{sys.executable}, bell.py], replicas: 2}}
"""
WORKERS = """
from pathlib import Path

from pbus import BaseWorker, job

class Cook(BaseWorker):
    def __init__(self, name):
        super().__init__(name)
        if Path("broken").exists():
            raise OSError("no stove")

    @job(name="cook")
    async def cook(self, request):
        return {"dish": "soup"}

    @job(name="clean")
    async def clean(self, request):
        return {}
"""


@pytest.fixture(scope="module")
def kitchen(cli: CliEnv) -> Place:
    """A project with a class and two programs; tests but the last leave all of them running."""
    files = {"topology.yaml": WORKERS_TOPOLOGY, "workers.py": WORKERS, "bell.py": PROGRAM}
    place = cli.place("kitchen", files)
    place.up()
    return place


@pytest.fixture(scope="module")
def twins(cli: CliEnv) -> Iterator[list[Place]]:
    """One topology brought up by two supervisors on one broker, as if on two hosts."""
    text = "name: twins\nbus: {{url: '{url}'}}\nworkers:\n  x: {{command: [{python}, bell.py], replicas: 2}}\n"
    with Valkey() as broker:
        files = {
            "topology.yaml": text.format(url=broker.url, python=sys.executable),
            "bell.py": PROGRAM,
        }
        places = [cli.place("east", files), cli.place("west", files)]
        places[0].up("--only", "x.1")
        places[1].up("--only", "x.2")
        yield places
        for place in places:
            place.tell("down")


def pids(place: Place) -> dict[str, int]:
    """The processes of the workers."""
    return {name: row["pid"] for name, row in place.rows().items()}


def are_ready(rows: Rows) -> bool:
    """Whether all are; what was answered is in the broker a moment later."""
    return {"ready"} == {row["state"] for row in rows.values()}


def test_restart_brings_new_processes(kitchen: Place):
    """All replicas of a name; returns when they are ready; says what it did; others go on."""
    before = pids(kitchen)
    done = kitchen.run("restart", "bell")
    rows = kitchen.until(lambda rows: are_ready(rows) and rows["bell.2"]["pid"] != before["bell.2"])
    after = {name: row["pid"] for name, row in rows.items()}

    assert (0, "") == (done.code, done.out)
    assert before["cook"] == after["cook"]
    for name in ("bell.1", "bell.2"):
        assert before[name] != after[name]
        assert f"{name} was restarted (pid {after[name]})" in done.err


def test_stop_holds_down(kitchen: Place):
    """A worker that was stopped stays so until it is started; both may be said twice."""
    stopped = kitchen.run("stop", "bell.*", "cook")
    assert 0 == stopped.code
    kitchen.until(lambda rows: {"exited"} == {row["state"] for row in rows.values()})
    assert "cook has stopped (exited with code 0)" in stopped.err
    assert "bell.2 has stopped (was killed by SIGTERM)" in stopped.err
    again = kitchen.tell("stop", "bell.1")
    assert (0, "bell.1 was not running\n") == (again.code, again.err)

    started = kitchen.run("start", "cook", "bell")
    assert 0 == started.code
    rows = kitchen.until(are_ready)
    assert {"dish": "soup"} == kitchen.ask("cook", "cook")
    again = kitchen.tell("start", "cook")
    assert (0, f"cook was running already (pid {rows['cook']['pid']})\n") == (again.code, again.err)


def test_unknown_names_change_nothing(kitchen: Place):
    """Exit code 2 with the nearest name, before anybody is ordered about."""
    before = pids(kitchen)
    wrong, strange = kitchen.tell("restart", "cook", "bel"), kitchen.tell("stop", "x*")

    assert (2, 2) == (wrong.code, strange.code)
    assert "there is no worker 'bel'; did you mean 'bell'?" in wrong.err
    assert "there are: bell, bell.1, bell.2, cook" in strange.err
    assert 2 == kitchen.tell("start").code
    assert before == pids(kitchen)


def test_failed_restart_is_told(kitchen: Place):
    """A worker that does not come back: exit code 1 and its last words."""
    broken = kitchen.folder / "broken"
    broken.touch()
    try:
        done = kitchen.tell("restart", "cook", "bell.1")
    finally:
        broken.unlink()

    assert 1 == done.code
    (failed,) = [line for line in done.err.splitlines() if line.startswith("cook failed: ")]
    assert "no stove" in failed
    assert "bell.1 was restarted" in done.err
    assert "error: not restarted: cook\n" in done.err
    # An incarnation that began before the stove was mended may have to fail first.
    wait_for(lambda: kitchen.tell("start", "cook").code == 0)


def test_late_restart_goes_on(kitchen: Place):
    """When time is up, exit code 4 and who is late; the order stands all the same."""
    before = pids(kitchen)["cook"]
    done = kitchen.tell("restart", "cook", "--timeout", "0.05")

    assert 4 == done.code
    assert "cannot restart within 0.05 s: cook" in done.err
    kitchen.until(lambda rows: rows["cook"]["ready"] and rows["cook"]["pid"] != before)


def test_orders_reach_all_hosts(twins: list[Place]):
    """Names spread over two supervisors go to each, from whatever terminal."""
    rows = twins[0].until(lambda rows: {"x.1", "x.2"} == set(rows) and are_ready(rows))
    before = {name: row["pid"] for name, row in rows.items()}
    done = twins[0].tell("restart", "x")

    assert 0 == done.code, done.err
    old = set(before.values())
    twins[1].until(lambda rows: are_ready(rows) and not old & {row["pid"] for row in rows.values()})
    assert 0 == twins[1].tell("stop", "x.1").code
    states = {"x.1": "exited", "x.2": "ready"}
    twins[0].until(lambda rows: states == {name: row["state"] for name, row in rows.items()})
    assert 0 == twins[0].tell("start", "*").code


def test_changes_are_followed(kitchen: Place):
    """`events` prints a line a change as it happens, until it is interrupted."""
    json_lines, lines = kitchen.start("events", "--json"), kitchen.start("events")
    # Only what happens from now on is told: change something until both listen.
    wait_for(lambda: kitchen.tell("restart", "bell.1") and json_lines.out and lines.out)
    row = kitchen.rows()["bell.2"]
    os.kill(row["pid"], signal.SIGKILL)
    for follower in (json_lines, lines):
        follower.until("restarts in")
    kitchen.until(lambda rows: rows["bell.2"]["ready"] and rows["bell.2"]["pid"] != row["pid"])
    changes, text = json_lines.end(), lines.end()

    assert (130, 130) == (changes.code, text.code)
    assert [CHANGE] * len(changes.objects) == [list(change) for change in changes.objects]
    assert {"kitchen"} == {change["project"] for change in changes.objects}
    killed = [one for one in changes.objects if one["state"] == "backoff"]
    assert [("bell.2", "ready", row["pid"], "was killed by SIGKILL, restarts in 0.5 s")] == [
        (one["worker"], one["previous"], one["pid"], one["detail"]) for one in killed
    ]
    assert any(
        ["bell.2", "ready", "→", "backoff"] == line.split()[1:5] for line in text.out.splitlines()
    )


def test_following_changes_ends(kitchen: Place):
    """After so many changes with `-n`, after some time with `--for`."""
    counted = kitchen.start("events", "--json", "-n", "2")
    wait_for(lambda: kitchen.tell("restart", "bell.1") and counted.process.poll() is not None)
    done = counted.done()
    began = time.monotonic()
    timed = kitchen.run("events", "--for", "0.5s")

    assert (0, 2) == (done.code, len(done.objects))
    assert (0, "") == (timed.code, timed.out)
    assert 0.5 <= time.monotonic() - began


def test_following_costs_workers_nothing(kitchen: Place):
    """No worker is sent the changes: a tap on all messages to it sees none of them."""
    tap = kitchen.start("tail", "--json", "--type", "WorkerState", "-n", "3")
    before = kitchen.rows()["cook"]["received"]
    wait_for(lambda: kitchen.tell("restart", "bell.1") and tap.process.poll() is not None)
    done = tap.done()

    assert {"~states"} == {message["target"] for message in done.objects}
    assert before == kitchen.rows()["cook"]["received"]


def test_projects_are_listed(kitchen: Place, twins: list[Place]):
    """All that run on this machine, from any folder."""
    east = twins[0]
    kitchen.until(are_ready)

    def list_all() -> Done | None:
        done = east.tell("ls", "--json")
        # A broker that takes over 1.5 s, on a busy machine, leaves its project without workers.
        return done if all(one["workers"] for one in done.json["projects"]) else None

    listed, table = wait_for(list_all), east.run("ls")

    assert (0, 0) == (listed.code, table.code)
    projects = {project["folder"]: project for project in listed.json["projects"]}
    assert [PROJECT] * len(projects) == [list(project) for project in projects.values()]
    mine, own = projects[str(kitchen.folder)], projects[str(east.folder)]
    assert ("kitchen", 3, 3, kitchen.record()["pid"]) == tuple(
        mine[key] for key in ("name", "ready", "workers", "pid")
    )
    assert (str(kitchen.folder / "topology.yaml"), kitchen.record()["url"]) == (
        mine["file"],
        mine["bus"],
    )
    assert ("twins", 1, 1) == (own["name"], own["ready"], own["workers"])
    heading, *lines = table.out.splitlines()
    assert ["NAME", "READY", "UPTIME", "PID", "FOLDER", "BUS"] == heading.split()
    assert ["kitchen", "3/3"] in [line.split()[:2] for line in lines]


def completed(place: Place, *words: str) -> list[str]:
    """What a shell offers for the last word."""
    asking = {
        "_PBUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("pbus", *words)),
        "COMP_CWORD": str(len(words)),
    }
    completion_init()
    done = run_inside((), place.folder, {**place.cli.environ, **asking})
    assert (0, "") == (done.code, done.err)
    return done.out.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("restart", ""), ["bell", "bell.1", "bell.2", "cook"]),
        (("stop", "bell", "c"), ["cook"]),
        (("send", "cook", "--job", ""), ["clean", "cook"]),
        (("send", "bell", "--job", ""), []),
        (("tail", "--source", "bell."), ["bell.1", "bell.2"]),
        (("tail", "--type", "BusEnd"), ["BusEndMessage", "BusEndWorkerMessage"]),
        (("-p", "ki"), ["kitchen"]),
    ],
)
def test_live_names_complete(kitchen: Place, words: tuple[str, ...], expected: list[str]):
    """Workers, replicas, jobs and projects as they are now."""
    # On a busy machine the broker may answer too late for a prompt: then nothing is offered.
    assert wait_for(lambda: completed(kitchen, *words) == expected)


def test_bash_completes(kitchen: Place):
    """The script, in a real bash."""
    script = (
        f'eval "$("{PBUS}" completion bash)"; PATH="{Path(PBUS).parent}:$PATH"\n'
        "COMP_WORDS=(pbus start c); COMP_CWORD=2; _pbus_completion pbus c start\n"
        'echo "${COMPREPLY[@]}"\n'
    )

    def offered() -> str:
        done = subprocess.run(
            ["bash", "-c", script], cwd=kitchen.folder, env=kitchen.cli.environ, capture_output=True,
            text=True, timeout=30,
        )  # fmt: skip
        return done.stdout.strip()

    assert "cook" == wait_for(offered)


def test_last_changes_are_followed(kitchen: Place):
    """What changes while a project goes down is told, too; then following ends."""
    follower = kitchen.start("events", "--json")
    wait_for(lambda: kitchen.tell("restart", "bell.1") and follower.out)
    kitchen.run("down")
    done = follower.done()

    assert 0 == done.code
    assert done.err.endswith("kitchen has stopped\n")
    for worker in ("cook", "bell.1", "bell.2"):
        states = [one["state"] for one in done.objects if one["worker"] == worker]
        assert ["stopping", "exited"] == states[-2:]
