"""Workers that do not start, or do not stay: what `up --wait` says, and how they are restarted."""

import pytest

from support.cli_env import CliEnv, Command, Place, Rows, wait_for
from support.terminal import terminal

pytestmark = pytest.mark.cli

WORKERS = """
import asyncio
from pbus import BaseWorker

class Good(BaseWorker):
    pass

class Slow(BaseWorker):
    async def start(self):
        await asyncio.Event().wait()

class Crashing(BaseWorker):
    async def start(self):
        raise LookupError("nowhere to begin")

class NoWorker:
    pass
"""
CLASHING = """
from pbus import BaseWorker

class Clashing(BaseWorker):
    async def _open_group(self):
        pass
"""
SETTING = """
from pbus import BaseWorker

class Setting(BaseWorker):
    def __init__(self, name):
        super().__init__(name)
        self._worker_tasks = []
"""
BROKEN = "def answer():\n    return 42\n\nimport not_there_at_all\n"
SPECS = {
    "importing": '{worker: "broken:Good"}',
    "missing": '{worker: "workers:Godo"}',
    "exiting": '{command: [sh, -c, "echo giving up >&2; exit 7"], joins: true}',
    "absent": '{worker: "nowhere:Good"}',
    "wrong": '{worker: "workers:NoWorker"}',
    "args": '{worker: "workers:Good", args: {colour: red}}',
    "crashing": '{worker: "workers:Crashing"}',
    "clashing": '{worker: "clashing:Clashing"}',
    "setting": '{worker: "setting:Setting"}',
    "program": "{command: [not-a-program-anywhere]}",
}
SAID = {
    "importing": ['broken.py", line 4, in <module>', "No module named 'not_there_at_all'"],
    "missing": ["workers.py has no Godo"],
    "exiting": ["giving up", "exited with code 7"],
    "absent": ["No module named 'nowhere'"],
    "wrong": ["is no subclass of BaseWorker"],
    "args": ["unexpected keyword argument 'colour'"],
    "crashing": ["in start", "LookupError: nowhere to begin"],
    "clashing": [
        "Clashing._open_group: BaseWorker has '_open_group' for itself; choose another name"
    ],
    "setting": ["Setting: self._worker_tasks: BaseWorker keeps its own state there; rename it"],
    "program": ["cannot be started: No such file or directory: not-a-program-anywhere"],
}
POLICIES = """
name: policies
workers:
  steady: {command: [sleep, 600]}
  flaky: {command: [sh, -c, "until [ -e go ]; do sleep 0.05; done; exit 3"]}
  once: {command: [sh, -c, "exit 4"], restart: never}
  done: {command: [sh, -c, "exit 0"]}
  again: {command: [sh, -c, "until [ -e go ]; do sleep 0.05; done; exit 0"], restart: always}
"""


@pytest.fixture(scope="module")
def policies(cli: CliEnv) -> Place:
    """Programs that end, by all policies; five quick exits take a while, so it starts first."""
    place = cli.place("policies", {"topology.yaml": POLICIES})
    assert place.run("up", "-d").code == 0
    place.until(
        lambda rows: rows["once"]["state"] == "failed" and rows["done"]["state"] == "exited"
    )
    (place.folder / "go").touch()  # so that the first exits are not over before anybody looks
    return place


@pytest.fixture(scope="module", autouse=True)
def slow(cli: CliEnv) -> Command:
    """A start that waits in vain; begun early, too."""
    text = (
        "name: slow\nworkers:\n  slow: {worker: 'workers:Slow'}\n  good: {worker: 'workers:Good'}\n"
    )
    place = cli.place("slow", {"workers.py": WORKERS, "topology.yaml": text})
    return place.start("up", "--wait", "--timeout", "12")


def is_between_starts(rows: Rows) -> bool:
    """Whether both that are started again wait for it."""
    flaky, again = rows["flaky"], rows["again"]
    return flaky["restarts"] > 0 and flaky["state"] == again["state"] == "backoff"


def test_states_show_policy(policies: Place):
    """A worker between two starts is in backoff; one that is left alone exited or failed."""
    rows = policies.until(is_between_starts)

    assert ("failed", None, 0) == tuple(rows["once"][key] for key in ("state", "pid", "restarts"))
    assert ("exited", None, 0) == tuple(rows["done"][key] for key in ("state", "pid", "restarts"))
    assert ("ready", 0) == tuple(rows["steady"][key] for key in ("state", "restarts"))
    ready = {row["name"] for row in policies.tell("ps", "--json", "--ready").json["workers"]}
    assert {"steady"} <= ready <= {"steady", "flaky", "again"}


def bad_place(cli: CliEnv, name: str, *workers: str) -> Place:
    """A project of these bad workers."""
    lines = [f"  {worker}: {SPECS[worker]}\n" for worker in workers]
    text = f"name: {name}\nworkers:\n{''.join(lines)}"
    files = {"workers": WORKERS, "broken": BROKEN, "clashing": CLASHING, "setting": SETTING}
    modules = {f"{module}.py": code for module, code in files.items()}
    return cli.place(name, {"topology.yaml": text, **modules})


def test_bad_worker_is_named(cli: CliEnv):
    """`up --wait` exits 1 at the first that failed, with its last log lines (a traceback too)."""
    done = bad_place(cli, "importing", "importing").run("up", "--wait")

    assert (1, "") == (done.code, done.out)
    assert "error: worker 'importing' failed: " in done.err
    assert [] == [part for part in SAID["importing"] if part not in done.err], done.err


REASONS = """
workers:
  teller:
    command: [sh, -c, "echo no key >&2; echo '2026-01-01 08:00:00,1 INFO shop: closing' >&2; exit 3"]
    restart: never
  quiet: {command: [sh, -c, "[ -e old ] || echo old words >&2; touch old; exit 4"], restart: never, joins: true}
  mute: {command: [sh, -c, "echo '[INFO] hello'; kill -9 $$$$"], restart: never}
  stray: {command: [sleep, 600], joins: true}
  good: {command: [sleep, 600]}
"""


def test_every_reason_is_told(cli: CliEnv):
    """`up --wait` names all that are not ready; each reason is of the last incarnation, and no chatter."""
    place = cli.place("reasons", {"topology.yaml": REASONS})
    done = place.run("up", "--wait")

    assert 1 == done.code
    for text in (
        "worker 'teller' failed: exited with code 3; last line: no key\n",
        "worker 'quiet' failed: exited with code 4; last line: old words\n",
        "worker 'mute' failed: was killed by SIGKILL\n",
        "worker 'stray' is not ready: it runs, but has not said on the bus that it is ready\n",
    ):
        assert text in done.err
    again = place.tell("restart", "quiet")
    assert "quiet failed: exited with code 4\n" in again.err
    told = {name: row["error"] for name, row in place.rows().items()}
    assert {
        "teller": "exited with code 3: no key",
        "quiet": "exited with code 4",
        "mute": "was killed by SIGKILL",
        "stray": None,
        "good": None,
    } == told
    assert "\nteller: exited with code 3: no key\n" in place.tell("ps").out
    assert 0 == place.tell("down").code
    with terminal(place, "up", "--only", "teller,good") as screen:
        screen.until(" teller failed: exited with code 3: no key ")
        screen.press("\x03")
        assert 130 == screen.code()


def test_reasons_are_logged(cli: CliEnv):
    """Whatever keeps workers from starting, the log of each says what it is."""
    rest = [name for name in SPECS if name != "importing"]
    place = bad_place(cli, "bad", *rest)
    assert place.run("up", "-d").code == 0

    for name in rest:
        parts = SAID[name]
        wait_for(lambda: all(part in "\n".join(place.logs(name)) for part in parts))  # noqa: B023 - it is over in this turn
    assert 0 == place.run("down").code


def test_all_failed_ends_up(cli: CliEnv):
    """When some worker failed and nothing is left running, `up` exits 1."""
    text = """
name: hopeless
workers:
  a: {command: [sh, -c, "echo goodbye; exit 5"], restart: never}
  b: {command: [sh, -c, "exit 0"]}
"""
    done = cli.place("hopeless", {"topology.yaml": text}).run("up")

    assert 1 == done.code
    assert "a    | goodbye" in done.out
    assert "a    * failed: exited with code 5" in done.out


def test_flaky_is_given_up(policies: Place):
    """Five quick exits within a minute: failed, with no further start; `always` goes on longer."""
    rows = policies.until(lambda rows: rows["flaky"]["state"] == "failed")

    assert 4 == rows["flaky"]["restarts"]
    assert rows["again"]["restarts"] >= 2
    assert any("5 times within" in line for line in policies.logs("flaky"))


def test_slow_worker_times_out(slow: Command):
    """One that is not ready within --timeout is named: exit code 4."""
    done = slow.done()

    assert (4, "") == (done.code, done.out)
    assert "good is ready" in done.err
    assert "not ready within 12 s: slow" in done.err
