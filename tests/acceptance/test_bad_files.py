"""Topology files that are wrong: told before anything starts."""

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

BAD: dict[str, tuple[str, list[str]]] = {
    "broken YAML": (
        "name: x\nworkers:\n  a: {worker: 'm:C'\n  b: {worker: 'm:C'}\n",
        ["topology.yaml:4"],
    ),
    "unknown key": (
        "name: x\nworkers:\n  a:\n    worker: m:C\n    replica: 2\n",
        ["topology.yaml:5", "workers.a.replica", "did you mean `replicas`?"],
    ),
    "several": (
        "name: x\nwrokers: {}\nworkers:\n  a: {worker: m}\n  b: {restart: sometimes}\n",
        ["topology.yaml:2", "`workers`?", "topology.yaml:4", "module:Class", "topology.yaml:5"],
    ),
    "no file": ("", ["topology.yaml"]),
}


def test_wrong_files_are_refused(home: CliEnv):
    """Every problem with file and line, what was expected and the nearest name; exit code 2."""
    ended = {}
    for number, (what, (text, _)) in enumerate(BAD.items()):
        place = home.place(f"bad{number}", {"topology.yaml": text} if text else {})
        verb = ("validate",) if number % 2 else ("up", "-d")
        ended[what] = place.tell(*verb) if number else place.run(*verb)

    for what, (_, parts) in BAD.items():
        done = ended[what]
        assert (2, "") == (done.code, done.out), what
        assert [] == [part for part in parts if part not in done.err], done.err
        assert "Traceback" not in done.err
    assert [] == home.processes()


def test_right_file_is_described(home: CliEnv):
    """`validate` says what a file runs; with --json as one object, secrets masked."""
    text = """
name: fine
bus: {url: "redis://me:geheim@db.example:6379"}
workers:
  a: {worker: "m:C", replicas: 3, env: {API_KEY: "${KEY:-geheim}"}}
  b: {command: [sleep, 1]}
"""
    place = home.place("fine", {"topology.yaml": text})
    plain, as_json = place.run("validate"), place.tell("validate", "--json")

    assert (0, 0) == (plain.code, as_json.code)
    assert "'fine', 2 workers, 4 processes, on redis://me:***@db.example:6379" in plain.out
    assert (True, []) == (as_json.json["ok"], as_json.json["problems"])
    instances = [worker["instances"] for worker in as_json.json["workers"]]
    assert [["a.1", "a.2", "a.3"], ["b"]] == instances
    assert "geheim" not in plain.out + as_json.out
