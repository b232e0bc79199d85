"""What the file says about order, readiness and ends, by the command."""

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

TOPOLOGY = """
x-common: &common {stop: {grace: 5s}}
workers:
  api: {<<: *common, worker: 'workers:Api', depends_on: {db: ready, migrate: completed}}
  migrate: {command: [sh, -c, 'echo migrated'], depends_on: [db]}
  db:
    command: [sh, -c, 'while ! test -e go; do sleep 0.05; done; echo is open; exec sleep 1000']
    ready: {log: is open}
  shell: {command: [sleep, '1000'], profiles: [debug]}
"""
WORKERS = "from pbus import BaseWorker\nclass Api(BaseWorker): pass\n"
FILES = {"topology.yaml": TOPOLOGY, "workers.py": WORKERS}


def test_order_readiness_and_profiles(home: CliEnv):
    """`up --wait` names everyone who is not ready and why; all come up in order, and go."""
    place = home.place("ordered", FILES)
    done = place.run("up", "--wait", "--timeout", "3", "--profile", "debug")

    assert 4 == done.code, done
    for text in (
        "db (",
        "api (waiting for db to be ready)",
        "migrate (waiting for db to be ready)",
    ):
        assert text in done.err
    rows = place.rows()
    assert {"api": "waiting", "migrate": "waiting", "db": "starting", "shell": "ready"} == {
        name: row["state"] for name, row in rows.items()
    }
    assert "waiting for db to be ready" == rows["api"]["error"]
    assert "api: waiting for db to be ready" in place.run("ps").out

    (place.folder / "go").touch()
    place.until(lambda rows: rows["api"]["state"] == "ready")
    assert "exited" == place.rows()["migrate"]["state"]
    assert 0 == place.run("restart", "api").code
    assert 0 == place.run("down").code


def test_only_starts_what_is_needed(home: CliEnv):
    """Dependencies come along, unless they are left out; a profile's worker comes by its name."""
    place = home.place("needed", FILES)
    (place.folder / "go").touch()
    place.up("--only", "migrate,shell")
    assert {"migrate", "db", "shell"} == set(place.rows())
    assert 0 == place.run("down").code
    place.up("--only", "api", "--no-deps")
    assert {"api"} == set(place.rows())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--profile", "debgu"), "there is no profile 'debgu'; did you mean 'debug'?"),
        (("--only", "shel"), "there is no worker 'shel'; did you mean 'shell'?"),
    ],
)
def test_unknown_names_are_refused(home: CliEnv, arguments: tuple[str, ...], expected: str):
    """With the nearest one."""
    done = home.place("unknown-" + arguments[1], FILES).run("up", "-d", *arguments)
    assert 2 == done.code
    assert expected in done.err


def test_its_end_is_the_projects(home: CliEnv):
    """`on_exit: stop` gives `up` the worker's exit code, and nothing is left."""
    text = """
name: once
workers:
  task: {command: [sh, -c, 'exit 7'], restart: never, on_exit: stop}
  other: {command: [sleep, '1000']}
"""
    place = home.place("once", {"topology.yaml": text})
    assert 7 == place.run("up", "--plain").code
