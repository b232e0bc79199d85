"""`pbus restart --rolling` and `pbus scale` under load: nothing fails, nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.job_load import load

pytestmark = pytest.mark.cli

WORKERS = """
import os
from pbus import BaseWorker, job

class Clerk(BaseWorker):
    def __init__(self, name, mark="old"):
        super().__init__(name)
        self.mark = mark

    async def start(self):
        if self.mark == "broken" and os.path.exists("closed"):
            raise RuntimeError("no such model")

    async def on_bus_message(self, message):
        if hasattr(message, "frame"):
            with open("handled", "a") as file:
                file.write(message.frame.text + "\\n")

    @job(name="echo")
    async def echo(self, request):
        return {"n": request.payload["n"], "by": self.name, "mark": self.mark}
"""
EXACT = "bus: {delivery: at-least-once}"


def write(place: Place, bus: str, clerk: str, more: str = "") -> None:
    """Write the file of a project with a clerk."""
    text = f"{bus}\nworkers:\n  clerk: {{worker: 'workers:Clerk', {clerk}}}\n{more}"
    (place.folder / "topology.yaml").write_text(text)


def make(cli: CliEnv, name: str, bus: str, clerk: str, more: str = "") -> Place:
    """A project that is up."""
    place = cli.place(name, {"workers.py": WORKERS})
    write(place, bus, clerk, more)
    place.up()
    return place


def test_nothing_fails_while_all_is_exchanged(cli: CliEnv):
    """At least once: rolled, scaled up and down, reloaded under load: no error, no frame lost."""
    place = make(cli, "exact", EXACT, "replicas: 2")
    before = place.rows()
    with load(place, "clerk", "--frames") as result:
        rolled = place.run("restart", "--rolling", "clerk", limit_s=50)
        assert 0 == rolled.code, rolled.err
        now = place.rows()
        assert {"clerk.1", "clerk.2"} == now.keys()
        assert all(now[name]["pid"] != before[name]["pid"] for name in now)
        up = place.tell("scale", "clerk=4")
        assert 0 == up.code, up.err
        assert "this holds until the next `pbus up`" in up.err
        wait_for(lambda: place.rows()["clerk.4"]["received"])
        down = place.run("scale", "clerk=1", limit_s=50)
        assert 0 == down.code, down.err
        assert ["clerk.1"] == [*place.rows()]
        write(place, EXACT, "replicas: 2, args: {mark: new}")
        assert 0 == place.run("up", limit_s=50).code
    assert {"clerk.1", "clerk.2", "clerk.4"} <= result.found["by"].keys()
    handled = wait_for(lambda: read(place) if set(result.found["frames"]) <= read(place) else None)
    assert set(result.found["frames"]) == handled
    queues = place.tell("ps", "--json").json
    assert [0, 0] == [one["backlog"] for one in queues["workers"]]
    assert "new" == place.ask("clerk", "echo", {"n": 1})["mark"]


def read(place: Place) -> set[str]:
    """The frames that were handled."""
    return set((place.folder / "handled").read_text().split())


def test_replicas_cover_each_other_at_most_once(cli: CliEnv):
    """At most once, too, no job fails while replicas are replaced in turn, with the edited file."""
    place = make(cli, "quick", "", "replicas: 2")
    write(place, "", "replicas: 2, args: {mark: new}")
    with load(place, "clerk"):
        rolled = place.run("restart", "--rolling", limit_s=50)
        assert 0 == rolled.code, rolled.err
        assert "clerk.1 was restarted" in rolled.err
        assert "changed: args.mark" in rolled.err
    assert "new" == place.ask("clerk", "echo", {"n": 1})["mark"]
    shrunk = place.run("scale", "clerk=1", "--json")
    assert [("clerk.2", "done")] == [
        (one["worker"], one["outcome"]) for one in shrunk.json["results"]
    ]


def test_next_one_that_is_not_ready_stops_it(cli: CliEnv):
    """The old ones are left as they were, the one more is gone again, and the reason is said."""
    place = make(cli, "broken", EXACT, "replicas: 2, restart: {backoff: {initial: 10ms}}")
    before = place.rows()
    (place.folder / "closed").touch()
    write(place, EXACT, "replicas: 2, restart: {backoff: {initial: 10ms}}, args: {mark: broken}")
    with load(place, "clerk"):
        rolled = place.run("restart", "--rolling", "clerk")
    assert 1 == rolled.code
    assert "clerk.1 refused: left as it was: clerk.3 did not become ready" in rolled.err
    assert "clerk.2 refused" in rolled.err
    after = place.rows()
    assert {"clerk.1", "clerk.2"} == after.keys()
    assert [before[name]["pid"] for name in after] == [row["pid"] for row in after.values()]
    assert "old" == place.ask("clerk", "echo", {"n": 1})["mark"]
    (place.folder / "closed").unlink()
    assert 0 == place.run("restart", "--rolling", "clerk").code
    assert "broken" == place.ask("clerk", "echo", {"n": 1})["mark"]


def test_worker_without_replicas_is_restarted_in_place(cli: CliEnv):
    """At least once its jobs wait meanwhile; dependencies come first, dependents are not restarted."""
    more = (
        "    depends_on: {base: {condition: ready, restart: true}}\n"
        "  base: {command: [sleep, '600'], replicas: 2}\n"
    )
    place = cli.place("single", {"workers.py": WORKERS})
    (place.folder / "topology.yaml").write_text(
        f"{EXACT}\nworkers:\n  clerk:\n    worker: workers:Clerk\n{more}"
    )
    place.up()
    before = place.rows()
    with load(place, "clerk"):
        base = place.run("restart", "--rolling", "base")
        assert 0 == base.code, base.err
        assert before["clerk"]["pid"] == place.rows()["clerk"]["pid"]
        rolled = place.run("restart", "--rolling")
        assert 0 == rolled.code, rolled.err
    lines = [line.split(" ")[0] for line in rolled.err.splitlines()]
    assert ["base.1", "base.2", "clerk"] == lines
    assert "in place, since it has no replicas" in rolled.err
    assert 1 == place.rows()["clerk"]["restarts"]
    shrunk = place.run("scale", "base=1")  # what depends on the others goes on
    assert 0 == shrunk.code, shrunk.err


@pytest.mark.parametrize(
    ("wish", "code", "text"),
    [
        ("clerk=0", 1, "expected a number from 1 to 1000"),
        ("clerk=-1", 1, "clerk=-1: expected a number"),
        ("clerk=5000", 1, "expected a number from 1 to 1000"),
        ("clark=2", 2, "did you mean"),
        ("base=2", 1, "has no replicas"),
        ("clerk", 2, "as in stt=4"),
        ("clerk=two", 2, "as in stt=4"),
    ],
)
def test_impossible_numbers_are_errors(small: Place, wish: str, code: int, text: str):
    """Each is said, and nothing is changed."""
    done = small.tell("scale", wish)
    assert code == done.code
    assert text in done.err
    assert {"clerk.1", "clerk.2", "base"} == small.rows().keys()


@pytest.fixture(scope="module")
def small(cli: CliEnv) -> Place:
    """A project of programs."""
    place = cli.place("small", {})
    (place.folder / "topology.yaml").write_text(
        "workers:\n"
        "  clerk: {command: [sleep, '600'], replicas: 2}\n"
        "  base: {command: [sleep, '600']}\n"
    )
    place.up()
    return place


def test_scaled_number_holds_until_the_next_up(small: Place):
    """It is told from the file by the plan of `up`, survives `restart`, and is completed."""
    assert 0 == small.tell("scale", "clerk=3").code
    assert 0 == small.tell("restart", "clerk").code
    assert {"clerk.1", "clerk.2", "clerk.3", "base"} == small.rows().keys()
    assert "unchanged" not in small.tell("scale", "clerk=3").err
    plan = small.tell("up", "--dry-run", "--json").json["changes"]
    assert [("clerk", "scale", ["3 → 2"], ["clerk.3"])] == [
        (one["worker"], one["action"], one["why"], one["instances"]) for one in plan
    ]
    assert 0 == small.tell("up").code
    assert {"clerk.1", "clerk.2", "base"} == small.rows().keys()


def test_names_of_replicas_complete(small: Place):
    """The shell offers the groups, with the sign that a number follows."""
    environ = {
        **small.cli.environ,
        "_PBUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "pbus scale cl",
        "COMP_CWORD": "2",
    }

    def offered() -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name("pbus")],
            cwd=small.folder, env=environ, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return done.stdout.strip()

    assert "clerk=" == wait_for(offered)
