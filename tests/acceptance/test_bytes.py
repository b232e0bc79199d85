"""Folders, output and terminals that are no UTF-8: every verb works, and says what it can."""

import json
import os
import subprocess

import pytest

from support.cli_env import PATIENCE_S, PBUS, CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

FOLDER = os.fsdecode(b"d\xff\xe9")
NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
WORKERS = """
from pbus import BaseWorker

class Reader(BaseWorker):
    async def start(self):
        with open("note.txt", encoding="utf-8") as file:
            print(file.read(), flush=True)
"""
TOPOLOGY = r"""
name: bytes
bus: {backend: redis}
workers:
  reader: {worker: "workers:Reader"}
  raw: {command: [bash, -c, "printf 'b\\xff gr\\xc3\\xb6\\xc3\\x9fe\\n'; exec sleep 600"]}
  lost: {command: [bin/nothing]}
"""


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project in a folder whose name is no text."""
    place = cli.place(FOLDER, {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    (place.folder / "note.txt").write_text("größe", encoding="utf-8")
    done = place.run("up", "-d")
    assert 0 == done.code, done.err
    wait_for(lambda: "größe" in "\n".join(logs(cli, "reader")))
    return place


def logs(cli: CliEnv, worker: str) -> list[str]:
    """What a worker wrote."""
    paths = cli.state.glob(f"pbus/bytes-*/logs/workers/{worker}.log")
    return [line for path in paths for line in path.read_text(errors="replace").splitlines()]


@pytest.mark.parametrize("environ", [{}, NARROW, {"PYTHONIOENCODING": "ascii"}], ids=str)
@pytest.mark.parametrize("verb", ["ls --json", "ls", "logs raw"])
def test_verbs_print_something(place: Place, environ: dict[str, str], verb: str):
    """In narrow encodings, too; JSON is JSON, and has the folder as Python reads it."""
    done = subprocess.run(
        [PBUS, *verb.split()],
        cwd=place.folder,
        env=place.cli.environ | environ,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert (0, b"") == (done.returncode, done.stderr)
    if verb == "logs raw":
        shown = "b\N{REPLACEMENT CHARACTER} größe"
        in_bytes = shown.encode("ascii" if environ else "utf-8", "backslashreplace")
        assert in_bytes in done.stdout
    if verb == "ls --json":
        (project,) = json.loads(done.stdout)["projects"]
        assert str(place.folder) == project["folder"]


def test_narrow_locale_starts_it(place: Place):
    """`up` itself, where file names are read as ASCII; a program that cannot start says why."""
    cli = place.cli
    assert 0 == place.tell("down").code
    cli.environ |= NARROW
    try:
        done = place.run("up", "--wait")
        assert 1 == done.code
        assert "worker 'lost' failed: cannot be started" in done.err
        rows = place.until(lambda rows: rows["reader"]["ready"])
        assert "bin/nothing" in rows["lost"]["error"]
        assert 0 == place.run("down").code
    finally:
        for name in NARROW:
            del cli.environ[name]
