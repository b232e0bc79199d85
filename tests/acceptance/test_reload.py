"""`pbus up` on a project that runs: the edited file is applied, and nothing else is touched."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli_env import CliEnv, Place, Rows, wait_for

pytestmark = pytest.mark.cli

WORKERS = """
import os
from pbus import BaseWorker, job

class Api(BaseWorker):
    def __init__(self, name, model="small"):
        super().__init__(name)
        self.model = model

    @job(name="model")
    async def say_model(self, request):
        return {"model": self.model, "lang": os.environ.get("LANG_OF_IT")}
"""
BASE = """
workers:
  api: {worker: "workers:Api", env: {LANG_OF_IT: de}}
  same: {command: [sleep, '600'], replicas: 2}
  old: {command: [sleep, '600']}
  once: {command: ['true']}
"""
FAST = "restart: {backoff: {initial: 10ms}, max: 2}"


def write(place: Place, text: str) -> None:
    """Edit the file."""
    (place.folder / "topology.yaml").write_text(text)


def pids(rows: Rows, *names: str) -> dict[str, Any]:
    """The processes of workers."""
    return {name: rows[name]["pid"] for name in names}


def plan_of(place: Place, *options: str) -> Any:
    """The plan of --dry-run, and its exit code."""
    done = place.tell("up", "--dry-run", "--json", *options)
    return done.code, {
        (one["worker"], one["action"]): one for one in json.loads(done.out)["changes"]
    }


@pytest.fixture(scope="module")
def shop(cli: CliEnv) -> Place:
    """A project that all tests of this file edit; each begins with the same file applied."""
    place = cli.place("reload", {"topology.yaml": BASE, "workers.py": WORKERS})
    place.up()
    return place


@pytest.fixture
def place(shop: Place) -> Place:
    """The project as it was in the beginning."""
    write(shop, BASE)
    done = shop.tell("up")
    assert 0 == done.code, done.err
    return shop


def test_nothing_to_do(place: Place):
    """A file that was applied changes nothing when it is applied again; the foreground returns."""
    before = place.rows()
    assert (0, {}) == plan_of(place)
    done = place.run("up")
    assert 0 == done.code, done.err
    assert "nothing to do" in done.out
    assert f"runs already (supervisor pid {place.record()['pid']})" in done.err
    names = ("api", "same.1", "same.2", "old")
    assert pids(before, *names) == pids(place.rows(), *names)


def test_edited_file_is_applied(place: Place):
    """Added, removed, restarted, scaled, updated: each is planned with its reason, then done."""
    before = place.rows()
    write(
        place,
        """
workers:
  api: {worker: "workers:Api", args: {model: large}, env: {LANG_OF_IT: fr}}
  same: {command: [sleep, '600'], replicas: 3, stop: {grace: 5s}}
  new: {command: [sleep, '600'], depends_on: [api]}
  once: {command: ['true']}
""",
    )
    code, plan = plan_of(place)
    assert 10 == code
    assert {
        ("api", "restart"): ["args.model", "env.LANG_OF_IT"],
        ("same", "scale"): ["2 → 3"],
        ("same", "update"): ["stop"],
        ("new", "add"): [],
        ("old", "remove"): ["not in the file any more"],
    } == {key: one["why"] for key, one in plan.items()}
    assert pids(before, "api", "old") == pids(place.rows(), "api", "old")  # only shown

    done = place.tell("up", "-d", "--json")

    assert 0 == done.code, done.err
    told = json.loads(done.out)
    assert {"done"} == {one["outcome"] for one in told["results"]}
    assert {"api", "same.1", "same.2", "same.3", "new", "old"} == {
        one["worker"] for one in told["results"]
    }
    after = place.rows()
    assert {"api", "same.1", "same.2", "same.3", "new", "once"} == after.keys()
    assert pids(before, "same.1", "same.2") == pids(after, "same.1", "same.2")
    assert before["api"]["pid"] != after["api"]["pid"]
    assert "ready" == after["new"]["state"]
    assert {"model": "large", "lang": "fr"} == place.ask("api", "model")
    assert (0, {}) == plan_of(place)


def test_broken_file_changes_nothing(place: Place):
    """Every mistake is said, by `up` and by `restart`, and all goes on as before."""
    before = place.rows()
    write(place, BASE.replace("sleep", "{}") + "  more: {replicas: 0, comand: x}\n")
    for words in (("up",), ("up", "-d"), ("up", "--dry-run")):
        done = place.tell(*words)
        assert 2 == done.code
        assert "replicas" in done.err
        assert "comand" in done.err
        assert "command" in done.err
    again = place.tell("restart", "old")
    assert 1 == again.code
    assert "refused" in again.err
    assert "comand" in again.err
    assert pids(before, "api", "same.1", "old") == pids(place.rows(), "api", "same.1", "old")


def test_what_cannot_change_is_said(place: Place):
    """The bus cannot change under the workers: the keys are named, with what to do, and no value."""
    write(place, BASE + "bus: {channel: other, key: 'hidden-hidden-hidden'}\nloop: asyncio\n")
    done = place.tell("up")
    assert 1 == done.code
    assert "`bus.channel`, `bus.key` cannot change while the project runs" in done.err
    assert "`pbus down` and `pbus up`" in done.err
    assert "hidden-" not in done.err + done.out
    dry = place.tell("up", "--dry-run", "--json")
    assert (10, ["bus.channel", "bus.key"]) == (dry.code, json.loads(dry.out)["fixed"])


def test_renamed_project_is_not_started_beside(place: Place):
    """Another name in the file is no second project of the same workers."""
    write(place, "name: other\n" + BASE)
    done = place.tell("up", "-d")
    assert 1 == done.code
    assert "already runs as project 'reload'" in done.err
    assert "pbus down -p reload" in done.err


def test_variables_of_files_count(place: Place):
    """An edited .env or env_file restarts those that use it, and no other."""
    text = (
        BASE.replace("LANG_OF_IT: de", "LANG_OF_IT: '${TONGUE:-de}'") + "  "
        "dated: {command: [sleep, '600'], env_file: dated.env}\n"
    )
    write(place, text)
    (place.folder / "dated.env").write_text("DAY=1\n")
    assert 0 == place.tell("up").code
    before = place.rows()
    (place.folder / "dated.env").write_text("DAY=2\n")
    (place.folder / ".env").write_text("TONGUE=it\n")
    try:
        _, plan = plan_of(place)
        assert {"api": ["env.LANG_OF_IT"], "dated": ["env.DAY"]} == {
            worker: one["why"] for (worker, _), one in plan.items()
        }
        assert 0 == place.tell("up").code
        assert "it" == place.ask("api", "model")["lang"]
        assert pids(before, "old", "same.1") == pids(place.rows(), "old", "same.1")
        write(place, text + "env: {ALL: '1'}\n")
        assert ["env.ALL"] == plan_of(place)[1]["old", "restart"]["why"]
    finally:
        (place.folder / ".env").unlink()


def test_what_is_down_comes_up(place: Place):
    """A stopped and a failed worker are started; a one-shot that has done its work is left alone."""
    write(place, BASE + f"  bad: {{command: [sh, -c, 'exit 3'], ready: {{log: x}}, {FAST}}}\n")
    failed = place.tell("up")
    assert 1 == failed.code
    assert "bad failed" in failed.err
    place.until(lambda rows: rows["bad"]["state"] == "failed")
    place.tell("stop", "old")
    _, plan = plan_of(place)
    assert {("old", "start"): ["stopped"], ("bad", "start"): ["failed"]} == {
        key: one["why"] for key, one in plan.items()
    }
    write(place, BASE + f"  bad: {{command: [sleep, '600'], {FAST}}}\n")
    done = place.tell("up")
    assert 0 == done.code, done.err
    assert {"ready"} == {place.rows()[name]["state"] for name in ("old", "bad")}


def test_named_workers_alone_are_changed(place: Place):
    """--only applies the file to some workers; the rest of the edit waits."""
    before = place.rows()
    write(place, BASE.replace("'600'", "'500'"))
    done = place.tell("up", "--only", "old")
    assert 0 == done.code, done.err
    after = place.rows()
    assert before["old"]["pid"] != after["old"]["pid"]
    assert pids(before, "api", "same.1", "same.2") == pids(after, "api", "same.1", "same.2")
    assert {("same", "restart")} == plan_of(place)[1].keys()


def test_dependencies_hold_at_a_change(place: Place):
    """An added worker waits for one that is added with it; a worker that fails is named."""
    write(
        place,
        BASE
        + f"""
  user: {{command: [sleep, '600'], depends_on: {{db: ready}}}}
  db: {{command: [sh, -c, 'until test -e open; do sleep 0.02; done; exit 4'], ready: {{log: never}}, {FAST}}}
""",
    )
    command = place.start("up", "-d")
    place.until(lambda rows: rows.get("user", {}).get("state") == "waiting")
    (place.folder / "open").touch()
    done = command.done()
    assert 1 == done.code
    assert "db failed" in done.err
    assert "user" in done.err
    (place.folder / "open").unlink()


def test_restart_takes_the_edited_file(place: Place):
    """Arguments and environment of the restarted worker, of no other; a missing file changes none."""
    before = place.rows()
    write(place, BASE.replace("LANG_OF_IT: de", "LANG_OF_IT: pl").replace("'600'", "'500'"))
    done = place.tell("restart", "api")
    assert 0 == done.code, done.err
    assert "changed: env.LANG_OF_IT" in done.err
    assert "pl" == place.ask("api", "model")["lang"]
    assert pids(before, "old", "same.1") == pids(place.rows(), "old", "same.1")
    assert {("same", "restart"), ("old", "restart")} == plan_of(place)[1].keys()
    place.tell("stop", "old")
    assert "changed: command" in place.tell("start", "old").err

    Path(place.folder / "topology.yaml").unlink()
    assert 0 == place.tell("restart", "api", "-p", "reload").code
    assert "pl" == place.ask("api", "model")["lang"]


def test_profiles_stay_and_come(place: Place):
    """A profile that was chosen once stays chosen, and its worker runs on."""
    write(place, BASE + "  dev: {command: [sleep, '600'], profiles: [dev]}\n")
    assert (0, {}) == plan_of(place)
    assert 0 == place.tell("up", "--profile", "dev").code
    assert (0, {}) == plan_of(place)
    assert "ready" == place.rows()["dev"]["state"]


def test_other_files_are_followed(place: Place):
    """Files merged by -f stay those of the project: later commands take them without being told."""
    (place.folder / "more.yaml").write_text("workers: {extra: {command: [sleep, '600']}}")
    done = place.tell("up", "-f", "topology.yaml", "-f", "more.yaml")
    assert 0 == done.code, done.err
    wait_for(lambda: place.record()["overrides"] == [str(place.folder / "more.yaml")])
    assert (0, {}) == plan_of(place)
    assert {("extra", "remove")} == plan_of(place, "-f", "topology.yaml")[1].keys()
    assert 0 == place.tell("up", "-f", "topology.yaml").code
    wait_for(lambda: not place.record()["overrides"])


def test_worker_may_come_back_at_once(place: Place):
    """One that is still ending when it is wanted again is started after its end: never two copies."""
    program = 'trap "" TERM; while [ ! -e enough ]; do sleep 0.05; done; rm enough'
    slow = f"  slow: {{command: [sh, -c, '{program}'], stop: {{grace: 20s}}}}\n"
    write(place, BASE + slow)
    assert 0 == place.tell("up").code
    write(place, BASE)
    leaving = place.start("up")
    place.until(lambda rows: rows["slow"]["state"] == "stopping")
    write(place, BASE + slow)
    coming = place.start("up")
    assert 1 == leaving.done().code
    assert "superseded: wanted again meanwhile" in leaving.err
    (place.folder / "enough").touch()
    done = coming.done()
    assert 0 == done.code, done.err
    assert "ready" == place.rows()["slow"]["state"]
    write(place, BASE)
    (place.folder / "enough").touch()
    assert 0 == place.tell("up").code


def test_removed_one_shots_end_the_project_like_others(cli: CliEnv):
    """When nothing is left to run after a change, the project is over, with its code."""
    place = cli.place("short", {"topology.yaml": BASE, "workers.py": WORKERS})
    place.up("--only", "old,once", "--no-deps")
    write(place, "workers: {once: {command: ['true']}}")
    assert 0 == place.tell("up").code
    place.cli.run(place.folder, ("ps",))
    assert not place.rows() or "old" not in place.rows()
