"""`pbus doctor`: with and without a project, on own and foreign brokers."""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.command_result import Done
from support.rights import documented_rights
from support.valkey import Valkey

pytestmark = pytest.mark.cli

WORKERS = "from pbus import BaseWorker\n\nclass A(BaseWorker):\n    pass\n"
COUNTS = (b":stats", b":stat")  # ends of keys
ONE = "workers:\n  a: {worker: 'w:A'}\n"


def place(cli: CliEnv, name: str, text: str) -> Place:
    """A project's folder."""
    return cli.place(name, {"topology.yaml": f"name: {name}\n{text}", "w.py": WORKERS})


def bad(done: Done) -> list[tuple[str, str]]:
    """Status and subject of what is not well; the exit code says whether there is an error."""
    findings = done.json["findings"]
    assert all(["check", "status", "text", "hint"] == list(one) for one in findings)
    assert done.code == int(any(one["status"] == "error" for one in findings)), done.out
    assert done.json["ok"] == (done.code == 0)
    return [(one["status"], one["check"]) for one in findings if one["status"] != "ok"]


def text_of(done: Done, check: str) -> str:
    """What is said about a subject."""
    return "\n".join(
        f"{one['text']} {one['hint']}" for one in done.json["findings"] if one["check"] == check
    )


def test_without_a_project(cli: CliEnv):
    """Versions, folders and limits are looked at; a file that does not load is a finding."""
    empty = cli.place("empty", {}).run("doctor")
    wrong = place(cli, "wrong", "workers:\n  a: {wroker: x}\n").tell("doctor", "--json")
    right = place(cli, "right", ONE).tell("doctor", "--json")
    named = place(cli, "named", ONE).tell("-p", "nobody", "doctor", "--json")

    assert (0, "0 errors") == (empty.code, empty.err.split(",")[0]), empty.out
    assert [] == [word for word in ("python", "state", "files", "disk") if word not in empty.out]
    assert [("error", "topology")] == bad(wrong)
    assert "wroker" in text_of(wrong, "topology")
    assert [] == bad(right)
    assert [("error", "project")] == bad(named)


@pytest.mark.parametrize("delivery", ["at-most-once", "at-least-once"])
def test_running_project(cli: CliEnv, delivery: str):
    """The broker answers and permits; nothing is left in it; a failed worker is an error."""
    worker = "  b: {command: [./missing], restart: never}\n"
    project = place(cli, f"running-{delivery}", f"bus: {{delivery: {delivery}}}\n{ONE}")
    project.up()
    with project.broker() as broker:
        before = set(broker.keys())
        well = project.run("doctor", "--json")
        # A worker adds its counts with a heartbeat, some seconds after it was ready.
        wait_for(lambda: {key for key in broker.scan_iter() if not key.endswith(COUNTS)} <= before)

    assert [] == bad(well)
    assert "Valkey" in text_of(well, "broker")
    assert "came back in" in text_of(well, "permissions")
    assert "1 of 1" in text_of(well, "workers")
    assert {"a"} == set(project.rows())
    project.tell("down")
    (project.folder / "topology.yaml").write_text(f"name: {project.folder.name}\n{ONE}{worker}")
    project.run("up", "-d")
    project.until(lambda rows: rows["b"]["state"] == "failed")
    (project.folder / "topology.yaml").write_text("workers: [")
    assert {("error", "workers"), ("error", "topology")} == set(
        bad(project.tell("doctor", "--json"))
    )


def test_killed_supervisor_and_guard(cli: CliEnv):
    """What both left is found, with pids; after `down` it is gone."""
    project = place(
        cli,
        "killed",
        f"workers:\n  a: {{command: ['{sys.executable}', -c, 'import time; time.sleep(600)']}}\n",
    )
    project.up()
    guard, supervisor = project.child("pbus.process.system.guard"), project.supervisor()
    (pid,) = (row["pid"] for row in project.rows().values())
    guard.kill()
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_for(lambda: ("error", "leftovers") in bad(project.tell("doctor", "--json")))
    found = project.tell("doctor", "--json")

    assert str(pid) in text_of(found, "leftovers")
    project.run("down")
    assert [] == bad(project.tell("doctor", "--json"))


def test_foreign_file_is_not_connected_to(cli: CliEnv):
    """As with `ps`: a file that was only found, with a broker that it never ran with here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"redis://me:geheim@127.0.0.1:{server.getsockname()[1]}"
        foreign = place(cli, "foreign", f"bus: {{url: '{url}'}}\n{ONE}")
        found = foreign.run("doctor", "--json")
        with pytest.raises(TimeoutError):
            server.accept()

    assert [("warning", "project")] == bad(found)
    assert "-f topology.yaml" in text_of(found, "project")
    named = foreign.tell("doctor", "-f", "topology.yaml", "--json")
    assert [("error", "broker")] == bad(named)
    assert "geheim" not in found.out + found.err + named.out + named.err


def test_silent_broker(cli: CliEnv):
    """One that takes connections and never answers is an error within seconds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}"
        text = f"bus: {{url: '{url}', key: 0123456789abcdef}}\n{ONE}"
        found = place(cli, "silent", text).run("doctor", "-f", "topology.yaml", "--json")

    assert [("error", "broker")] == bad(found)


def test_nothing_is_installed(cli: CliEnv, postgres: Any):
    """A database that pbus was never used in stays as it is."""
    url = postgres.create_database()
    text = f"bus: {{url: '{url}'}}\n{ONE}"
    first, again = (
        place(cli, name, text).tell("doctor", "-f", "topology.yaml", "--json")
        for name in ("fresh", "fresh2")
    )

    for done in (first, again):
        assert 0 == done.code, done.out
        assert "nothing is installed yet" in text_of(done, "schema")


@pytest.fixture(scope="module")
def shared() -> Any:
    """A broker that several projects use."""
    with Valkey(tcp=True) as server:
        yield server


def test_two_projects_on_one_channel(cli: CliEnv, shared: Valkey):
    """And with a worker of the same name: an error, for only one of them can have it."""
    bus = f"bus: {{url: '{shared.url}', channel: 'pbus:shared'}}\n"
    first = place(cli, "first", bus + ONE)
    workers = "workers:\n  a: {worker: 'w:A', restart: never}\n  b: {command: [sleep, '600']}\n"
    second = place(cli, "second", bus + workers)  # b goes on when a is given up
    first.up()
    alone = first.tell("doctor", "--json")
    second.run("up", "-d")
    wait_for(lambda: ("error", "clashes") in bad(first.tell("doctor", "--json")))
    both = first.tell("doctor", "--json")

    assert [] == bad(alone)
    assert ("warning", "clashes") in bad(both)
    assert "first" in text_of(both, "clashes")
    assert "second" in text_of(both, "clashes")


def test_permissions_of_a_user(cli: CliEnv, shared: Valkey):
    """The rights that README lists are enough; without that to publish it is said so."""
    rights = documented_rights()
    for name, rules in (("enough", rights), ("mute", [*rights, "-publish"])):
        shared.command("ACL", "SETUSER", name, "on", ">pw", *rules)
        url = shared.tcp_url.replace("redis://", f"redis://{name}:pw@")
        text = f"bus: {{url: '{url}', channel: 'pbus:shop'}}\n{ONE}"
        found = place(cli, name, text).tell("doctor", "-f", "topology.yaml", "--json")

        assert ([] if name == "enough" else [("error", "permissions")]) == bad(found), found.out
        assert "pw@" not in found.out


def test_postgres(cli: CliEnv, shared_database: str):
    """PGMQ's and pbus' versions; a queue of no worker is a leftover, and stored messages stay."""
    text = f"bus: {{url: '{shared_database}', channel: 'pbus:doctor'}}\n{ONE}"
    project = place(cli, "onpg", text)
    project.up()
    well = project.tell("doctor", "--json")
    project.tell("down")
    (project.folder / "topology.yaml").write_text(text.replace("  a:", "  z:"))
    left = project.tell("doctor", "-f", "topology.yaml", "--json")
    project.tell("down", "--purge", "-f", "topology.yaml")

    assert [] == [one for one in bad(well) if one[1] != "key"]
    assert "Postgres" in text_of(well, "broker")
    assert "functions are current" in text_of(well, "schema")
    assert ("warning", "leftovers") in bad(left)
    assert "pbus purge a" in text_of(left, "leftovers")


def test_output_for_people(cli: CliEnv):
    """A line a finding, what to do below it; as JSON nothing else is on stdout."""
    done = place(cli, "people", "workers: {}\n").run("doctor")

    assert 1 == done.code
    assert "error    topology" in done.out
    assert "→ " in done.out
    json.loads(place(cli, "machines", ONE).tell("doctor", "--json").out)
    assert Path(cli.folder).exists()
