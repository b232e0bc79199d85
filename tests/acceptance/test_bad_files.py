"""Topology files that are wrong: told before anything starts."""

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

CLASS = "from pbus import BaseWorker\n\nclass C(BaseWorker):\n    pass\n"
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


def test_wrong_files_are_refused(cli: CliEnv):
    """Every problem with file and line, what was expected and the nearest name; exit code 2."""
    ended = {}
    for number, (what, (text, _)) in enumerate(BAD.items()):
        place = cli.place(f"bad{number}", {"topology.yaml": text} if text else {})
        verb = ("validate",) if number % 2 else ("up", "-d")
        ended[what] = place.tell(*verb) if number else place.run(*verb)

    for what, (_, parts) in BAD.items():
        done = ended[what]
        assert (2, "") == (done.code, done.out), what
        assert [] == [part for part in parts if part not in done.err], done.err
        assert "Traceback" not in done.err
    assert [] == cli.processes()


def test_right_file_is_described(cli: CliEnv):
    """`validate` says what a file runs; with --json as one object, secrets masked."""
    text = """
name: fine
bus: {url: "redis://me:geheim@db.example:6379"}
workers:
  a: {worker: "m:C", replicas: 3, env: {API_KEY: "${KEY:-geheim}"}}
  b: {command: [sleep, 1]}
"""
    place = cli.place("fine", {"topology.yaml": text, "m.py": CLASS})
    plain, as_json = place.run("validate"), place.tell("validate", "--json")

    assert (0, 0) == (plain.code, as_json.code)
    assert "'fine', 2 workers, 4 processes, on redis://me:***@db.example:6379" in plain.out
    assert (True, []) == (as_json.json["ok"], as_json.json["problems"])
    instances = [worker["instances"] for worker in as_json.json["workers"]]
    assert [["a.1", "a.2", "a.3"], ["b"]] == instances
    assert "geheim" not in plain.out + as_json.out


def test_config_shows_what_is_understood(cli: CliEnv):
    """YAML that loads as the same topology, or JSON; secrets masked; a wrong file is exit code 2."""
    text = """
name: shown
workers:
  a: {worker: "m:C", replicas: 3, env: {API_KEY: "${KEY:-geheim}"}}
  b: {command: [sleep, 1], args: &x ~}
"""
    place = cli.place("shown", {"topology.yaml": text, "m.py": CLASS, "bad.yaml": "a: 1"})
    plain, as_json = place.run("config"), place.tell("config", "--json")
    (place.folder / "again.yaml").write_text(plain.out)
    again = place.tell("config", "again.yaml")

    assert (0, 0, 0) == (plain.code, as_json.code, again.code)
    assert plain.out == again.out
    assert "geheim" not in plain.out + as_json.out
    assert [3, None] == [worker["replicas"] for worker in as_json.json["workers"]]
    wrong = place.tell("config", "bad.yaml")
    assert (2, "") == (wrong.code, wrong.out)
    assert "bad.yaml:1: a: " in wrong.err


def test_validate_reads_the_code(cli: CliEnv):
    """Without importing it; `--strict` imports, in the environment of the worker."""
    text = """
name: read
workers:
  a: {worker: "m:C", args: {sise: 1}}
  b: {worker: "strange:X", env: {STRANGE: "1"}}
  c: {command: [./missing]}
"""
    strange = "import os\nprint('imported')\nif os.environ['STRANGE']: raise OSError('no stove')\n"
    place = cli.place(
        "read", {"topology.yaml": text, "m.py": CLASS, "strange.py": strange + CLASS + "X = C"}
    )
    plain, strict = place.run("validate"), place.run("validate", "--strict")
    as_json = place.tell("validate", "--json")

    assert (2, 2, 2) == (plain.code, strict.code, as_json.code)
    assert ("", "") == (plain.out, strict.out)
    told = ["topology.yaml:4: workers.a.args.sise: `C` has no parameter `sise`",
            "topology.yaml:6: workers.c.command: there is no program `./missing`"]  # fmt: skip
    for done in (plain, strict):
        assert [] == [text for text in told if text not in done.err], done.err
    assert "strange" not in plain.err
    assert "topology.yaml:5: workers.b.worker: worker 'strange:X' cannot be loaded" in strict.err
    assert "OSError: no stove" in strict.err
    assert 2 == len(as_json.json["problems"])
